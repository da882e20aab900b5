"""How true a cache's sketches are and how long its questions take on this machine, measured by asking some.

Prompts of training rows at even distances are answered anew and asked about; the sketches' scores of examples at even
distances along each ranking are set beside exact ones. `benchmarks/fidelity.py` measures other lengths and formats.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median
from typing import TypeVar

import numpy as np

from explorer.errors import PromptError
from explorer.methods.attributor import Attributor
from explorer.model.generation import GenerationSettings
from explorer.records import Answer
from explorer.retrieval import ranked

QUESTIONS, EXAMPLES, LONGEST = 2, 10, 24
"""How many prompts are asked, how many exact scores each is compared by, and how long an answer may be in tokens."""

Timed = TypeVar("Timed")


@dataclass
class Measured:
    """What was found so far."""

    sketched: list[list[float]] = field(default_factory=list)
    """Scores by the sketches, one list a question."""
    exact: list[list[float]] = field(default_factory=list)
    """The same examples' scores without sketch noise."""
    foretold: list[float] = field(default_factory=list)
    """The standard deviation of the sketch's noise on a score that the page names, one a question."""
    token_s: list[float] = field(default_factory=list)
    """Seconds of each token of an answer."""
    gradient_s: list[float] = field(default_factory=list)
    """Seconds of the gradient of each answer and its sketch."""
    scores_s: list[float] = field(default_factory=list)
    """Seconds of the scores of all examples."""
    exact_s: list[float] = field(default_factory=list)
    """Seconds of each exact score."""

    @property
    def compared(self) -> int:
        """How many exact scores there are."""
        return sum(map(len, self.exact))

    @property
    def correlation(self) -> float:
        """Pearson's correlation of sketched and exact scores, the mean over the complete questions; else NaN."""
        found = [
            np.corrcoef(sketched, exact)[0, 1]
            for sketched, exact in zip(self.sketched, self.exact, strict=True)
            if len(exact) > 2 and len(exact) == len(sketched) and np.ptp(exact) and np.ptp(sketched)
        ]
        return fmean(found) if found else float("nan")

    @property
    def noise(self) -> float:
        """The root mean square of the sketches' errors, each in units of the noise that is foretold; else NaN."""
        errors = [
            (one - other) / foretold
            for sketched, exact, foretold in zip(self.sketched, self.exact, self.foretold, strict=True)
            for one, other in zip(sketched, exact, strict=False)
        ]
        return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")

    def facts(self) -> dict[str, str]:
        """What it comes to, in words."""
        times = {
            "a token of an answer": self.token_s,
            "an answer's gradient and its sketch": self.gradient_s,
            "the scores of all examples": self.scores_s,
            "one exact score, with its tokens' values": self.exact_s,
        }
        return {
            "correlation of sketched and exact scores": f"{self.correlation:.3f}",
            "the sketches' error, in units of what is foretold": f"{self.noise:.2f}",
        } | {what: duration(median(seconds)) for what, seconds in times.items()}


def total(examples: int) -> int:
    """How many exact scores are compared in a cache of so many examples."""
    return min(QUESTIONS, examples) * min(EXAMPLES, examples)


def measure(asked: Attributor) -> Iterator[Measured]:
    """Ask and compare; yields what is known after every bounded step. Prompts that can't be answered are left out."""
    found, engine = Measured(), asked.engine
    for row in spread(engine.store.manifest.rows, QUESTIONS):
        with suppress(PromptError):
            answer: Answer | None = None
            drawing = engine.answer(engine.store.examples[row].prompt, GenerationSettings(LONGEST))
            while answer is None or not answer.finished:
                answer = timed(found.token_s, partial(next, drawing))
                yield found
            yield from _compared(asked, answer, found)


def _compared(asked: Attributor, answer: Answer, found: Measured) -> Iterator[Measured]:
    timed(found.gradient_s, partial(asked.ask, answer, None))
    yield found
    # Asked again after every pause, in which others may have asked so much that the engine forgot; else it is free.
    asked.ask(answer, None)
    ranking = timed(found.scores_s, partial(asked.ranking, answer, None))
    order = ranked(ranking.scores, len(ranking.scores))
    chosen = [int(order[place]) for place in spread(len(order), EXAMPLES)]
    found.foretold.append(ranking.sketch_error)
    found.sketched.append([float(ranking.scores[row]) for row in chosen])
    found.exact.append([])
    for row in chosen:
        asked.ask(answer, None)
        found.exact[-1].append(timed(found.exact_s, partial(asked.refine, answer, None, row)).score)
        yield found


def spread(count: int, wanted: int) -> list[int]:
    """So many places at even distances among `count`, in the middle of their parts; all where there are no more."""
    wanted = min(wanted, count)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]


def duration(seconds: float) -> str:
    """A short time, in three digits."""
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1000 * seconds:.3g} ms"


def timed(seconds: list[float], work: Callable[[], Timed]) -> Timed:
    """What some work returns; how long it took is noted."""
    started = time.perf_counter()
    made = work()
    seconds.append(time.perf_counter() - started)
    return made
