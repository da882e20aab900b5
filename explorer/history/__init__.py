"""Questions that were asked, kept with their answers in one SQLite file, and exported.

In come rankings and what a person notes; out come the same records, JSON, CSV and
HTML, which need neither model nor cache. Methods are names to it: whoever opens a
history says what each is. It knows nothing of how anything was computed. Numpy only.
"""

from explorer.history.evidence import Retraining
from explorer.history.export import answer_json, csv_bytes, json_bytes, question_json
from explorer.history.history import History, Summary
from explorer.history.reader import Reader
from explorer.history.saved import (
    Annotation,
    Origin,
    SavedAnswer,
    SavedInfluence,
    SavedQuestion,
    asked_json,
    origin_of,
    question_id,
    saved_question,
)

__all__ = [
    "Annotation",
    "History",
    "Origin",
    "Reader",
    "Retraining",
    "SavedAnswer",
    "SavedInfluence",
    "SavedQuestion",
    "Summary",
    "answer_json",
    "asked_json",
    "csv_bytes",
    "json_bytes",
    "origin_of",
    "question_id",
    "question_json",
    "saved_question",
]
