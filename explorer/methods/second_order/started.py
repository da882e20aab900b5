"""Conjugate gradients that begin where EK-FAC ends."""

from explorer.concurrency import cached
from explorer.gradients import Gradient
from explorer.methods.description import choose
from explorer.methods.second_order import solvers
from explorer.methods.second_order.curvature import flat, shaped
from explorer.methods.second_order.ekfac import Ekfac
from explorer.methods.second_order.influence import ConjugateGradients


class FromEkfac(ConjugateGradients):
    """(G + λ)⁻¹ q by conjugate gradients that begin with EK-FAC's solution for the same λ, as long as fits best."""

    def prepare(self) -> None:
        """Find the largest eigenvalues and EK-FAC's factors."""
        super().prepare()
        self._ekfac.prepare()

    def preconditioned(self, q: Gradient) -> Gradient:
        """A product with G for the beginning's length, one for what it leaves, and one an iteration."""
        iterations = self.chosen.number(10)
        self._ekfac.common_damping = self.damping
        start, v = flat(self.model, self._ekfac.preconditioned(q)), flat(self.model, q)
        operator = self.counted(iterations + 2)
        moved = operator(start) + self.damping * start
        along = float(start @ moved)
        start = start * (float(start @ v) / along if along > 0 else 0.0)
        return shaped(self.model, solvers.conjugate_gradients(operator, v, self.damping, iterations, start=start))

    @cached
    def _ekfac(self) -> Ekfac:
        found = Ekfac(self.engine, choose("ekfac"), self.rows, lambda *told: self.report(*told))
        found.kept_alone, found.anew = self.kept_alone, self.anew
        return found
