"""EK-FAC written out with whole matrices in float64, for tiny models.

Of the product it takes the drawn labels alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.methods.second_order.factors import drawn_labels, draws
from explorer.records import Encoded
from tests.explicit import Explicit


class Sampled:
    """Gradients of one row with labels drawn from the model, in float64, and what entered and came back, by hooks."""

    def __init__(self, explicit: Explicit, encoded: Encoded, seed: str):
        modules = dict(explicit.model.network.named_modules())
        self.entered, left = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        handles = []
        for name in explicit.tensors:

            def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor, name: str = name) -> None:
                self.entered[name], left[name] = inputs[0].detach()[0], output

            handles.append(modules[name.removesuffix(".weight")].register_forward_hook(hook))
        logits = explicit.logits(encoded)
        for handle in handles:
            handle.remove()
        labels, weights = (each.numpy() for each in drawn_labels(logits.detach(), seed))
        losses = -logits.log_softmax(-1)[range(len(labels)), labels] * torch.from_numpy(weights)
        loss = losses.sum() / np.sqrt(len(labels))
        back = torch.autograd.grad(loss, list(left.values()), retain_graph=True)
        self.returned = {name: part[0] for name, part in zip(left, back, strict=True)}
        self.gradients = dict(
            zip(explicit.tensors, torch.autograd.grad(loss, list(explicit.tensors.values())), strict=True)
        )


def explicit_ekfac(
    explicit: Explicit, rows: list[int], encoded: list[Encoded], share: float = 0.1
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """P as dense matrices: the Fisher matrix of drawn labels, of which the diagonal in the Kronecker basis is kept.

    λ is a share of the mean of that diagonal.
    """
    seeds = [(row, f"{row}/{draw}") for row in rows for draw in range(draws(len(rows)))]
    sampled = [Sampled(explicit, encoded[row], seed) for row, seed in seeds]
    inverses = []
    for name in explicit.tensors:
        back = sum(each.returned[name].T @ each.returned[name] for each in sampled)
        entered = sum(each.entered[name].T @ each.entered[name] for each in sampled)
        bases = [np.linalg.eigh(np.asarray(moment))[1] for moment in (back, entered)]
        u = np.kron(*bases)
        flattened = np.stack([each.gradients[name].reshape(-1).numpy() for each in sampled])
        fisher = flattened.T @ flattened / len(sampled)
        kept = np.diag(u.T @ fisher @ u)
        inverses.append(u @ np.diag(1 / (kept + share * kept.mean())) @ u.T)

    def inverse(q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([each @ part for each, part in zip(inverses, explicit.split(q), strict=True)])

    return inverse
