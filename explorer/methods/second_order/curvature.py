"""The Gauss-Newton matrix of some training rows, by its products with vectors.

    G = (1/M) Σ_k (1/G_k) Σ_i J_iᵀ (diag p_i − p_i p_iᵀ) J_i

over M rows and their response tokens i, J_i the derivative of the token's
logits with respect to the trainable tensors, p_i the probabilities they give.
For this loss it is the Fisher matrix, too. One forward-mode pass for J v, one
forward and one backward pass for Jᵀ of what is made of it; rows of about the
same length go through them together.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.autograd import forward_ad

from explorer.errors import NonFiniteError, UnsupportedError
from explorer.gradients import Gradient, loss_scale, response_logits
from explorer.gradients.forward_mode import forward_mode
from explorer.gradients.sketch import generator
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded

_TOKENS = 256
"""Positions in one pass: few enough that other work needn't wait long for its turn."""


def curvature_rows(seed_of: str, available: int, count: int) -> list[int]:
    """The rows that stand for all: so many, drawn without replacement, ascending."""
    chosen = generator(0, "curvature rows", seed_of).permutation(available)[:count]
    return sorted(int(row) for row in chosen)


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Sequences of about the same length together, by place: at most `_TOKENS` positions at once, padding included."""
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        # The last is the longest.
        if not found or (len(found[-1]) + 1) * lengths[place] > _TOKENS:
            found.append([])
        found[-1].append(place)
    return found


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

    def __init__(self, model: LanguageModel, rows: Sequence[Encoded], numbers: Sequence[int]):
        """`rows` are the token sequences, `numbers` which rows of the data they are."""
        self._model, self.rows, self._numbers = model, rows, numbers
        (self._point,) = model.checkpoints
        self._batches = batches([len(encoded.ids) for encoded in rows])

    def __call__(self, v: torch.Tensor, rows_done: Callable[[int], None] = lambda count: None) -> torch.Tensor:
        """G v (D); `rows_done` is told of so many more rows after every batch.

        Raises NonFiniteError, naming the row.
        """
        found = torch.zeros_like(v)
        for batch in self._batches:
            found += self._sum_of(batch, v)
            rows_done(len(batch))
        return found / len(self.rows)

    def of_row(self, row: int, v: torch.Tensor) -> torch.Tensor:
        """The same for the Gauss-Newton matrix of one row alone."""
        return self._sum_of([row], v)

    def _sum_of(self, rows: Sequence[int], v: torch.Tensor) -> torch.Tensor:
        """Σ_k G_k v over some rows' own matrices."""
        # Products are linear in v; of length one it can't overflow half precision.
        size = v.norm()
        if float(size) == 0:
            return torch.zeros_like(v)
        batch = [self.rows[row] for row in rows]
        moved = self._moved(batch, v / size)
        expected = response_logits(self._model, batch, self._point.standing_in())
        factor = loss_scale(self._model)
        each = [(logits * _bent(logits.detach(), m)).sum() for logits, m in zip(expected, moved, strict=True)]
        for row, one in zip(rows, each, strict=True):
            if not torch.isfinite(one):
                raise NonFiniteError("a curvature", f"Row {self._numbers[row]} of the cache")
        tensors = list(self._point.tensors.values())
        parts = torch.autograd.grad(torch.stack(each).sum() * factor, tensors, allow_unused=True)
        whole = [torch.zeros_like(t) if part is None else part for t, part in zip(tensors, parts, strict=True)]
        product = torch.cat([part.reshape(-1).to(v.dtype) for part in whole]) * (size / factor)
        if not torch.isfinite(product.norm()):
            raise NonFiniteError("a curvature")
        return product

    def _moved(self, batch: Sequence[Encoded], v: torch.Tensor) -> list[torch.Tensor]:
        """J v: how the logits (G, vocabulary) of every sequence change along v."""
        along = shaped(self._model, v)
        try:
            with forward_mode(self._model.network, self._model.trainable), torch.no_grad(), forward_ad.dual_level():
                dual = {
                    name: forward_ad.make_dual(tensor.detach(), along[self._point.qualified(name)].to(tensor.dtype))
                    for name, tensor in self._point.tensors.items()
                }
                expected = response_logits(self._model, batch, self._point.standing_in(dual))
                pairs = map(forward_ad.unpack_dual, expected)
                return [torch.zeros_like(value) if tangent is None else tangent for value, tangent in pairs]
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


def _bent(logits: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """(diag p − p pᵀ) J v/G of every token (G, vocabulary), from J v."""
    p = logits.softmax(-1)
    return p * (moved - (p * moved).sum(-1, keepdim=True)) / len(logits)
