"""Losses, and their gradients with respect to the trainable tensors.

`L(s^i) = −log p(s^i | what precedes it)` for every response token, the
end-of-sequence token among them; prompt and padding never enter
(paper, Eq. 1). Logits are computed at response positions alone.
It knows nothing of sketches, caches or normalisation.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad

from explorer.model import Checkpoint, LanguageModel
from explorer.records import Encoded

Gradient = dict[str, torch.Tensor]
"""One gradient: the trainable tensors' names to tensors of their shapes."""


def token_losses(model: LanguageModel, batch: Sequence[Encoded], tensors: Gradient | None = None) -> list[torch.Tensor]:
    """The losses of every response token, differentiable: one (G) tensor per sequence.

    `tensors` stand in for the model's trainable tensors where given.
    """
    device = model.device
    longest = max(len(item.ids) for item in batch)
    first = min(item.response_start for item in batch) - 1
    ids = torch.full((len(batch), longest), model.tokenizer.pad_token_id or 0, device=device)
    mask = torch.zeros_like(ids)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
        mask[row, : len(item.ids)] = 1
    inputs = {
        "input_ids": ids,
        "attention_mask": mask if len(batch) > 1 else None,
        "use_cache": False,
        "logits_to_keep": torch.arange(first, longest - 1, device=device),
    }
    logits = torch.func.functional_call(model.network, tensors or {}, (), inputs).logits.float()
    losses = []
    for row, item in enumerate(batch):
        scored = slice(item.response_start - 1 - first, len(item.ids) - 1 - first)
        target = ids[row, item.response_start : len(item.ids)]
        losses.append(torch.nn.functional.cross_entropy(logits[row, scored], target, reduction="none"))
    return losses


def gradient(checkpoint: Checkpoint, loss: torch.Tensor, keep_graph: bool = False) -> Gradient:
    """∇ of a scalar loss with respect to every tensor of a checkpoint."""
    tensors = list(checkpoint.tensors.values())
    parts = torch.autograd.grad(loss, tensors, retain_graph=keep_graph, allow_unused=True)
    return {
        checkpoint.qualified(name): torch.zeros_like(tensor) if part is None else part
        for (name, tensor), part in zip(checkpoint.tensors.items(), parts, strict=True)
    }


def example_gradient(model: LanguageModel, encoded: Encoded) -> tuple[Gradient, NDArray[np.float32]]:
    """∇L(s), the gradient of the mean response loss at every checkpoint, and the last one's (G) token losses."""
    found: Gradient = {}
    for checkpoint in model.checkpoints:
        losses = token_losses(model, [encoded], checkpoint.tensors)[0]
        found |= gradient(checkpoint, losses.mean())
    return found, losses.detach().cpu().numpy()


def token_gradients(model: LanguageModel, encoded: Encoded) -> Iterator[Gradient]:
    """∇L(s^i) for i = 1…G in turn, by one shared forward pass and one backward pass a token and checkpoint."""
    losses = [(checkpoint, token_losses(model, [encoded], checkpoint.tensors)[0]) for checkpoint in model.checkpoints]
    last = encoded.response_length - 1
    for position in range(encoded.response_length):
        found: Gradient = {}
        for checkpoint, each in losses:
            found |= gradient(checkpoint, each[position], keep_graph=position < last)
        yield found


def norms(g: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
    """‖g^l‖₂ of every named tensor (L)."""
    return torch.stack([part.float().norm() for part in g.values()]).cpu().numpy()


def span_gradient(model: LanguageModel, encoded: Encoded, start: int, stop: int) -> Gradient:
    """The mean of ∇L(t^j) over response tokens j = start … stop − 1 (the paper's Γ for a claim).

    Nothing after the span is computed: later tokens can't change its losses.
    """
    cut = Encoded(encoded.ids[: encoded.response_start + stop], encoded.response_start)
    found: Gradient = {}
    for checkpoint in model.checkpoints:
        found |= gradient(checkpoint, token_losses(model, [cut], checkpoint.tensors)[0][start:stop].mean())
    return found


def directional_token_losses(model: LanguageModel, encoded: Encoded, direction: Gradient) -> NDArray[np.float32]:
    """⟨∇L(s^i), v⟩ for every response token i at once (G): one forward-mode pass a checkpoint, no backward pass."""
    total = np.zeros(encoded.response_length, dtype=np.float32)
    for checkpoint in model.checkpoints:
        with _eager_attention(model), _frozen_linears(model), torch.no_grad(), forward_ad.dual_level():
            dual = {
                name: forward_ad.make_dual(tensor.detach(), direction[checkpoint.qualified(name)].to(tensor.dtype))
                for name, tensor in checkpoint.tensors.items()
            }
            losses = token_losses(model, [encoded], dual)[0]
            total += forward_ad.unpack_dual(losses).tangent.float().cpu().numpy()
    return total


def weighted(model: LanguageModel, g: Gradient) -> Gradient:
    """Every checkpoint's part times its share of e·η: done to one side of an inner product, it makes Eq. 4's sum."""
    if len(model.checkpoints) == 1:
        return g
    return {
        checkpoint.qualified(name): g[checkpoint.qualified(name)] * checkpoint.share
        for checkpoint in model.checkpoints
        for name in checkpoint.tensors
    }


def prepare_forward_mode() -> None:
    """Let torch compile its forward-mode formulas now, in this thread.

    It does so at the first dual number by parsing its own source, and Python
    3.11's parser can fail when two threads parse at once, as a server's do.
    """
    with forward_ad.dual_level():
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


@contextmanager
def _eager_attention(model: LanguageModel) -> Iterator[None]:
    """Attention written out in plain products: the fused kernels have no forward-mode derivative."""
    network = model.network
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)


@contextmanager
def _frozen_linears(model: LanguageModel) -> Iterator[None]:
    """Spare the products with the tangents of frozen weights, which torch multiplies out although they are zero."""
    trainable = {id(tensor) for tensor in model.trainable.values()}
    frozen = [
        module
        for module in model.network.modules()
        if type(module) is torch.nn.Linear and not any(id(tensor) in trainable for tensor in module.parameters())
    ]
    for module in frozen:
        vars(module)["forward"] = partial(_frozen_linear, module.weight, module.bias)
    try:
        yield
    finally:
        for module in frozen:
            del vars(module)["forward"]


def _frozen_linear(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    return _FrozenLinear.apply(x, weight, bias)


class _FrozenLinear(torch.autograd.Function):
    """x ↦ xWᵀ + b with W and b constant, so that the tangent is ẋWᵀ alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_forward(weight)
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def jvp(ctx: Any, x: torch.Tensor | None, *_: object) -> torch.Tensor | None:
        (weight,) = ctx.saved_tensors
        return None if x is None else torch.nn.functional.linear(x, weight)


def inner_product(u: Gradient, v: Gradient) -> float:
    """⟨u, v⟩ over all named tensors."""
    return float(sum((u[name].double() * v[name].double()).sum() for name in u))


def divided(g: Gradient, by: NDArray[np.float32]) -> Gradient:
    """Every named tensor divided by its entry of `by` (L); 0 where that is 0."""
    factors = np.divide(1.0, by, out=np.zeros_like(by), where=by > 0)
    return {name: part * float(factor) for (name, part), factor in zip(g.items(), factors, strict=True)}
