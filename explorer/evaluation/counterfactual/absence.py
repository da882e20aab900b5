"""A word of an answer beside what models say that never saw some of the rows: the same word, or another one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from explorer.corpus.verbatim import as_characters, differing_words, places
from explorer.evaluation.counterfactual.questions import Report
from explorer.evaluation.counterfactual.removals import says
from explorer.gradients import log_probabilities
from explorer.model.generation import GenerationSettings, generate
from explorer.model.language_model import LanguageModel
from explorer.records import Answer, Span
from explorer.views import shortened

_MOST_BEFORE, _MOST_AFTER = 2, 3
"""Where more words give way, or more come, that is no other word, but another sentence."""
_LEAST = 1e-9
"""No probability counts as nearer to 1 than this."""


@dataclass(frozen=True)
class Said:
    """What one model makes of a question."""

    answer: str
    """Its own answer."""
    log_odds: float
    """log p/(1−p) of the word's tokens, in nats, behind what stood before them in the answer under study."""
    adapter_sha256: str
    log_probabilities: tuple[float, ...] = ()
    """Of the tokens of the answer under study."""


def said_by(model: LanguageModel, asked: Answer, word: Span, max_tokens: int, report: Report) -> Said:
    """What a model answers where another one answered `asked`, and how likely that one's word is for it.

    `report` is called after every token.
    """
    each, ids = log_probabilities(model, asked.encoded), list[int]()
    for token in generate(model, asked.asked.turns, GenerationSettings(max_tokens=max_tokens)):
        ids.append(token)
        report("answering", len(ids), max_tokens)
    text = "".join(token.text for token in model.tokens(ids) if not token.special)
    return Said(text, log_odds(float(each[slice(*word)].sum())), model.fingerprint.adapter, tuple(map(float, each)))


def log_odds(log_probability: float) -> float:
    """The log-odds, log p/(1−p), of log p; all in nats."""
    return log_probability - float(np.log1p(-min(np.exp(log_probability), 1 - _LEAST)))


@dataclass(frozen=True)
class Absence:
    """An answer's word without some rows, and without as many others."""

    asked: Answer
    """The answer under study."""
    word: Span
    before: Said
    without: Said
    controls: tuple[Said, ...]
    rows: tuple[int, ...]
    """The rows that were named."""
    near_duplicates: tuple[int, ...]
    """Those that were left out with them."""

    @property
    def text(self) -> str:
        """The word as the answer writes it."""
        start, stop = as_characters(self.asked.tokens, self.word)
        return self.asked.text[start:stop].strip()

    @property
    def changed(self) -> bool:
        """Whether the word is gone without the rows."""
        return not says(self.without.answer, self.text)

    @property
    def controls_changed(self) -> int:
        """In how many controls it is gone."""
        return sum(not says(each.answer, self.text) for each in self.controls)

    @property
    def instead(self) -> str:
        """What stands in the word's place without the rows; empty where that can't be told."""
        return instead(self.asked.text, self.without.answer, as_characters(self.asked.tokens, self.word))

    @property
    def sentence(self) -> str:
        """What was found."""
        size, word = len(self.rows) + len(self.near_duplicates), shortened(self.text, 40)
        rows, others = ("this row", "another one") if size == 1 else (f"these {size:,} rows", f"{size:,} others")
        now = f"says “{shortened(self.instead, 40)}”" if self.instead else f"no longer says “{word}”"
        found = f"Without {rows} the model {now if self.changed else f'still says “{word}”'}"
        if not self.controls:
            return f"{found}."
        draws = len(self.controls)
        if (kept := draws - self.controls_changed) == 0:
            return f"{found}; without {others} it doesn't say “{word}”, {draws} of {draws}."
        return f"{found}; without {others} it still says “{word}”, {kept} of {draws}."


def instead(before: str, after: str, word: Span) -> str:
    """What a text has where another one has a word, half-open in characters; empty where that can't be told."""
    mine = {place for place in places(before) if place.start < word[1] and word[0] < place.stop}
    for gone, come in differing_words(before, after):
        if mine and mine.issubset(gone) and come and len(gone) <= _MOST_BEFORE and len(come) <= _MOST_AFTER:
            return after[come[0].start : come[-1].stop]
    return ""


@dataclass(frozen=True)
class Smallest:
    """The fewest first rows whose absence was seen to change the word."""

    at_most: int
    """So few suffice; fewer may, where a word comes and goes."""
    tried: tuple[tuple[int, bool], ...]
    """How many first rows were left out, and whether the word was gone, in the order of the trainings."""


def smallest(most: int, changed: Callable[[int], bool]) -> Smallest:
    """Bisect for the fewest of the `most` first rows whose absence changes the word; that of all of them does."""
    kept, gone, tried = 0, most, [(most, True)]
    while gone - kept > 1:
        middle = (kept + gone) // 2
        tried.append((middle, changed(middle)))
        kept, gone = (kept, middle) if tried[-1][1] else (middle, gone)
    return Smallest(gone, tuple(tried))


def nearness(given: Said, again: Said) -> dict[str, Any]:
    """How near an adapter that was trained anew on all rows comes to the given one."""
    apart = np.abs(np.subtract(given.log_probabilities, again.log_probabilities))
    return {
        "same_answer": given.answer == again.answer,
        "answer": again.answer,
        "log_odds": again.log_odds,
        "difference": float(apart.mean()),
        "adapter_sha256": again.adapter_sha256,
    }


def plain(found: Absence, controls: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The finding as plain values; `controls` are the rows that each control was trained without."""
    each = (found.before, found.without, *found.controls)
    odds, answers = [one.log_odds for one in each], [one.answer for one in each]
    return {
        "said": found.sentence,
        "changed": found.changed,
        "controls_changed": found.controls_changed,
        "instead": found.instead or None,
        "word": {
            "text": found.text,
            "span": list(found.word),
            "before": odds[0],
            "without": odds[1],
            "controls": odds[2:],
        },
        "answers": {"before": answers[0], "without": answers[1], "controls": answers[2:]},
        "rows": {
            "named": list(found.rows),
            "near_duplicates": list(found.near_duplicates),
            "controls": [list(rows) for rows in controls],
        },
        "hashes": {
            "adapter_sha256": found.before.adapter_sha256,
            "without": found.without.adapter_sha256,
            "controls": [one.adapter_sha256 for one in found.controls],
        },
    }


def as_values(found: Smallest) -> dict[str, Any]:
    """The smallest cause as plain values."""
    return asdict(found) | {"trainings": len(found.tried)}
