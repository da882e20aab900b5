"""Losses, and their gradients with respect to the trainable tensors.

`L(s^i) = −log p(s^i | what precedes it)` for every response token, the
end-of-sequence token among them; prompt and padding never enter
(paper, Eq. 1). Logits are computed at response positions alone.
It knows nothing of sketches or caches.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad

from explorer.errors import NonFiniteError
from explorer.gradients.capture import Capture
from explorer.gradients.forward_mode import forward_mode
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.substitution import substituted
from explorer.normalisation import divisors, reciprocals
from explorer.records import Contrast, Encoded, Selection

Result = TypeVar("Result")

Gradient = dict[str, torch.Tensor]
"""One gradient: the trainable tensors' names to tensors of their shapes."""

Receive = Callable[[int, Mapping[str, torch.Tensor]], None]
"""Takes the number of a sequence in its batch, and that sequence's gradient of some tensors, each handed over once."""

_HALF_SCALE = 256.0
"""Losses of float16 models are differentiated so many times larger: small gradients would vanish in that format."""

_BUNDLE = 1 << 22
"""Tensors' gradients are handed over together until they have so many numbers."""

_SMALL = 1 << 25
"""A gradient of so many numbers, such as an adapter's, may be held whole: that is quicker."""


# Losses


def token_losses(model: LanguageModel, batch: Sequence[Encoded], tensors: Gradient | None = None) -> list[torch.Tensor]:
    """The losses of every response token, differentiable: one (G) tensor per sequence.

    `tensors` stand in for the network's own where given. Float32,
    or float64 for a model of such weights.
    """
    logits, first = _padded_logits(model, batch, tensors)
    targets = np.concatenate([item.ids[item.positions] for item in batch])
    flat = logits.flatten(0, 1)
    if len(batch) > 1 or batch[0].gaps:
        # All at once: one sequence at a time, each would fill a gradient of the whole batch with zeros.
        flat = flat.index_select(0, torch.from_numpy(_places(batch, first, logits.shape[1])).to(flat.device))
    losses = torch.nn.functional.cross_entropy(flat, torch.from_numpy(targets).to(flat.device), reduction="none")
    return list(losses.split([item.response_length for item in batch]))


def response_logits(
    model: LanguageModel, batch: Sequence[Encoded], tensors: Gradient | None = None
) -> list[torch.Tensor]:
    """What the model expects at every response token: one (G, vocabulary) tensor per sequence; see `token_losses`."""
    logits, first = _padded_logits(model, batch, tensors)
    return [_rows(logits[row], item, first) for row, item in enumerate(batch)]


def _rows(logits: torch.Tensor, item: Encoded, first: int) -> torch.Tensor:
    """The logits (G, vocabulary) of one sequence's response tokens, of those from the position `first` on."""
    if item.gaps:
        return logits[torch.from_numpy(item.positions - 1 - first).to(logits.device)]
    return logits[item.response_start - 1 - first : len(item.ids) - 1 - first]


def _padded_logits(
    model: LanguageModel, batch: Sequence[Encoded], tensors: Gradient | None
) -> tuple[torch.Tensor, int]:
    """What the model expects behind each of the positions that some sequence needs, and the first of these."""
    device = model.device
    longest = max(len(item.ids) for item in batch)
    kept = _scored_positions(batch)
    first = int(kept[0])
    # Put together here: a GPU would be waited for at every row.
    padded = np.full((len(batch), longest), model.tokenizer.pad_token_id or 0, dtype=np.int64)
    for row, item in enumerate(batch):
        padded[row, : len(item.ids)] = item.ids
    ids = torch.from_numpy(padded).to(device)
    inputs = {
        "input_ids": ids,
        # Padding stands behind each sequence, where no earlier position looks; masked rows may overflow.
        "attention_mask": torch.ones_like(ids) if len(batch) > 1 else None,
        "use_cache": False,
        "logits_to_keep": torch.from_numpy(kept).to(device),
    }
    with substituted(model.network, tensors or {}):
        logits = model.network(**inputs).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), first


def _places(batch: Sequence[Encoded], first: int, positions: int) -> NDArray[np.int64]:
    """Where the response tokens' logits stand among those of all sequences, so many positions each."""
    return np.concatenate([item.positions - 1 - first + row * positions for row, item in enumerate(batch)])


def _scored_positions(batch: Sequence[Encoded]) -> NDArray[np.int64]:
    """The positions whose logits some loss of the batch needs."""
    return np.arange(min(item.response_start for item in batch) - 1, max(len(item.ids) for item in batch) - 1)


# Gradients of examples, spans and tokens


def example_gradients(
    model: LanguageModel, checkpoint: Checkpoint, batch: Sequence[Encoded], receive: Receive
) -> list[NDArray[np.float32]]:
    """∇L(s) of every sequence of a batch by one backward pass, and their (G) token losses.

    A small gradient is handed over whole, a large one a few tensors at a time, to
    be dropped at once, so that little more than one tensor's gradient is held.
    Tensors that the loss doesn't depend on are left out. A batch of more than
    one raises UnsupportedError for tensors whose gradient can't be told apart
    by sequence.
    """
    if len(batch) == 1:
        losses = token_losses(model, batch, checkpoint.standing_in())
        _hand_over(model, checkpoint, losses[0].mean(), partial(receive, 0))
        return [losses[0].detach().float().cpu().numpy()]
    capture = Capture(model.network, list(checkpoint.tensors), len(batch))
    constant = {name: tensor.detach() for name, tensor in checkpoint.tensors.items()}
    with capture.watching():
        losses = token_losses(model, batch, checkpoint.standing_in(constant))
    scale = loss_scale(model)
    capture.finish(scale * torch.stack([each.mean() for each in losses]).sum())
    bundles = [_Bundle(partial(receive, sequence)) for sequence in range(len(batch))]
    for name in checkpoint.tensors:
        for bundle, part in zip(bundles, capture.gradients(name), strict=False):
            bundle.add(checkpoint.qualified(name), _unscaled(part, scale))
    for bundle in bundles:
        bundle.hand_over()
    return [each.detach().float().cpu().numpy() for each in losses]


class _Bundle:
    """Gradients of several tensors that are handed over together: one by one costs more where they are small."""

    def __init__(self, receive: Callable[[Mapping[str, torch.Tensor]], None]):
        """Nothing is in it yet."""
        self._receive = receive
        self._parts: dict[str, torch.Tensor] = {}
        self._numbers = 0

    def add(self, name: str, part: torch.Tensor) -> None:
        """One more; the bundle is handed over once it is large."""
        self._parts[name] = part
        self._numbers += part.numel()
        if self._numbers > _BUNDLE:
            self.hand_over()

    def hand_over(self) -> None:
        """What there is."""
        if self._parts:
            parts, self._parts, self._numbers = self._parts, {}, 0
            self._receive(parts)


def _hand_over(
    model: LanguageModel,
    checkpoint: Checkpoint,
    loss: torch.Tensor,
    receive: Callable[[Mapping[str, torch.Tensor]], None],
    keep_graph: bool = False,
) -> None:
    """∇ of a scalar loss in bundles; where it is large as soon as its tensors are complete, to be dropped at once."""
    scale, bundle = loss_scale(model), _Bundle(receive)
    tensors = checkpoint.tensors
    if _size(checkpoint) <= _SMALL:
        parts = torch.autograd.grad(loss * scale, list(tensors.values()), retain_graph=keep_graph, allow_unused=True)
        for name, part in zip(tensors, parts, strict=True):
            if part is not None:
                bundle.add(checkpoint.qualified(name), _unscaled(part, scale))
        bundle.hand_over()
        return

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def complete(tensor: torch.Tensor) -> None:
            part, tensor.grad = tensor.grad, None
            assert part is not None
            bundle.add(checkpoint.qualified(name), _unscaled(part, scale))

        return complete

    handles = [tensor.register_post_accumulate_grad_hook(hook(name)) for name, tensor in tensors.items()]
    try:
        (loss * scale).backward(inputs=list(tensors.values()), retain_graph=keep_graph)
    finally:
        for handle in handles:
            handle.remove()
    bundle.hand_over()


def _size(checkpoint: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in checkpoint.tensors.values())


def loss_scale(model: LanguageModel) -> float:
    """What losses are multiplied by before they are differentiated, and gradients divided by after."""
    return _HALF_SCALE if model.dtype == torch.float16 else 1.0


def _unscaled(part: torch.Tensor, scale: float) -> torch.Tensor:
    return part if scale == 1 else part.float() / scale


def gradient(model: LanguageModel, encoded: Encoded, selection: Selection = None) -> Gradient:
    """The gradient of the loss of what is selected (see `selected_loss`), at every checkpoint."""
    found = zeros(model)
    for checkpoint in model.checkpoints:
        loss = selected_loss(model, encoded, selection, checkpoint.standing_in())
        _hand_over(model, checkpoint, loss, found.update)
    return found


def selected_loss(model: LanguageModel, encoded: Encoded, selection: Selection, tensors: Gradient) -> torch.Tensor:
    """The mean loss of the whole response, of a span or of one token; or how far one of two continuations falls behind.

    A span's gradient is the mean of ∇L(t^j) over j = start … stop − 1 (the
    paper's Γ for a claim). Nothing after it is computed: later tokens can't
    change its losses. For a contrast it is log p(instead) − log p(said), both
    after the same beginning, each the *sum* over its tokens.
    """
    if isinstance(selection, Contrast):
        start, stop = selection.span
        said, other = _cut(encoded, stop), _cut(encoded, start, selection.instead)
        losses, others = (token_losses(model, [each], tensors)[0] for each in (said, other))
        return losses[start:].sum() - others[start:].sum()
    start, stop = selection or (0, encoded.response_length)
    return token_losses(model, [_cut(encoded, stop)], tensors)[0][start:].mean()


def _cut(encoded: Encoded, stop: int, more: Sequence[int] = ()) -> Encoded:
    """The sequence up to a response token, followed by other tokens."""
    end = int(encoded.positions[stop - 1]) + 1 if stop else encoded.response_start
    kept = encoded.ids[:end]
    return Encoded(np.concatenate([kept, np.asarray(more, dtype=kept.dtype)]), encoded.response_start, encoded.gaps)


def token_gradients(model: LanguageModel, encoded: Encoded) -> Iterator[Gradient]:
    """∇L(s^i) for i = 1…G in turn, at every checkpoint; see `each_token`."""
    return (found for found in token_steps(model, encoded) if found is not None)


def token_steps(model: LanguageModel, encoded: Encoded) -> Iterator[Gradient | None]:
    """The work of `token_gradients`; it yields None after every pass at a checkpoint that completes no token."""
    found = zeros(model)
    for complete in _each_pass(model, encoded, found.update):
        yield dict(found) if complete else None
        if complete:
            # A tensor that this token's loss depends on needn't matter to the next.
            found.update(zeros(model))


def each_token(
    model: LanguageModel, encoded: Encoded, receive: Callable[[Mapping[str, torch.Tensor]], None]
) -> Iterator[None]:
    """Hand over ∇L(s^i), whole or some tensors at a time, and yield, for i = 1…G in turn.

    One backward pass a token, forward passes shared. Tokens are taken in
    groups, each by a forward pass that ends with the group, so that next to
    nothing after a token is computed.
    """
    return (None for complete in _each_pass(model, encoded, receive) if complete)


def _each_pass(
    model: LanguageModel, encoded: Encoded, receive: Callable[[Mapping[str, torch.Tensor]], None]
) -> Iterator[bool]:
    """The work of `each_token`, one forward or backward pass at a time; whether it completed a token."""
    for group in np.array_split(np.arange(encoded.response_length), group_count(encoded)):
        stop = int(group[-1]) + 1
        cut = _cut(encoded, stop)
        losses = []
        for checkpoint in model.checkpoints:
            losses.append((checkpoint, token_losses(model, [cut], checkpoint.standing_in())[0]))
            yield False
        for position in group.tolist():
            for checkpoint, each in losses:
                _hand_over(model, checkpoint, each[position], receive, keep_graph=position < stop - 1)
                yield checkpoint is losses[-1][0]


def group_count(encoded: Encoded) -> int:
    """In how many groups the tokens share forward passes.

    A forward pass costs about as much as a backward pass, both grow with the
    positions T. A group of n tokens spends T/n positions forward and n/2
    needless ones backward for each: least in all at n = √(2T).
    """
    return max(1, round(encoded.response_length / math.sqrt(2 * len(encoded.ids))))


# Values along a direction, without a gradient for every token


def log_probabilities(model: LanguageModel, encoded: Encoded, tensors: Gradient | None = None) -> NDArray[np.float64]:
    """The log-probability of every response token, in nats (G); `tensors` stand in for those of the model."""
    with torch.no_grad():
        (losses,) = token_losses(model, [encoded], tensors)
    return -losses.double().cpu().numpy()


def directional_token_losses(model: LanguageModel, encoded: Encoded, direction: Gradient) -> NDArray[np.float32]:
    """⟨∇L(s^i), v⟩ for every response token i at once (G): one forward-mode pass a checkpoint, no backward pass.

    Where a module has no forward-mode derivative, one backward pass a token.
    """
    return finished(directional_steps(model, encoded, direction)).sum(axis=0, dtype=np.float64).astype(np.float32)


def directional_steps(
    model: LanguageModel, encoded: Encoded, direction: Gradient
) -> Generator[None, None, NDArray[np.float32]]:
    """The same checkpoint by checkpoint (C, G), of which it is the sum; it yields after each.

    Raises NonFiniteError where a value isn't finite.
    """
    # Derivatives are linear in the direction; of length one it can't overflow half precision.
    size = float(norms(direction).max()) or 1.0
    found = np.zeros((len(model.checkpoints), encoded.response_length), dtype=np.float64)
    try:
        for number, checkpoint in enumerate(model.checkpoints):
            with forward_mode(model.network, model.trainable), torch.no_grad(), forward_ad.dual_level():
                dual = {
                    name: forward_ad.make_dual(
                        tensor.detach(), (direction[checkpoint.qualified(name)] / size).to(tensor.dtype)
                    )
                    for name, tensor in checkpoint.tensors.items()
                }
                losses = token_losses(model, [encoded], checkpoint.standing_in(dual))[0]
                tangent = forward_ad.unpack_dual(losses).tangent
                if tangent is not None:
                    found[number] = tangent.cpu().double().numpy()
            yield
    except NotImplementedError:
        own = [[checkpoint.qualified(name) for name in checkpoint.tensors] for checkpoint in model.checkpoints]
        for token, each in enumerate(token_gradients(model, encoded)):
            found[:, token] = [inner_product({name: each[name] for name in names}, direction) for names in own]
        found /= size
    if not np.isfinite(found).all() or not np.isfinite(size):
        raise NonFiniteError("a derivative")
    return (found * size).astype(np.float32)


def finished(steps: Generator[None, None, Result]) -> Result:
    """What some work gives, done without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(Result, end.value)


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
            losses = token_losses(model, [encoded], checkpoint.standing_in(constant))[0]
        capture.finish(losses.mean() * loss_scale(model))
        along = {name: direction[checkpoint.qualified(name)] for name in checkpoint.tensors}
        shares = capture.shares(along, len(encoded.ids), _scored_positions([encoded]).tolist())
        total += shares.numpy() / loss_scale(model)
    if not np.isfinite(total).all():
        raise NonFiniteError("a gradient")
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


def normalised(model: LanguageModel, g: Gradient, of: NDArray[np.float32], kind: str) -> Gradient:
    """A question's gradient as examples' gradients are multiplied with it.

    Divided by the norms (L) of the whole response's gradient, as `kind` says
    (`normalisation.KINDS`), and weighted by the checkpoints' shares.
    """
    return weighted(model, divided(g, divisors(of, kind)))


def inner_product(u: Gradient, v: Gradient) -> float:
    """⟨u, v⟩ over all named tensors."""
    return float(sum((_double(u[name]) * _double(v[name])).sum() for name in u))


def _double(tensor: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's GPUs don't know."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
