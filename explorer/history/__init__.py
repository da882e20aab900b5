"""TODO."""

from explorer.history.export import answer_json, csv_bytes, json_bytes
from explorer.history.history import History, Summary
from explorer.history.saved import (
    Annotation,
    Origin,
    SavedAnswer,
    SavedInfluence,
    SavedQuestion,
    origin_of,
    question_id,
    saved_question,
)

__all__ = [
    "Annotation",
    "History",
    "Origin",
    "SavedAnswer",
    "SavedInfluence",
    "SavedQuestion",
    "Summary",
    "answer_json",
    "csv_bytes",
    "json_bytes",
    "origin_of",
    "question_id",
    "saved_question",
]
