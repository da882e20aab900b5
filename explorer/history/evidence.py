"""What became of a word once the model was trained without some rows, as it is kept beside answers.

`explorer.absence` finds it and keeps it with a cache; here it is a record that needs neither. Every text in it is a
model's and untrusted.
"""

from dataclasses import dataclass, field
from typing import Any

from explorer.records import Span


@dataclass(frozen=True)
class Odds:
    """log p/(1−p) of the word, in nats, behind what stood before it in the answer under study."""

    text: str
    """The word as the answer writes it."""
    span: Span
    before: float
    without: float
    controls: tuple[float, ...]


@dataclass(frozen=True)
class Answers:
    """What each model answered."""

    before: str
    without: str
    controls: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """Which rows the trainings did without."""

    named: tuple[int, ...]
    near_duplicates: tuple[int, ...]
    controls: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Found:
    """What the trainings found."""

    said: str
    """The finding in a sentence."""
    changed: bool
    """Whether the word is gone without the rows."""
    controls_changed: int
    """In how many controls it is gone."""
    word: Odds
    answers: Answers
    rows: LeftOut
    instead: str | None = None
    hashes: dict[str, Any] = field(default_factory=dict)
    """SHA-256 of the base, the data and every adapter."""
    seeds: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    smallest: dict[str, Any] | None = None
    check: dict[str, Any] | None = None

    @property
    def told(self) -> list[tuple[str, str, float]]:
        """Every answer, as (which model, its text, the word's log-odds)."""
        odds, answers = self.word, self.answers
        others = [f"Without others, draw {number}" for number in range(1, len(answers.controls) + 1)]
        return [
            ("As it is", answers.before, odds.before),
            ("Without these", answers.without, odds.without),
            *zip(others, answers.controls, odds.controls, strict=True),
        ]


@dataclass(frozen=True)
class Retraining:
    """A question about a word without some rows, and its finding."""

    answer: str
    """The answer's id, `Answer.id`."""
    word: Span
    rows: tuple[int, ...]
    draws: int
    max_tokens: int
    when: float
    """Seconds since 1970, UTC."""
    found: Found

    def __post_init__(self) -> None:
        found = self.found
        if not len(found.word.controls) == len(found.answers.controls) == len(found.rows.controls):
            raise ValueError("the finding's controls have different numbers of answers, log-odds and rows")
