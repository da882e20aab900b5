"""Fact tracing: are the passages that state a fact first, where the model was asked about it and knew it?

After Akyürek et al. (2022) and the multi-stage influence paper, section 5.3. Passages and questions name facts in a
column; only questions are counted whose answer the model gives. Scores are those of all passages, none made exact.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.counterfactual.correlation import interval
from explorer.evaluation.results import Table, Value
from explorer.methods.method import Method
from explorer.records import Answer, Conversation, Example

FIRST = 10
"""So many passages are looked at for recall."""
NAMES = {"stage-product": "product"}
"""What a method is called in figures, where not by its own name."""
_MAX_TOKENS = 40
_WORD = re.compile(r"[^\W_]+")

Report = Callable[[str, int, int], None]
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Known:
    """A question that the model answered rightly, and the passages that state the fact."""

    answer: Answer
    stating: NDArray[np.bool_]
    """Of all passages (N)."""


def known_facts(engine: Engine, questions: Sequence[Example], column: str, report: Report) -> list[Known]:
    """The questions whose answer the model gives, of those about facts that some passage states.

    Raises DataError where a question has no fact, or none is left.
    """
    stated = [facts_of(example.columns, column) for example in engine.store.examples]
    found, about = list[Known](), 0
    for number, question in enumerate(questions, start=1):
        asked = facts_of(question.columns, column)
        if not asked:
            raise DataError(f"Question {number} names no fact in its column {column}; give --label another one.")
        stating = np.array([bool(asked & each) for each in stated])
        if stating.any():
            about += 1
            answer = engine.answered(Conversation(question.messages), None, _MAX_TOKENS)
            if says(answer.text, question.response):
                found.append(Known(answer, stating))
        report("answers", number, len(questions))
    if not found:
        raise DataError(
            f"The model gives the answer of none of {about:,} questions about facts that a passage states, so there is "
            "nothing to trace."
        )
    return found


def facts_of(columns: Mapping[str, object], column: str) -> set[str]:
    """The facts that a row names: the value of its column, or each of several."""
    value = columns.get(column)
    several = value if isinstance(value, list) else [value]
    return {str(each) for each in several if each not in (None, "")}


def says(text: str, expected: str) -> bool:
    """Whether the words of an answer are in a text, one behind the other, whatever their case."""
    said, wanted = (" ".join(_WORD.findall(each.casefold())) for each in (text, expected))
    return wanted != "" and f" {wanted} " in f" {said} "


def judge_facts(known: Sequence[Known], methods: Sequence[Method], report: Report) -> Figures:
    """By method: `mrr` with its 95% interval `low` to `high`, and `recall_10` with its own.

    The reciprocal rank is of the first passage that states the fact; recall is the share of those passages, of ten at
    most, that are among the first ten.
    """
    found: Figures = {}
    for number, method in enumerate(methods, start=1):
        reciprocal, recalled = list[float](), list[float]()
        for one in known:
            order = np.argsort(-method.scores(one.answer, None), kind="stable")
            ranked = one.stating[order]
            reciprocal.append(1 / (1 + int(ranked.argmax())))
            recalled.append(float(ranked[:FIRST].sum()) / min(FIRST, int(ranked.sum())))
        (low, high), (least, most) = interval(np.array(reciprocal)), interval(np.array(recalled))
        found[method.chosen.name] = {
            "mrr": float(np.mean(reciprocal)),
            "low": low,
            "high": high,
            "recall_10": float(np.mean(recalled)),
            "recall_low": least,
            "recall_high": most,
        }
        report("methods", number, len(methods))
    return found


def nested(table: Table) -> dict[str, dict[str, dict[str, Value]]]:
    """The figures by method's name in `methods`; of one with several values, those of the best, and which it was."""
    best: dict[str, dict[str, Value]] = {}
    for name, *values in table.rows:
        own, _, value = str(name).partition(":")
        key = NAMES.get(own, own).replace("-", "_")
        figures = dict(zip(table.columns[1:], values, strict=True)) | ({"value": value} if value else {})
        if key not in best or _number(figures["mrr"]) > _number(best[key]["mrr"]):
            best[key] = figures
    return {"methods": best}


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else float("-inf")
