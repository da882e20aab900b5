"""Methods judged by trainings on other rows: which answers and words are asked about, and what is said of a method."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation import lds
from explorer.evaluation.probes import Probe, word_span
from explorer.evaluation.results import Result, Table, best_of
from explorer.methods.opening import open_method
from explorer.records import Answer, Chosen, Span

_MAX_TOKENS = 60
_ABOUT = {"response": "Whole responses", "word": "Single words"}
"""What is asked about, and what the table of it is called."""
_CEILING = "what two trainings allow"

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Question:
    """A probe's answer, and the word of it that is asked about."""

    probe: Probe
    answer: Answer
    word: Span


def questions_of(engine: Engine, probes: Sequence[Probe], report: Report) -> list[Question]:
    """The adapter's answer to every probe; of each the wrong word, or else the one that fine-tuning raised most.

    Raises DataError where no answer has a token.
    """
    found = []
    for number, probe in enumerate(probes, start=1):
        answer = engine.answered(probe.prompt, None, _MAX_TOKENS)
        if answer.tokens:
            found.append(Question(probe, answer, _word(engine, probe, answer)))
        report("answers", number, len(probes))
    if not found:
        raise DataError("There is no probe whose answer could be asked about; give others with --probes.")
    return found


def _word(engine: Engine, probe: Probe, answer: Answer) -> Span:
    said = word_span(answer, probe.wrong) if probe.wrong else None
    if said is not None:
        return said
    change = engine.predict(answer).change
    raised = np.arange(len(answer.tokens)) if change is None else np.argsort(-change, kind="stable")
    words = [int(place) for place in raised if answer.tokens[place].text.strip()]
    place = words[0] if words else int(raised[0])
    return place, place + 1


def judge_lds(
    engine: Engine,
    asked: Sequence[Question],
    methods: Sequence[Chosen],
    members: NDArray[np.bool_],
    expected: Sequence[tuple[Sequence[float], Sequence[float]]],
    again: Sequence[tuple[Sequence[float], Sequence[float]]],
    curvature_rows: int,
    report: Report,
) -> dict[str, Any]:
    """How well every method foretells trainings: tables, best methods and notes of a result.

    `members` are the rows (N) of each training (M); `expected` its mean log-probabilities of every answer and word
    (Q); `again` those of the first few trainings with another seed.
    """
    scores: dict[str, dict[str, list[NDArray[np.floating[Any]]]]] = {about: {} for about in _ABOUT}
    seconds: dict[str, float] = {}
    for chosen in methods:
        method = open_method(engine, chosen.name, curvature_rows, report)
        method.fit()
        method.report = lambda stage, done, total: None
        started = time.perf_counter()
        for number, question in enumerate(asked, start=1):
            for about, selection in (("response", None), ("word", question.word)):
                each = scores[about].setdefault(chosen.name, [])
                each.append(np.array(method.scores(question.answer, selection), dtype=np.float64))
            report(chosen.name, number, len(asked))
        seconds[chosen.name] = (time.perf_counter() - started) / (2 * len(asked))
    kinds = np.array([question.probe.kind for question in asked])
    tables, notes, best = [], [], []
    for place, (about, title) in enumerate(_ABOUT.items()):
        told = np.array([each[place] for each in expected]).T
        found: dict[str, dict[str, Any]] = {**lds.figures(scores[about], members, told)}
        for name, figures in found.items():
            for kind in dict.fromkeys(kinds):
                mine = [one for one, own in zip(scores[about][name], kinds == kind, strict=True) if own]
                foretold = np.stack([lds.foretold(one, members) for one in mine])
                figures[str(kind)] = float(lds.correlations(foretold, told[kinds == kind]).mean())
            figures["seconds_a_question"] = seconds[name]
        table = Table.of(found, title)
        best.append(best_of(table, "lds", f"{title.lower()}, in foretelling trainings"))
        if again:
            repeated = np.array([each[place] for each in again]).T
            reached = lds.ceiling(told[:, : len(again)], repeated)
            found[_CEILING] = {"lds": reached}
            notes.append(
                f"{title}: trainings on the same rows with two seeds correlate by {reached**2:.3f}, "
                f"so that no method can be expected above {reached:.3f}."
            )
        tables.append(Table.of(found, title))
    notes.insert(0, f"{len(expected)} trainings on half of the rows, {len(asked)} questions; 95% intervals.")
    return {"tables": tuple(tables), "best": tuple(best), "notes": tuple(notes)}


def nested(result: Result, default: str) -> dict[str, Any]:
    """A kept result by method: `methods.NAME.response.lds` and the like, `ceiling.response`, and the default's name."""
    found: dict[str, Any] = {"methods": {}, "ceiling": {}, "default": default}
    for about, title in _ABOUT.items():
        table = next(each for each in result.tables if each.name == title)
        for name, *values in table.rows:
            figures = {column: value for column, value in zip(table.columns[1:], values, strict=True)}
            if name == _CEILING:
                found["ceiling"][about] = figures["lds"]
            else:
                found["methods"].setdefault(name, {})[about] = figures
    return found
