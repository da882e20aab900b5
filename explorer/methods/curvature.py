"""The Gauss-Newton matrix of some training rows, by its products with vectors.

    G = (1/M) Σ_k (1/G_k) Σ_i J_iᵀ (diag p_i − p_i p_iᵀ) J_i

over M rows and their response tokens i, J_i the derivative of the token's
logits with respect to the trainable tensors, p_i the probabilities they give.
For this loss it is the Fisher matrix, too. One forward-mode pass for J v, one
forward and one backward pass for Jᵀ of what is made of it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.autograd import forward_ad

from explorer.errors import UnsupportedError
from explorer.forward_mode import forward_mode
from explorer.gradients import Gradient, loss_scale, response_logits
from explorer.model import LanguageModel
from explorer.records import Encoded
from explorer.sketch import generator


def curvature_rows(seed_of: str, available: int, count: int) -> list[int]:
    """The rows that stand for all: so many, drawn without replacement, ascending."""
    chosen = generator(0, "curvature rows", seed_of).permutation(available)[:count]
    return sorted(int(row) for row in chosen)


def flat(model: LanguageModel, g: Gradient) -> torch.Tensor:
    """A gradient at one checkpoint as one vector (D), float32, or float64 for a model of such weights."""
    dtype = torch.promote_types(model.dtype, torch.float32)
    return torch.cat([part.reshape(-1).to(dtype) for part in g.values()])


def shaped(model: LanguageModel, vector: torch.Tensor) -> Gradient:
    """The inverse of `flat`."""
    (point,) = model.checkpoints
    parts = vector.split([tensor.numel() for tensor in point.tensors.values()])
    return {
        point.qualified(name): part.view(tensor.shape)
        for (name, tensor), part in zip(point.tensors.items(), parts, strict=True)
    }


class GaussNewton:
    """G of some rows at a model's one checkpoint."""

    def __init__(self, model: LanguageModel, rows: Sequence[Encoded]):
        """`rows` are the token sequences."""
        self._model, self.rows = model, rows
        (self._point,) = model.checkpoints

    def __call__(self, v: torch.Tensor, row_done: Callable[[], None] = lambda: None) -> torch.Tensor:
        """G v (D); `row_done` is called after the product with every row's own matrix."""
        found = torch.zeros_like(v)
        for row in range(len(self.rows)):
            found += self.of_row(row, v)
            row_done()
        return found / len(self.rows)

    def of_row(self, row: int, v: torch.Tensor) -> torch.Tensor:
        """The same for the Gauss-Newton matrix of one row alone."""
        # Products are linear in v; of length one it can't overflow half precision.
        size = v.norm()
        if float(size) == 0:
            return torch.zeros_like(v)
        moved = self._moved(self.rows[row], v / size)
        logits = response_logits(self._model, [self.rows[row]], self._point.standing_in())[0]
        p = logits.detach().softmax(-1)
        back = p * (moved - (p * moved).sum(-1, keepdim=True)) / len(logits)
        factor = loss_scale(self._model)
        tensors = list(self._point.tensors.values())
        parts = torch.autograd.grad((logits * back).sum() * factor, tensors, allow_unused=True)
        whole = [torch.zeros_like(t) if part is None else part for t, part in zip(tensors, parts, strict=True)]
        return torch.cat([part.reshape(-1).to(v.dtype) for part in whole]) * (size / factor)

    def _moved(self, encoded: Encoded, v: torch.Tensor) -> torch.Tensor:
        """J v: how the logits (G, vocabulary) change along v."""
        along = shaped(self._model, v)
        try:
            with forward_mode(self._model.network, self._model.trainable), torch.no_grad(), forward_ad.dual_level():
                dual = {
                    name: forward_ad.make_dual(tensor.detach(), along[self._point.qualified(name)].to(tensor.dtype))
                    for name, tensor in self._point.tensors.items()
                }
                logits = response_logits(self._model, [encoded], self._point.standing_in(dual))[0]
                value, tangent = forward_ad.unpack_dual(logits)
                return torch.zeros_like(value) if tangent is None else tangent
        except NotImplementedError as problem:
            raise UnsupportedError(
                "A module of this model has no forward-mode derivative, which Gauss-Newton products need; "
                "datainf and ekfac do without."
            ) from problem

    def start(self, seed_of: str) -> torch.Tensor:
        """A random vector (D) to begin an iteration with."""
        size = sum(tensor.numel() for tensor in self._point.tensors.values())
        drawn = generator(0, "start", seed_of).standard_normal(size, dtype=np.float32)
        dtype = torch.promote_types(self._model.dtype, torch.float32)
        return torch.from_numpy(drawn).to(self._model.device, dtype)
