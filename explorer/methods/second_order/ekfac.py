"""EK-FAC: the inverse of eigenvalue-corrected Kronecker factors of every linear layer; see `factors`."""

import torch

from explorer.concurrency import cached
from explorer.errors import UnsupportedError
from explorer.gradients import Gradient
from explorer.methods.second_order.factors import Factors, linear_weights
from explorer.methods.second_order.influence import OWN_DAMPING, SecondOrder


class Ekfac(SecondOrder):
    """P q = U ((Uᵀ q)/(Λ + λ)), tensor by tensor, λ a tenth of the mean of Λ."""

    def prepare(self) -> None:
        """Find the factors."""
        self.factors.prepare()

    def preconditioned(self, q: Gradient) -> Gradient:
        """Two rotations and a division."""
        return self.factors.preconditioned(q, self._damping)

    def _damping(self, moments: torch.Tensor) -> float:
        return OWN_DAMPING * float(moments.mean()) if self.common_damping is None else self.common_damping

    @cached
    def factors(self) -> Factors:
        """The factors of the curvature rows."""
        rows = dict(zip(self.curvature_rows, self.encoded, strict=True))
        name = self.chosen.description.name
        return Factors(self.model, rows, self._names, self, name, lambda *told: self.report(*told))

    @cached
    def _names(self) -> list[str]:
        """The tensors that have factors: weights of linear layers, of the MLPs alone where that was asked for."""
        names, perceptrons = linear_weights(self.model), self.chosen.description.name == "ekfac-mlp"
        if perceptrons:
            names = [name for name in names if ".mlp." in name or ".feed_forward." in name]
        if not names:
            raise UnsupportedError(
                f"{self.chosen.name} needs trainable weights of linear layers{' in MLPs' if perceptrons else ''}, and "
                "this model's gradients are of none; graddot needs no factors."
            )
        return names
