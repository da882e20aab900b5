"""Losses, and their gradients with respect to the trainable tensors.

`L(s^i) = −log p(s^i | what precedes it)` for every response token, the
end-of-sequence token among them; prompt and padding never enter
(paper, Eq. 1). Logits are computed at response positions alone.
It knows nothing of sketches or caches.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad

from explorer.capture import Capture
from explorer.forward_mode import forward_mode
from explorer.model import Checkpoint, LanguageModel
from explorer.normalisation import reciprocals
from explorer.records import Encoded, Selection

Gradient = dict[str, torch.Tensor]
"""One gradient: the trainable tensors' names to tensors of their shapes."""

Receive = Callable[[int, str, torch.Tensor], None]
"""Takes the number of a sequence in its batch, the name of a tensor, and that sequence's gradient of that tensor."""

_HALF_SCALE = 256.0
"""Losses of float16 models are differentiated so many times larger: small gradients would vanish in that format."""

_SMALL = 1 << 25
"""A gradient of so many numbers, such as an adapter's, may be held whole: that is quicker."""


# Losses


def token_losses(model: LanguageModel, batch: Sequence[Encoded], tensors: Gradient | None = None) -> list[torch.Tensor]:
    """The losses of every response token, differentiable: one (G) tensor per sequence.

    `tensors` stand in for the model's trainable tensors where given. Float32,
    or float64 for a model of such weights.
    """
    device = model.device
    longest = max(len(item.ids) for item in batch)
    kept = _scored_positions(batch)
    first = int(kept[0])
    ids = torch.full((len(batch), longest), model.tokenizer.pad_token_id or 0, device=device)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
    inputs = {
        "input_ids": ids,
        # Padding stands behind each sequence, where no earlier position looks; masked rows may overflow.
        "attention_mask": torch.ones_like(ids) if len(batch) > 1 else None,
        "use_cache": False,
        "logits_to_keep": torch.from_numpy(kept).to(device),
    }
    logits = torch.func.functional_call(model.network, tensors or {}, (), inputs).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = []
    for row, item in enumerate(batch):
        scored = slice(item.response_start - 1 - first, len(item.ids) - 1 - first)
        target = ids[row, item.response_start : len(item.ids)]
        losses.append(torch.nn.functional.cross_entropy(logits[row, scored], target, reduction="none"))
    return losses


def _scored_positions(batch: Sequence[Encoded]) -> NDArray[np.int64]:
    """The positions whose logits some loss of the batch needs."""
    return np.arange(min(item.response_start for item in batch) - 1, max(len(item.ids) for item in batch) - 1)


# Gradients of examples, spans and tokens


def example_gradients(
    model: LanguageModel, checkpoint: Checkpoint, batch: Sequence[Encoded], receive: Receive
) -> list[NDArray[np.float32]]:
    """∇L(s) of every sequence of a batch by one backward pass, and their (G) token losses.

    Each is handed over tensor by tensor and may be dropped at once, so that no
    more than one tensor's gradient is held. Tensors that the loss doesn't
    depend on are left out. A batch of more than one raises UnsupportedError for
    tensors whose gradient can't be told apart by sequence.
    """
    if len(batch) == 1:
        losses = token_losses(model, batch, checkpoint.tensors)
        _hand_over(model, checkpoint, losses[0].mean(), lambda name, part: receive(0, name, part))
    else:
        capture = Capture(model.network, list(checkpoint.tensors), len(batch))
        constant = {name: tensor.detach() for name, tensor in checkpoint.tensors.items()}
        with capture.watching():
            losses = token_losses(model, batch, constant)
        scale = loss_scale(model)
        capture.finish(scale * torch.stack([each.mean() for each in losses]).sum())
        for name in checkpoint.tensors:
            for sequence in range(len(batch)):
                part = capture.gradient(name, sequence)
                if part is not None:
                    receive(sequence, checkpoint.qualified(name), _unscaled(part, scale))
    return [each.detach().float().cpu().numpy() for each in losses]


def _hand_over(
    model: LanguageModel,
    checkpoint: Checkpoint,
    loss: torch.Tensor,
    receive: Callable[[str, torch.Tensor], None],
    keep_graph: bool = False,
) -> None:
    """∇ of a scalar loss, tensor by tensor; of a large one each as soon as it is complete, to be dropped at once."""
    scale = loss_scale(model)
    tensors = checkpoint.tensors
    if sum(tensor.numel() for tensor in tensors.values()) <= _SMALL:
        parts = torch.autograd.grad(loss * scale, list(tensors.values()), retain_graph=keep_graph, allow_unused=True)
        for name, part in zip(tensors, parts, strict=True):
            if part is not None:
                receive(checkpoint.qualified(name), _unscaled(part, scale))
        return

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def complete(tensor: torch.Tensor) -> None:
            part, tensor.grad = tensor.grad, None
            assert part is not None
            receive(checkpoint.qualified(name), _unscaled(part, scale))

        return complete

    handles = [tensor.register_post_accumulate_grad_hook(hook(name)) for name, tensor in tensors.items()]
    try:
        (loss * scale).backward(inputs=list(tensors.values()), retain_graph=keep_graph)
    finally:
        for handle in handles:
            handle.remove()


def loss_scale(model: LanguageModel) -> float:
    """What losses are multiplied by before they are differentiated, and gradients divided by after."""
    return _HALF_SCALE if model.dtype == torch.float16 else 1.0


def _unscaled(part: torch.Tensor, scale: float) -> torch.Tensor:
    return part if scale == 1 else part.float() / scale


def gradient(model: LanguageModel, encoded: Encoded, selection: Selection = None) -> Gradient:
    """The gradient of the mean loss of the whole response, of a span, or of one token, at every checkpoint.

    For a span it is the mean of ∇L(t^j) over j = start … stop − 1 (the paper's Γ
    for a claim). Nothing after it is computed: later tokens can't change its losses.
    """
    start, stop = selection or (0, encoded.response_length)
    cut = Encoded(encoded.ids[: encoded.response_start + stop], encoded.response_start)
    found = zeros(model)
    for checkpoint in model.checkpoints:
        losses = token_losses(model, [cut], checkpoint.tensors)[0]
        _hand_over(model, checkpoint, losses[start:stop].mean(), found.__setitem__)
    return found


def token_gradients(model: LanguageModel, encoded: Encoded) -> Iterator[Gradient]:
    """∇L(s^i) for i = 1…G in turn, at every checkpoint; see `each_token`."""
    found = zeros(model)
    for _ in each_token(model, encoded, found.__setitem__):
        yield dict(found)
        # A tensor that this token's loss depends on needn't matter to the next.
        found.update(zeros(model))


def each_token(model: LanguageModel, encoded: Encoded, receive: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Hand over ∇L(s^i) tensor by tensor, and yield, for i = 1…G in turn.

    One backward pass a token, forward passes shared. Tokens are taken in
    groups, each by a forward pass that ends with the group, so that next to
    nothing after a token is computed.
    """
    for group in np.array_split(np.arange(encoded.response_length), group_count(encoded)):
        stop = int(group[-1]) + 1
        cut = Encoded(encoded.ids[: encoded.response_start + stop], encoded.response_start)
        losses = [(checkpoint, token_losses(model, [cut], checkpoint.tensors)[0]) for checkpoint in model.checkpoints]
        for position in group.tolist():
            for checkpoint, each in losses:
                _hand_over(model, checkpoint, each[position], receive, keep_graph=position < stop - 1)
            yield


def group_count(encoded: Encoded) -> int:
    """In how many groups the tokens share forward passes.

    A forward pass costs about as much as a backward pass, both grow with the
    positions T. A group of n tokens spends T/n positions forward and n/2
    needless ones backward for each: least in all at n = √(2T).
    """
    return max(1, round(encoded.response_length / math.sqrt(2 * len(encoded.ids))))


# Values along a direction, without a gradient for every token


def directional_token_losses(model: LanguageModel, encoded: Encoded, direction: Gradient) -> NDArray[np.float32]:
    """⟨∇L(s^i), v⟩ for every response token i at once (G): one forward-mode pass a checkpoint, no backward pass.

    Where a module has no forward-mode derivative, one backward pass a token.
    """
    # Derivatives are linear in the direction; of length one it can't overflow half precision.
    size = float(norms(direction).max()) or 1.0
    total = np.zeros(encoded.response_length, dtype=np.float64)
    try:
        for checkpoint in model.checkpoints:
            with forward_mode(model.network, model.trainable), torch.no_grad(), forward_ad.dual_level():
                dual = {
                    name: forward_ad.make_dual(
                        tensor.detach(), (direction[checkpoint.qualified(name)] / size).to(tensor.dtype)
                    )
                    for name, tensor in checkpoint.tensors.items()
                }
                losses = token_losses(model, [encoded], dual)[0]
                tangent = forward_ad.unpack_dual(losses).tangent
                if tangent is not None:
                    total += tangent.double().cpu().numpy()
    except NotImplementedError:
        total = np.array([inner_product(g, direction) for g in token_gradients(model, encoded)]) / size
    return (total * size).astype(np.float32)


def position_shares(model: LanguageModel, encoded: Encoded, direction: Gradient) -> NDArray[np.float32]:
    """What of ⟨∇L(s), v⟩ passes through each position, the prompt's too: (T), which sum to it.

    The share of position p is ⟨δ_p ⊗ x_p, v⟩ summed over the trainable layers:
    one backward pass a checkpoint for all positions. Raises UnsupportedError,
    naming the tensor, where a gradient isn't a sum over positions.
    """
    total = np.zeros(len(encoded.ids), dtype=np.float64)
    for checkpoint in model.checkpoints:
        capture = Capture(model.network, list(checkpoint.tensors))
        constant = {name: tensor.detach() for name, tensor in checkpoint.tensors.items()}
        with capture.watching():
            losses = token_losses(model, [encoded], constant)[0]
        capture.finish(losses.mean() * loss_scale(model))
        along = {name: direction[checkpoint.qualified(name)] for name in checkpoint.tensors}
        shares = capture.shares(along, len(encoded.ids), _scored_positions([encoded]).tolist())
        total += shares.numpy() / loss_scale(model)
    return total.astype(np.float32)


# Arithmetic of gradients


def zeros(model: LanguageModel) -> Gradient:
    """The gradient of nothing, in the order of the layout: tensors no loss depends on stay so."""
    return {
        checkpoint.qualified(name): tensor.new_zeros(()).expand(tensor.shape)
        for checkpoint in model.checkpoints
        for name, tensor in checkpoint.tensors.items()
    }


def norms(g: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
    """‖g^l‖₂ of every named tensor (L)."""
    return torch.stack([part.float().norm() for part in g.values()]).cpu().numpy()


def divided(g: Gradient, by: NDArray[np.float32]) -> Gradient:
    """Every named tensor divided by its entry of `by` (L); 0 where that is 0."""
    return {name: part * float(factor) for (name, part), factor in zip(g.items(), reciprocals(by), strict=True)}


def weighted(model: LanguageModel, g: Gradient) -> Gradient:
    """Every checkpoint's part times its share of e·η: done to one side of an inner product, it makes Eq. 4's sum."""
    if len(model.checkpoints) == 1:
        return g
    return {
        checkpoint.qualified(name): g[checkpoint.qualified(name)] * checkpoint.share
        for checkpoint in model.checkpoints
        for name in checkpoint.tensors
    }


def inner_product(u: Gradient, v: Gradient) -> float:
    """⟨u, v⟩ over all named tensors."""
    return float(sum((u[name].double() * v[name].double()).sum() for name in u))
