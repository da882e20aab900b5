"""TRAK: features whitened by their own second moments."""

import numpy as np
from numpy.typing import NDArray

from explorer.cache import fold
from explorer.concurrency import cached
from explorer.methods.first_order import directions
from explorer.methods.first_order.inner_products import Folded, shorter, unfold
from explorer.records import Answer, Selection


class Trak(Folded):
    """TRAK (Park et al., 2023) of one model: the cached sketches are its random projections.

    φ(t)ᵀ(ΦᵀΦ + λ)⁻¹φ(s)·(1 − p(s)) with p(s) = exp −L(s), and λ a tenth of the
    mean eigenvalue. Features are normalised as the cache is, but for a `cosine`
    one, which gives them back their size.
    """

    def prepare(self) -> None:
        """Invert ΦᵀΦ + λ."""
        _ = self._inverse

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """One product of k numbers, then a scan as ever."""
        query = fold(self.engine.sketcher(self._known(answer, selection)), self._short)
        solved = unfold((self._inverse @ query).astype(np.float32), self.engine.store.manifest.settings.length)
        unsure = 1 - np.exp(-self.engine.store.losses)
        return directions.scan(self.engine.store, solved) * self._factors * unsure

    def values(self, answer: Answer, selection: Selection, row: int) -> None:
        """None: tokens have no features of their own here."""

    @cached
    def _short(self) -> int:
        full = self.engine.store.manifest.settings.length
        return shorter(self.chosen.number(min(1024, full)), full)

    @cached
    def _factors(self) -> NDArray[np.float32]:
        kind = "layer" if self.kind == "layer" else "none"
        return directions.row_factors(self.engine, self.model, kind)

    @cached
    def _inverse(self) -> NDArray[np.float32]:
        """(ΦᵀΦ + λ)⁻¹ (k, k)."""

        def make() -> dict[str, NDArray[np.float32]]:
            gram, done = np.zeros((self._short, self._short)), 0
            for sketches, scales in self.engine.store.sketches():
                factors = scales * self._factors[done : done + len(scales)]
                features = fold(sketches.astype(np.float32), self._short) * factors[:, None]
                gram += features.T.astype(np.float64) @ features
                done += len(scales)
                self.report("sketches read", done, self.engine.store.manifest.rows)
            damping = 0.1 * np.trace(gram) / self._short
            return {"inverse": np.linalg.inv(gram + damping * np.eye(self._short)).astype(np.float32)}

        return self.fitted("trak", make, length=self._short)["inverse"]
