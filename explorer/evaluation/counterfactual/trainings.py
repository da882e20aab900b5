"""Methods judged by trainings on other rows: the linear datamodeling score of each, with its interval and ceiling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.engine import Engine
from explorer.evaluation.counterfactual import correlation
from explorer.evaluation.counterfactual.questions import ABOUT, Question, Report, scored
from explorer.evaluation.results import Result, Table, best_of
from explorer.records import Chosen

_CEILING = "what two trainings allow"


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
    scores, seconds = scored(engine, asked, methods, curvature_rows, report)
    kinds = np.array([question.probe.kind for question in asked])
    tables, notes, best = [], [], []
    for place, (about, title) in enumerate(ABOUT.items()):
        told = np.array([each[place] for each in expected]).T
        found: dict[str, dict[str, Any]] = {**correlation.figures(scores[about], members, told)}
        for name, figures in found.items():
            for kind in dict.fromkeys(kinds):
                mine = [one for one, own in zip(scores[about][name], kinds == kind, strict=True) if own]
                foretold = np.stack([correlation.foretold(one, members) for one in mine])
                figures[str(kind)] = float(correlation.correlations(foretold, told[kinds == kind]).mean())
            figures["seconds_a_question"] = seconds[name]
        table = Table.of(found, title)
        best.append(best_of(table, "lds", f"{title.lower()}, in foretelling trainings"))
        if again:
            repeated = np.array([each[place] for each in again]).T
            reached = correlation.ceiling(told[:, : len(again)], repeated)
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
    for about, title in ABOUT.items():
        table = next(each for each in result.tables if each.name == title)
        for name, *values in table.rows:
            figures = {column: value for column, value in zip(table.columns[1:], values, strict=True)}
            if name == _CEILING:
                found["ceiling"][about] = figures["lds"]
            else:
                found["methods"].setdefault(name, {})[about] = figures
    return found
