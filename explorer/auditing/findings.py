"""Many prompts at once: reading them, what was found for each, what it comes to, and both as files.

Knows no model and no pages. `auditing.py` finds what is recorded here.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from explorer.errors import DataError, FilterError
from explorer.history import Origin, SavedAnswer, SavedQuestion, answer_json, csv_bytes, json_bytes
from explorer.questions import FIELDS, read_question
from explorer.records import Can, Conversation, ExampleRow, Prompt, span_of
from explorer.text_files import csv_rows, decoded, json_lines
from explorer.trust.verdict import STATES, State
from explorer.trust.wording import HEADLINES
from explorer.views import shortened
from explorer.visible import one_line, well_formed

TOP = 10
"""So many of the most influential examples are kept for each answer."""
MOST_PROMPTS = 1_000
"""So many prompts are audited at once."""
MOST_BYTES = 1_000_000
"""A file of prompts may have this size."""
NAMED = 5
"""So many prompts are named in a sentence."""
FORMAT = "rapidin-explorer audit 1"


@dataclass(frozen=True)
class Label:
    """A column of the training data, and the values in it that are looked for."""

    column: str = "source"
    planted: tuple[str, ...] = ()

    def of(self, example: ExampleRow) -> str:
        """The example's value as text; empty where it has none."""
        value = example.columns.get(self.column)
        return "" if value is None else str(value)

    def check(self, examples: Sequence[ExampleRow]) -> None:
        """Raises FilterError where no example has one of the values looked for."""
        known = {self.of(example) for example in examples} - {""}
        for value in self.planted:
            if value not in known:
                have = shortened(", ".join(sorted(known)), 300) or "none"
                raise FilterError(f"No training example has {self.column} {value}; its values are: {have}.")


@dataclass(frozen=True, eq=False)
class Audited:
    """One prompt of an audit, with its answer and the examples behind that, or with what went wrong."""

    asked: Conversation
    saved: SavedAnswer | None = None
    """The answer with its questions, without the scores of all examples; None where there is an error.

    The first question is about the word that fine-tuning raised most, where there is such a word and the method can
    tell how strong its evidence is; the last is about the whole response.
    """
    error: str = ""
    unsaved: str = ""
    """Why the answer isn't in the history; empty where it is."""

    @property
    def prompt(self) -> str:
        """What a person reads as the prompt."""
        return self.asked.text

    @property
    def question(self) -> SavedQuestion | None:
        """What was found for the word that fine-tuning raised most, or else for the whole response."""
        return self.saved.questions[0] if self.saved else None

    @property
    def response(self) -> str:
        """The answer's text; empty where there is none."""
        return self.saved.answer.text if self.saved else ""

    @property
    def selected(self) -> tuple[str, str, str]:
        """The answer in three parts, the middle one what was asked about; only the first where that is all of it."""
        span = span_of(self.question.selection) if self.question else None
        if self.saved is None or span is None:
            return self.response, "", ""
        tokens, (start, stop) = self.saved.answer.tokens, span
        parts = tokens[:start], tokens[start:stop], tokens[stop:]
        before, inside, after = ("".join(token.text for token in part if not token.special) for part in parts)
        return before, inside, after

    @property
    def evidence(self) -> State | None:
        """How strong the evidence is; None where that isn't known."""
        return self.question.verdict.state if self.question and self.question.verdict else None

    def main_source(self, label: Label) -> tuple[str, int, int]:
        """The most frequent value of a label among the top examples, how many have it, and of how many."""
        counts = self.counts(label)
        value, count = next(iter(counts.items()), ("", 0))
        return value, count, sum(counts.values())

    @property
    def stands_out(self) -> bool | None:
        """Whether the examples behind the answer are unusual beside unrelated prompts, or by the rule of thumb.

        None where that isn't known: without an answer, and by a method that knows nothing of unrelated prompts.
        """
        if self.question is None or not self.question.method.can(Can.NULLS):
            return None
        return bool(self.question.shown) and not self.question.caution

    def counts(self, label: Label) -> dict[str, int]:
        """How many of the top examples have each value of a label, the most frequent first."""
        values = [label.of(shown.example) for shown in self.question.shown] if self.question else []
        return dict(Counter(values).most_common())

    def planted(self, label: Label) -> float | None:
        """Share of the top examples that have one of the values looked for; None where there are no examples."""
        counts = self.counts(label)
        total = sum(counts.values())
        return sum(counts.get(value, 0) for value in label.planted) / total if total else None


@dataclass(frozen=True)
class Summary:
    """What the audited prompts come to."""

    prompts: int
    failed: int
    standing_out: int | None
    """Answers where something stands out; None where that isn't known of any."""
    shares: dict[str, float]
    """The mean share of each label's value among the top examples of the answers, the largest first."""
    planted: float | None
    """The mean share of planted rows; None without an answer."""
    planted_of_all: float
    """The share of planted rows in the training data, which chance alone would find."""
    evidence: dict[State, int] | None = None
    """How many answers have strong, some and no evidence; None where that isn't known of any."""
    strong_for: dict[str, int] = field(default_factory=dict)
    """For which values of the label the evidence is strong, of how many answers, the most frequent first."""
    strong_for_planted: tuple[str, ...] = ()
    """The prompts whose answers have strong evidence for planted rows."""


def summary(audited: Sequence[Audited], label: Label, examples: Sequence[ExampleRow]) -> Summary:
    """What was found for all of these prompts, beside the training examples as a whole."""
    counts = [one.counts(label) for one in audited if one.question and one.question.shown]
    shares: dict[str, float] = {}
    for each in counts:
        for value, count in each.items():
            shares[value] = shares.get(value, 0.0) + count / sum(each.values()) / len(counts)
    found = [share for share in (one.planted(label) for one in audited) if share is not None]
    told = [one.stands_out for one in audited if one.stands_out is not None]
    known = [one.evidence for one in audited if one.evidence is not None]
    strong = [one for one in audited if one.evidence == "strong"]
    return Summary(
        prompts=len(audited),
        failed=sum(bool(one.error) for one in audited),
        standing_out=sum(told) if told else None,
        shares=dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        planted=float(np.mean(found)) if found else None,
        planted_of_all=sum(label.of(example) in label.planted for example in examples) / max(len(examples), 1),
        evidence={state: known.count(state) for state in STATES} if known else None,
        strong_for=dict(Counter(one.main_source(label)[0] for one in strong).most_common()),
        strong_for_planted=tuple(one.asked.question for one in strong if one.main_source(label)[0] in label.planted),
    )


# Prompts


def read_prompts(name: str, payload: bytes) -> tuple[Prompt, ...]:
    """The prompts of a file: .txt has one a line, .jsonl and .csv have them as `turns.read_question` reads a row.

    Prompts that occur twice are kept twice. Raises DataError where the file
    can't be read so, with the line at fault.
    """
    if len(payload) > MOST_BYTES:
        raise DataError(f"{name} has {len(payload) / 1e6:.1f} MB; give a file of at most {MOST_BYTES / 1e6:.0f} MB.")
    read = _READERS.get(PurePath(name).suffix.lower())
    if read is None:
        raise DataError(f"{name} has an unknown ending; give a file that ends in {', '.join(_READERS)}.")
    return _checked(name, read(name, decoded(payload, name, DataError)))


def read_kinds(name: str, payload: bytes) -> tuple[str, ...]:
    """The `kind` of every prompt of a file that `read_prompts` reads, in their order; empty where it says none."""
    text = decoded(payload, name, DataError)
    rows: list[Any] = []
    if name.lower().endswith(".jsonl"):
        rows = [row for _, row in json_lines(text, name, DataError)]
    elif name.lower().endswith(".csv"):
        rows = [row for _, row in csv_rows(text)]
    else:
        return ("",) * len(_lines(name, text))
    kinds = [row.get("kind") if isinstance(row, dict) else "" for row in rows]
    return tuple(well_formed(kind) if isinstance(kind, str) else "" for kind in kinds)


def pasted_prompts(text: str) -> tuple[Prompt, ...]:
    """The prompts of pasted text, one a line. Raises DataError where there are none, or too many."""
    return _checked("The text", _lines("", text))


def _checked(name: str, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    if not prompts:
        raise DataError(f"{name} holds no prompts; write one a line.")
    if len(prompts) > MOST_PROMPTS:
        raise DataError(f"{name} holds {len(prompts):,} prompts; give at most {MOST_PROMPTS:,} at once.")
    return tuple(prompts)


def _lines(name: str, text: str) -> list[Prompt]:
    # Tokenizers refuse half surrogates.
    return [well_formed(line.strip()) for line in text.replace("\r", "\n").split("\n") if line.strip()]


def _json_lines(name: str, text: str) -> list[Prompt]:
    return [
        read_question(row if isinstance(row, dict) else {}, f"{name}, line {number},")
        for number, row in json_lines(text, name, DataError)
    ]


def _csv(name: str, text: str) -> list[Prompt]:
    prompts = list[Prompt]()
    try:
        for line, row in csv_rows(text):
            if isinstance(row, str):
                raise DataError(f'{name}, line {line}, {row}; quote texts with ".')
            if "prompt" not in row:
                have = one_line(", ".join(row), 200)
                raise DataError(f"{name} has no column prompt; its first line names {have or 'nothing'}.")
            prompts.append(read_question(_cells(row), f"{name}, line {line},"))
    except ValueError as problem:
        raise DataError(f'{name}, {problem}; quote texts with ".') from None
    return prompts


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """What a row of a table asks; an empty cell says nothing."""
    return {"prompt": ""} | {name: row[name] for name in FIELDS if row.get(name)}


_READERS: dict[str, Callable[[str, str], list[Prompt]]] = {".txt": _lines, ".jsonl": _json_lines, ".csv": _csv}
ENDINGS = tuple(_READERS)
"""The endings of files that `read_prompts` knows."""


# Files


def to_json(audited: Sequence[Audited], label: Label, examples: Sequence[ExampleRow], origin: Origin) -> bytes:
    """All that was found, with the model, data and cache it comes from."""
    return json_bytes(
        {
            "format": FORMAT,
            "origin": asdict(origin),
            "label": asdict(label),
            "summary": asdict(summary(audited, label, examples)),
            "prompts": [
                {
                    "prompt": one.prompt,
                    "error": one.error,
                    "stands_out": one.stands_out,
                    "planted_share": one.planted(label),
                    "labels": one.counts(label),
                    "asked_about": one.selected[1].strip() or None,
                    "evidence": one.evidence,
                    "main_source": one.main_source(label)[0] or None,
                    "main_count": one.main_source(label)[1],
                    "answer": answer_json(one.saved) if one.saved else None,
                }
                for one in audited
            ],
        }
    )


def to_csv(audited: Sequence[Audited], label: Label, origin: Origin) -> bytes:
    """One line a prompt."""
    return csv_bytes([_line(one, label, origin) for one in audited], _COLUMNS)


_COLUMNS = (
    *("prompt", "response", "error", "method", "stands_out", "caution", "label", "planted", "planted_share", "labels"),
    *("asked_about", "evidence", "main_source", "main_count"),
    *("rows", "scores", "exact", "sketch_error", "answer"),
    *("model", "adapter", "data", "base_sha256", "adapter_sha256", "data_sha256", "cache_sha256"),
)


def _line(one: Audited, label: Label, origin: Origin) -> dict[str, object]:
    about = {name: value for name, value in asdict(origin).items() if name in _COLUMNS}
    line: dict[str, object] = about | {"prompt": one.prompt, "error": one.error, "label": label.column}
    if one.saved is None or one.question is None:
        return line
    found = [shown.influence for shown in one.question.shown]
    return line | {
        "response": one.response,
        "method": one.question.method.name,
        "stands_out": one.stands_out,
        "caution": one.question.caution,
        "planted": "; ".join(label.planted),
        "planted_share": one.planted(label),
        "labels": described(one.counts(label)),
        "asked_about": one.selected[1].strip(),
        "evidence": one.evidence or "",
        "main_source": one.main_source(label)[0],
        "main_count": one.main_source(label)[1],
        "rows": " ".join(str(each.row) for each in found),
        "scores": " ".join(f"{each.score:.9g}" for each in found),
        "exact": all(each.exact for each in found),
        "sketch_error": one.question.sketch_error,
        "answer": one.saved.id,
    }


def described(counts: dict[str, int]) -> str:
    """Counts in words: facts 7, lists 3."""
    return ", ".join(f"{value or 'none'} {count}" for value, count in counts.items())


def as_text(audited: Sequence[Audited], label: Label, examples: Sequence[ExampleRow]) -> str:
    """The audit for a terminal."""
    lines = []
    for number, one in enumerate(audited, start=1):
        lines.append(f"{number:4}  {one_line(one.asked.question, 100)}")
        if one.error:
            lines.append(f"      not answered: {one.error}")
            continue
        lines.append(f"      → {one_line(one.response, 100)}")
        about = one.selected[1].strip()
        word = f"“{one_line(about, 40)}”: " if about else ""
        lines.append(f"      {word}{one_line(described(one.counts(label)), 200)}{_said(one)}")
    return "\n".join([*lines, "", *sentences(summary(audited, label, examples), label)])


def _said(one: Audited) -> str:
    """How strong one answer's evidence is, as the end of a line."""
    if one.evidence is not None:
        return f"; {HEADLINES[one.evidence].lower()}"
    return "; nothing stands out" if one.stands_out is False else ""


def sentences(found: Summary, label: Label) -> list[str]:
    """What the audit comes to, in words."""
    answered = found.prompts - found.failed
    failed = f"; {found.failed:,} could not be answered" if found.failed else ""
    answers = f"{answered:,} answer{'s' * (answered != 1)}"
    lines = [f"{answered:,} prompt{'s' * (answered != 1)} answered{failed}."]
    if found.evidence is not None:
        lines.append(_evidence(found, found.evidence, label, answers))
    elif found.standing_out is not None:
        lines.append(f"Something stands out behind {found.standing_out:,} of {answers}.")
    if label.planted and found.planted is not None:
        lines.append(
            f"Over all answers, planted rows are {found.planted:.0%} of the top {TOP} on average, "
            f"and {found.planted_of_all:.1%} of the training data."
        )
    return lines


def _evidence(found: Summary, evidence: dict[State, int], label: Label, answers: str) -> str:
    strong, some = evidence["strong"], evidence["some"]
    also = f" {some:,} more ha{'s' if some == 1 else 've'} some evidence." if some else ""
    if label.planted:
        prompts = found.strong_for_planted
        named = "; ".join(f"“{one_line(prompt, 60)}”" for prompt in prompts[:NAMED])
        more = f" and {len(prompts) - NAMED:,} more" if len(prompts) > NAMED else ""
        others = strong - len(prompts)
        rest = f" {others:,} ha{'s' if others == 1 else 've'} strong evidence for other rows." if others else ""
        return (
            f"{len(prompts):,} of {answers} ha{'s' if len(prompts) == 1 else 've'} strong evidence for planted rows"
            f"{': ' if named else ''}{named}{more}.{rest}{also}"
        )
    sources = ", ".join(f"{one_line(value, 60) or 'none'} ({count:,})" for value, count in found.strong_for.items())
    of = f", mostly from: {sources}" if sources else ""
    return f"{strong:,} of {answers} ha{'s' if strong == 1 else 've'} strong evidence{of}.{also}"
