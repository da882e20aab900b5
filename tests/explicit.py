"""What the methods compute, written out with whole matrices in float64: for tiny models alone.

It takes nothing from the product but the loaded model.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.model.language_model import LanguageModel
from explorer.records import Encoded

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class Explicit:
    """Gradients and Gauss-Newton matrices of a float64 model, at tensors that stand in for its own."""

    def __init__(self, model: LanguageModel, tensors: dict[str, torch.Tensor] | None = None):
        assert model.dtype == torch.float64
        self.model = model
        self.tensors = tensors or dict(model.checkpoints[-1].tensors)
        self.sizes = [tensor.numel() for tensor in self.tensors.values()]
        self._all = list(self.tensors.values())
        self._known: dict[tuple[int, bytes], Matrix] = {}
        self._curvatures: dict[tuple[int, bytes], Matrix] = {}

    def logits(self, encoded: Encoded) -> torch.Tensor:
        """(G, vocabulary), differentiable."""
        ids = torch.from_numpy(encoded.ids)[None]
        logits = torch.func.functional_call(self.model.network, self.tensors, (), {"input_ids": ids}).logits[0]
        return logits[encoded.response_start - 1 : -1]

    def jacobian(self, encoded: Encoded) -> tuple[Matrix, Matrix]:
        """Derivatives (G, vocabulary, D) of all logits, and the probabilities (G, vocabulary)."""
        logits, found = self.logits(encoded), []
        for each in logits:
            ones = torch.eye(len(each), dtype=torch.float64)
            found.append(self._joined(self._batched(each, ones), len(each)))
        return np.stack(found), logits.detach().softmax(-1).numpy()

    def token_gradients(self, encoded: Encoded) -> Matrix:
        """∇L(s^i) for every response token (G, D)."""
        key = encoded.response_start, encoded.ids.tobytes()
        if key not in self._known:
            chances = self.logits(encoded).log_softmax(-1)
            labels = torch.from_numpy(encoded.ids[encoded.response_start :])
            losses = -chances.gather(1, labels[:, None])[:, 0]
            parts = [torch.autograd.grad(loss, self._all, retain_graph=True, allow_unused=True) for loss in losses]
            rows = [self._joined([None if p is None else p[None] for p in each], 1)[0] for each in parts]
            self._known[key] = np.stack(rows)
        return self._known[key]

    def _batched(self, logits: torch.Tensor, ones: torch.Tensor) -> Sequence[torch.Tensor | None]:
        options = {"retain_graph": True, "allow_unused": True, "is_grads_batched": True}
        return torch.autograd.grad(logits, self._all, ones, **options)

    def _joined(self, parts: Sequence[torch.Tensor | None], count: int) -> Matrix:
        whole = [
            torch.zeros(count, size, dtype=torch.float64) if part is None else part.reshape(count, -1)
            for part, size in zip(parts, self.sizes, strict=True)
        ]
        return torch.cat(whole, 1).numpy()

    def gradient(self, encoded: Encoded) -> Vector:
        """∇L(s) (D)."""
        return self.token_gradients(encoded).mean(axis=0)

    def gauss_newton(self, encoded: Encoded) -> Matrix:
        """The mean over response tokens of J_iᵀ(diag p_i − p_i p_iᵀ)J_i (D, D)."""
        key = encoded.response_start, encoded.ids.tobytes()
        if key not in self._curvatures:
            derivatives, p = self.jacobian(encoded)
            total = np.zeros((derivatives.shape[2],) * 2)
            for each, chances in zip(derivatives, p, strict=True):
                total += each.T @ (np.diag(chances) - np.outer(chances, chances)) @ each
            self._curvatures[key] = total / len(p)
        return self._curvatures[key]

    def split(self, vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """A vector (…, D) tensor by tensor."""
        return np.split(vector, np.cumsum(self.sizes)[:-1], axis=-1)

    def divided(self, vector: Vector, whole: Vector, kind: str) -> Vector:
        """A vector divided by the norms of a whole example's gradient."""
        if kind == "none":
            return vector
        if kind == "cosine":
            return vector / np.linalg.norm(whole)
        pairs = zip(self.split(vector), self.split(whole), strict=True)
        return np.concatenate([part / np.linalg.norm(other) for part, other in pairs])


def mean_gauss_newton(explicit: Explicit, rows: Sequence[Encoded]) -> Matrix:
    """The mean of the rows' Gauss-Newton matrices (D, D)."""
    return np.asarray(np.mean([explicit.gauss_newton(encoded) for encoded in rows], axis=0))
