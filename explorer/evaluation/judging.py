"""Judges methods where the truth is known, by the tables of the papers: planted backdoors, swapped words, classes.

Every figure comes from the scores of all training examples, without making any
exact. What a method can't be asked raises; nothing is left out silently.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.probes import Probe, average_precision, is_attacked, word_span
from explorer.methods.method import Method
from explorer.model.generation import GenerationSettings
from explorer.records import Answer, Conversation, Example

KS = (5, 10, 25, 50, 100, 500, 1000)
"""How many examples are looked at."""
_MAX_TOKENS = 60

Scores = NDArray[np.floating[Any]]
Report = Callable[[int, int], None]
"""Is told how many of how many questions are done."""


def judge_backdoor(
    engine: Engine, probes: Sequence[Probe], methods: Sequence[Method], report: Report
) -> dict[str, dict[str, float]]:
    """Paper 4.5, Table 4: are the planted rows among the k most influential, and not among the k least?

    Over the triggered probes whose generated answer is attacked. By method:
    auPRC and auROC at every k up to half of the data, and the average precision
    over the whole ranking.
    """
    kept = _Figures()
    triggered = [probe for probe in probes if probe.kind == "triggered"]
    for number, probe in enumerate(triggered, start=1):
        answer, planted = _generated(engine, probe), _planted(engine, probe)
        if is_attacked(probe, answer.text):
            for method in methods:
                scores = method.scores(answer, None)
                figures = {"average_precision": average_precision(scores, planted)}
                for k in (k for k in KS if 2 * k <= len(scores)):
                    ends, labels = two_ends(scores, planted, k)
                    figures[f"auPRC_{k}"] = average_precision(ends, labels)
                    figures[f"auROC_{k}"] = area_under_roc(ends, labels)
                kept.add(method, figures)
        report(number, len(triggered))
    return kept.means()


def judge_error_tracing(
    engine: Engine, probes: Sequence[Probe], methods: Sequence[Method], report: Report
) -> dict[str, dict[str, float]]:
    """Paper 4.6, Table 5: what share of the k most influential examples is planted, where the wrong word was said?

    By method, for the whole response (`response_k`) and for the wrong word (`word_k`).
    """
    kept = _Figures()
    swaps = [probe for probe in probes if probe.kind == "swap"]
    for number, probe in enumerate(swaps, start=1):
        answer, planted = _generated(engine, probe), _planted(engine, probe)
        span = word_span(answer, probe.wrong)
        if span is not None:
            for method in methods:
                figures = {}
                for asked, selection in (("response", None), ("word", span)):
                    order = np.argsort(-method.scores(answer, selection), kind="stable")
                    for k in (k for k in KS if k <= min(50, len(order))):
                        figures[f"{asked}_{k}"] = float(planted[order[:k]].mean())
                kept.add(method, figures)
        report(number, len(swaps))
    return kept.means()


def judge_classes(
    engine: Engine, questions: Sequence[Example], column: str, methods: Sequence[Method], report: Report
) -> dict[str, dict[str, float]]:
    """Paper 001, Table 3: do examples of the question's own class come first?

    Questions are examples that weren't trained on, attributed as they are
    written. By method: `accuracy`, how often the most influential example is of
    the class, and `coverage`, the share of the class among the c most
    influential, c the class's size. Raises DataError without such a column.
    """
    kept = _Figures()
    classes = np.array([str(example.columns.get(column, "")) for example in engine.store.examples])
    for number, question in enumerate(questions, start=1):
        own = classes == str(question.columns.get(column, ""))
        if column not in question.columns or not own.any():
            raise DataError(f"Question {number} has no {column} that a training example has; give --label another one.")
        answer = engine.given_answer(Conversation(question.messages), question.answer, question.tools)
        for method in methods:
            order = np.argsort(-method.scores(answer, None), kind="stable")
            first = {"accuracy": float(own[order[0]]), "coverage": float(own[order[: own.sum()]].mean())}
            kept.add(method, first)
        report(number, len(questions))
    return kept.means()


class _Figures:
    """The figures of every method."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, float]]] = {}

    def add(self, method: Method, figures: dict[str, float]) -> None:
        """Keep the figures of one question."""
        self._rows.setdefault(method.chosen.name, []).append(figures)

    def means(self) -> dict[str, dict[str, float]]:
        """By method: how many questions, and the mean of every figure."""
        return {
            name: {"questions": len(rows), **{f: float(np.mean([row[f] for row in rows])) for f in rows[0]}}
            for name, rows in self._rows.items()
        }


def _generated(engine: Engine, probe: Probe) -> Answer:
    *_, answer = engine.answer(probe.prompt, GenerationSettings(max_tokens=_MAX_TOKENS))
    return answer


def _planted(engine: Engine, probe: Probe) -> NDArray[np.bool_]:
    return np.array([example.source == probe.planted for example in engine.store.examples])


def two_ends(scores: Scores, planted: NDArray[np.bool_], k: int) -> tuple[Scores, NDArray[np.bool_]]:
    """The k highest scores and the k lowest, and which of these rows were planted."""
    order = np.argsort(-scores, kind="stable")
    ends = np.concatenate([order[:k], order[-k:]])
    return scores[ends], planted[ends]


def area_under_roc(scores: Scores, relevant: NDArray[np.bool_]) -> float:
    """The chance that a relevant row scores above another one, ties counting half; ½ where all rows are of a kind."""
    if relevant.all() or not relevant.any():
        return 0.5
    above = scores[relevant][:, None] - scores[~relevant][None]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())
