"""Methods judged by trainings without the rows that they put first: does the answer's word go with them?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.corpus.verbatim import places, where
from explorer.evaluation.counterfactual.correlation import interval
from explorer.evaluation.results import Table

RANDOM = "random rows"
"""What the table calls trainings without rows that were drawn."""


@dataclass(frozen=True)
class Outcome:
    """What became of one question when some rows were left out."""

    response: float
    """By how much the loss of the answer rose, in nats a token."""
    word: float
    """By how much the loss of its word rose, in nats a token."""
    changed: bool
    """Whether the new answer no longer says the word."""


def says(text: str, word: str) -> bool:
    """Whether a text has a word as a whole, or several in a row; upper and lower case are the same."""
    words = [place.word for place in places(word)]
    return where(text, words) is not None if words else word.strip() in text


def table(outcomes: Mapping[str, Mapping[float, Sequence[Outcome]]]) -> Table:
    """By method and share of rows left out: the rise of both losses, and how often the word changed."""
    found: dict[str, dict[str, float | int]] = {}
    for name, by_share in outcomes.items():
        row = found.setdefault(name, {})
        for share, each in by_share.items():
            column = f"p{100 * share:g}"
            changed = np.array([float(one.changed) for one in each])
            low, high = interval(changed)
            row |= {
                f"{column}_loss": _mean([one.word for one in each]),
                f"{column}_response_loss": _mean([one.response for one in each]),
                f"{column}_changed": float(changed.mean()),
                f"{column}_changed_low": low,
                f"{column}_changed_high": high,
            }
    return Table.of(found)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def nested(result: Table) -> dict[str, Any]:
    """The table as `methods.NAME.p10.{loss,changed}` and `random.p10.{loss,changed}`."""
    found: dict[str, Any] = {"methods": {}}
    for name, *values in result.rows:
        figures: dict[str, dict[str, float]] = {}
        for column, value in zip(result.columns[1:], values, strict=True):
            share, _, figure = column.partition("_")
            if isinstance(value, int | float):
                figures.setdefault(share, {})[figure] = float(value)
        if name == RANDOM:
            found["random"] = figures
        else:
            found["methods"][str(name)] = figures
    return found
