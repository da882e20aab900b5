"""Saved answers → a report in HTML, JSON with every digit, or CSV for spreadsheets.

All three carry the hashes of model, adapter, data and cache. The texts come from models and data sets and
are never trusted: in HTML everything is escaped and nothing can run or be fetched, in CSV nothing is a formula.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer import views
from explorer.history.evidence import Retraining
from explorer.history.report_html import document
from explorer.history.saved import SavedAnswer, SavedInfluence, SavedQuestion, asked_json, selection_json
from explorer.records import Token
from explorer.visible import spreadsheet_cell

FORMAT = "rapidin-explorer history 1"


def moment(seconds: float) -> str:
    """A time in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def to_html(answers: Sequence[SavedAnswer], retrainings: Sequence[Retraining] = ()) -> bytes:
    """One page that needs nothing else: no script, no font, no picture."""
    return document(answers, retrainings).encode("utf-8", "replace")


def to_json(answers: Sequence[SavedAnswer]) -> bytes:
    """Everything that is kept. Numbers read back to the last digit; those that aren't finite are null."""
    return json_bytes({"format": FORMAT, "answers": [answer_json(saved) for saved in answers]})


def to_csv(answers: Sequence[SavedAnswer]) -> bytes:
    """One line an influence; an answer without any has one line, too."""
    return csv_bytes([line for saved in answers for line in _lines(saved)], _COLUMNS)


def json_bytes(found: dict[str, Any], indent: int | None = 1) -> bytes:
    """A JSON file; numbers that aren't finite are null. Without an `indent` it is one line without blanks."""
    between = None if indent is not None else (",", ":")
    text = json.dumps(_finite(found), allow_nan=False, indent=indent, separators=between)
    return f"{text}\n".encode("ascii")


def csv_bytes(lines: Sequence[dict[str, object]], columns: Sequence[str]) -> bytes:
    """A CSV file in which nothing is a formula; what a line lacks is empty."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(value) for name, value in line.items()} for line in lines)
    # The mark at the start is how spreadsheets know UTF-8.
    return out.getvalue().encode("utf-8-sig")


# JSON


def answer_json(saved: SavedAnswer) -> dict[str, Any]:
    """An answer with all that is kept of it, as plain values."""
    return {
        "id": saved.id,
        "asked": moment(saved.asked),
        "answer_id": saved.answer.id,
        **asked_json(saved.answer.asked),
        "response": saved.answer.text,
        "said_by": saved.said_by.value,
        "tokens": _tokens(saved.answer.tokens),
        "ids": saved.answer.encoded.ids.tolist(),
        "response_start": saved.answer.encoded.response_start,
        "generation": saved.drawn,
        "origin": dataclasses.asdict(saved.origin),
        "annotation": dataclasses.asdict(saved.annotation),
        "questions": [question_json(question) for question in saved.questions],
    }


def question_json(saved: SavedQuestion) -> dict[str, Any]:
    """A question with its examples, as plain values."""
    return {
        "id": saved.id,
        "asked": moment(saved.asked),
        "selection": selection_json(saved.selection),
        "opponents": saved.opponents,
        "method": saved.method.name,
        "filter": dataclasses.asdict(saved.wanted),
        "sketch_error": saved.sketch_error,
        "caution": saved.caution,
        "verdict": saved.verdict and dataclasses.asdict(saved.verdict),
        "examples": [_influence(rank, shown) for rank, shown in enumerate(saved.shown, start=1)],
        "scores": _numbers(saved.scores),
    }


def _influence(rank: int, shown: SavedInfluence) -> dict[str, Any]:
    found, example = shown.influence, shown.example
    return {
        "rank": rank,
        "row": found.row,
        "score": found.score,
        "exact": found.exact,
        "checksum": found.checksum,
        "percentile": shown.percentile,
        "unrelated_prompts": found.place and dataclasses.asdict(found.place),
        "checkpoints": list(found.parts),
        "steadiness": found.steadiness and dataclasses.asdict(found.steadiness),
        "example_id": example.id,
        "ids": example.encoded.ids.tolist(),
        "response_start": example.encoded.response_start,
        "gaps": [list(gap) for gap in example.encoded.gaps],
        "loss": example.loss,
        "prompt": example.prompt,
        "response": example.response,
        "columns": example.columns,
        "tokens": _tokens(example.tokens),
        "token_values": _numbers(found.values),
        "position_tokens": _tokens(shown.sequence) if shown.sequence else None,
        "position_values": _numbers(found.positions),
        "annotation": dataclasses.asdict(shown.annotation),
    }


def _tokens(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(token) for token in tokens]


def _numbers(values: NDArray[np.float32] | None) -> list[float] | None:
    """float32 as the shortest decimals of the same double, which give the same float32 back."""
    return None if values is None else [float(value) for value in values]


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


# CSV

_COLUMNS = (
    *(
        "answer",
        "question",
        "asked",
        "prompt",
        "response",
        "said_by",
        "verdict",
        "tags",
        "note",
        "selected",
        "direction",
        "method",
    ),
    *("rank", "row", "score", "exact", "percentile", "checksum", "source", "example_prompt", "example_response"),
    *("example_verdict", "example_tags", "example_note", "token_values"),
    *("model", "adapter", "data", "base_sha256", "adapter_sha256", "data_sha256", "cache_sha256"),
    *("rows", "unread_rows"),
)


def _lines(saved: SavedAnswer) -> Iterator[dict[str, object]]:
    origin, note = saved.origin, saved.annotation
    about: dict[str, object] = {
        "answer": saved.id,
        "asked": moment(saved.asked),
        "prompt": saved.answer.prompt,
        "response": saved.answer.text,
        "said_by": saved.said_by.value,
        "verdict": note.verdict,
        "tags": ", ".join(note.tags),
        "note": note.note,
        "model": origin.model,
        "adapter": origin.adapter,
        "data": origin.data,
        "base_sha256": origin.base_sha256,
        "adapter_sha256": origin.adapter_sha256,
        "data_sha256": origin.data_sha256,
        "cache_sha256": origin.cache_sha256,
        "rows": origin.rows,
        "unread_rows": origin.unread_rows,
    }
    if not any(question.shown for question in saved.questions):
        yield about
    for question in saved.questions:
        for rank, shown in enumerate(question.shown, start=1):
            yield about | _line(saved, question, rank, shown)


def _line(saved: SavedAnswer, question: SavedQuestion, rank: int, shown: SavedInfluence) -> dict[str, object]:
    found, example = shown.influence, shown.example
    return {
        "question": question.id,
        "selected": views.selected_text(saved.answer, question.selection),
        "direction": "opponents" if question.opponents else "proponents",
        "method": question.method.name,
        "rank": rank,
        "row": found.row,
        "score": found.score,
        "exact": found.exact,
        "percentile": shown.percentile,
        "checksum": found.checksum,
        "source": example.source,
        "example_prompt": example.prompt,
        "example_response": example.response,
        "example_verdict": shown.annotation.verdict,
        "example_tags": ", ".join(shown.annotation.tags),
        "example_note": shown.annotation.note,
        "token_values": json.dumps(_finite(_numbers(found.values))),
    }
