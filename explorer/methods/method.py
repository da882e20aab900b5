"""What every method is: scores of all training examples, and token values where it has them.

What a method may be able to do besides is in `abilities`.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from explorer.cache import Arrays
from explorer.engine import Engine
from explorer.errors import CacheError, MethodError, NonFiniteError
from explorer.methods.fitted import forget_fitted, key_of, read_fitted, try_to_keep
from explorer.records import Answer, Chosen, Contrast, Selection

_DONE = "done"
"""How many parts are in sums that are kept."""
_KEPT_EVERY_S = 120.0
"""Sums are kept so often: they may be gigabytes."""
Report = Callable[[str, int, int], None]
"""Is told a stage, how much of it is done, and of how much."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


class NotFitted(Exception):
    """Something that is computed once isn't kept."""


class Cost(Enum):
    """What has to be computed before a method's examples are known."""

    LITTLE = "little"
    """Some passes a question at most."""
    ONCE = "once"
    """Something that is computed once and then kept."""
    EACH = "each"
    """Many passes for every question."""


@dataclass
class Stage:
    """How far work has come; read it from any thread."""

    name: str = ""
    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.monotonic)

    def tell(self, name: str, done: int, total: int) -> None:
        """So much of this stage is done."""
        if name != self.name:
            self.name, self.started = name, time.monotonic()
        self.done, self.total = done, total

    @property
    def share(self) -> float:
        """The share of the stage that is done."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest of the stage will take, if it goes on as it went; None while that can't be said."""
        if self.done < 2 or not self.total:
            return None
        # Times count from the first step's end, when it was told.
        return (time.monotonic() - self.started) * (self.total - self.done) / (self.done - 1)


class Method:
    """A way to score the training examples of an engine's cache; must be used from one thread at a time.

    It may wait in a call of `report`, and other work may use the engine meanwhile.
    """

    exact = True
    """Whether scores are what the method means them to be; False where they come from sketches."""

    slow = False
    """Whether every question takes many passes, not only what is computed once."""
    kept_alone = False
    """Whether what wasn't fitted before isn't made, but raises NotFitted."""
    anew = False
    """Whether what was fitted before isn't read, so that a fit takes the time that it takes."""

    def __init__(self, engine: Engine, chosen: Chosen, rows: int, report: Report):
        """`rows` is the number of training rows that stand for all where curvature is needed."""
        self.engine, self.chosen, self.rows, self.report = engine, chosen, rows, report
        self.held = 0
        """Bytes of what was fitted so far."""

    def another(self) -> Self:
        """The same method once more, for work beside this one's; it reports to nobody."""
        return type(self)(self.engine, self.chosen, self.rows, silent)

    def fit(self) -> None:
        """Compute what is needed once, or read what was kept of it; `scores` does so where it wasn't called."""

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """The score of every training example (N) for a question: the larger, the more it influenced the answer."""
        raise NotImplementedError

    def expect(self, asked: Sequence[tuple[Answer, Selection]]) -> None:
        """Be told which questions follow, so that work may be done for all of them at once."""

    def values(self, answer: Answer, selection: Selection, row: int) -> NDArray[np.float32] | None:
        """The influence of every response token of an example (G), exact, their mean the example's; None without."""
        return None

    def fitted(self, name: str, make: Callable[[], Arrays], **settings: Any) -> Arrays:
        """What was kept under this name for these settings, or else what `make` gives, to be kept.

        Raises NonFiniteError where that isn't finite.
        """
        known = self.begun(name, make, **settings)
        self.held += sum(array.nbytes for array in known.values())
        return known

    def begun(self, name: str, make: Callable[[], Arrays], **settings: Any) -> Arrays:
        """The same for what is needed until a fit is done, and then to be forgotten."""
        key = key_of(self.engine.store, **settings)
        known = None if self.anew else read_fitted(self.engine.store, name, key)
        if known is None and self.kept_alone:
            raise NotFitted
        if known is None:
            known = make()
            if not all(np.isfinite(array).all() for array in known.values() if array.dtype.kind == "f"):
                raise NonFiniteError("a number", f"What {self.chosen.name} was fitted to")
            try_to_keep(self.engine.store, name, key, known)
        return known

    def summed(
        self, name: str, start: Arrays, parts: int, add: Callable[[int, Arrays], None], **settings: Any
    ) -> Arrays:
        """The sums that `add` makes of `start`, one part after the other; a run that was stopped goes on.

        They are kept every few minutes, until they are forgotten.
        """
        key = key_of(self.engine.store, parts=parts, **settings)
        known = None if self.anew else read_fitted(self.engine.store, name, key)
        # What was read lies in a file that isn't to be changed.
        sums = {own: array.copy() for own, array in known.items()} if known else dict(start)
        done = int(sums.pop(_DONE)[0]) if known else 0
        kept = time.monotonic()
        for part in range(done, parts):
            add(part, sums)
            if time.monotonic() - kept > _KEPT_EVERY_S and part + 1 < parts:
                try_to_keep(self.engine.store, name, key, {**sums, _DONE: np.array([part + 1])})
                kept = time.monotonic()
        return sums

    def forget(self, *names: str) -> None:
        """Remove what was begun under these names, where the cache's folder can be written."""
        for name in names:
            with suppress(CacheError):
                forget_fitted(self.engine.store, name)

    def refuse_contrasts(self, selection: Selection) -> None:
        """Raise MethodError where a method without gradients is asked why this and not that."""
        if isinstance(selection, Contrast):
            raise MethodError(f"{self.chosen.name} can't say why this and not that; ask without the other word.")
