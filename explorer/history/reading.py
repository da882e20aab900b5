"""What `export.answer_json` wrote, or anybody else → the records of a saved answer.

Every value is checked for its type, and for what the views need of it: as many values as tokens, selections inside the
answer, rows inside the data.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.corpus import Filter
from explorer.history.checked import checked
from explorer.history.saved import (
    Annotation,
    Describe,
    Origin,
    SavedAnswer,
    SavedInfluence,
    SavedQuestion,
)
from explorer.records import (
    Answer,
    Contrast,
    Conversation,
    Encoded,
    ExampleRow,
    Influence,
    NullPlace,
    Selection,
    Span,
    Steadiness,
    Token,
    span_of,
)
from explorer.trust import Verdict

_Scalar = str | int | float | bool | None
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class _Contrast:
    span: Span
    instead: tuple[int, ...]
    text: str


@dataclass(frozen=True, eq=False)
class _Example:
    row: int
    score: float
    exact: bool
    checksum: float | None
    percentile: float
    unrelated_prompts: NullPlace | None
    checkpoints: tuple[float, ...]
    steadiness: Steadiness | None
    example_id: int
    ids: NDArray[np.int64]
    response_start: int
    gaps: tuple[tuple[int, int], ...]
    loss: float
    prompt: str
    response: str
    columns: dict[str, Any]
    tokens: tuple[Token, ...]
    token_values: NDArray[np.float32] | None
    position_tokens: tuple[Token, ...] | None
    position_values: NDArray[np.float32] | None
    annotation: Annotation


@dataclass(frozen=True, eq=False)
class _Question:
    id: str
    asked: str
    selection: Span | _Contrast | None
    opponents: bool
    method: str
    filter: Filter
    sketch_error: float
    caution: str
    verdict: Verdict | None
    examples: tuple[_Example, ...]
    scores: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class _Answer:
    id: str
    asked: str
    answer_id: str
    prompt: str
    response: str
    tokens: tuple[Token, ...]
    ids: NDArray[np.int64]
    response_start: int
    generation: dict[str, _Scalar] | None
    origin: Origin
    annotation: Annotation
    questions: tuple[_Question, ...]
    messages: tuple[dict[str, Any], ...] | None = None


def read_exported(plain: Any, describe: Describe, where: str = "") -> SavedAnswer:
    """The saved answer that `answer_json` wrote as plain values; `describe` says what a method of a name is.

    Times come back to the second. Raises ValueError, which says where what isn't as it ought to be.
    """
    kept: _Answer = checked(_Answer, plain, where)
    asked = Conversation.of(kept.prompt) if kept.messages is None else _conversation(kept.messages, where)
    encoded = _encoded(kept.ids, kept.response_start, (), kept.tokens, where)
    answer = Answer(kept.answer_id, asked, encoded, kept.tokens, kept.response, finished=True)
    questions = tuple(
        _question(question, answer, kept.origin.rows, describe, f"{where}.questions[{at}]")
        for at, question in enumerate(kept.questions)
    )
    moment = _seconds(kept.asked, where)
    return SavedAnswer(kept.id, moment, answer, kept.generation, kept.origin, kept.annotation, questions)


def _question(kept: _Question, answer: Answer, rows: int, describe: Describe, where: str) -> SavedQuestion:
    selection: Selection = kept.selection if not isinstance(kept.selection, _Contrast) else None
    if isinstance(kept.selection, _Contrast):
        selection = Contrast(kept.selection.span, kept.selection.instead, kept.selection.text)
    span = span_of(selection)
    if span is not None and not 0 <= span[0] < span[1] <= len(answer.tokens):
        raise ValueError(f"{where}.selection lies outside the answer's {len(answer.tokens)} tokens")
    if kept.scores is not None and len(kept.scores) != rows:
        raise ValueError(f"{where} has {len(kept.scores)} scores of {rows} rows")
    shown = tuple(_shown(one, rows, f"{where}.examples[{at}]") for at, one in enumerate(kept.examples))
    return SavedQuestion(
        kept.id,
        _seconds(kept.asked, where),
        selection,
        kept.opponents,
        kept.filter,
        kept.sketch_error,
        kept.caution,
        shown,
        kept.scores,
        method=describe(kept.method),
        verdict=kept.verdict,
    )


def _shown(kept: _Example, rows: int, where: str) -> SavedInfluence:
    if not 0 <= kept.row < rows:
        raise ValueError(f"{where}.row is {kept.row}; the data has the rows 0 to {rows - 1}")
    if not 0 <= kept.percentile <= 100:
        raise ValueError(f"{where}.percentile is {kept.percentile:g}; expected 0 to 100")
    _as_many(kept.token_values, kept.tokens, f"{where}.token_values")
    _as_many(kept.position_values, kept.position_tokens or (), f"{where}.position_values")
    encoded = _encoded(kept.ids, kept.response_start, kept.gaps, kept.tokens, where)
    example = ExampleRow(
        kept.row, kept.example_id, kept.prompt, kept.response, encoded, kept.tokens, kept.loss, kept.columns
    )
    found = Influence(
        kept.row,
        kept.score,
        kept.exact,
        kept.token_values,
        kept.checksum,
        kept.position_values,
        kept.unrelated_prompts,
        kept.checkpoints,
        kept.steadiness,
    )
    return SavedInfluence(found, kept.percentile, example, kept.position_tokens, kept.annotation)


def _encoded(
    ids: NDArray[np.int64], start: int, gaps: tuple[tuple[int, int], ...], tokens: tuple[Token, ...], where: str
) -> Encoded:
    edges = [edge for gap in gaps for edge in gap]
    if not 0 <= start <= len(ids) or edges != sorted(edges) or not all(start <= edge <= len(ids) for edge in edges):
        raise ValueError(f"{where} has a response that lies outside its {len(ids)} tokens")
    encoded = Encoded(ids, start, gaps)
    if encoded.response_length != len(tokens):
        raise ValueError(f"{where} has {len(tokens)} tokens for a response of {encoded.response_length}")
    return encoded


def _as_many(values: NDArray[np.float32] | None, tokens: tuple[Token, ...], where: str) -> None:
    if values is not None and len(values) != len(tokens):
        raise ValueError(f"{where} has {len(values)} values for {len(tokens)} tokens")


def _conversation(turns: tuple[dict[str, Any], ...], where: str) -> Conversation:
    for at, turn in enumerate(turns):
        texts = [turn.get("role"), turn.get("content") or "", *(turn.get(name) or "" for name in _THOUGHTS)]
        if "content" not in turn or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{where}.messages[{at}] is no turn; expected a role and a content, both texts")
    if not turns:
        raise ValueError(f"{where}.messages is empty")
    return Conversation(turns)


def _seconds(moment: str, where: str) -> float:
    """Seconds since 1970 of a time in ISO 8601."""
    try:
        found = datetime.fromisoformat(moment)
        if found.tzinfo is None or not 1 < found.year < 9999:
            raise ValueError
        return found.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{where}.asked is no time in ISO 8601 with its zone") from None
