"""What entered and left the modules that hold the trainable tensors, in one forward and backward pass.

A linear layer y = xWᵀ has the gradient Σ_p δ_p ⊗ x_p over its positions p, with
x_p what entered and δ_p = ∂loss/∂y_p what came back. Two things follow without
another pass: the gradient of every sequence of a batch by itself, and the share
of every position in it. Embeddings, biases and norms have such sums too.

It knows nothing of losses, sketches or caches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from explorer.errors import UnsupportedError
from explorer.model.substitution import places

_SMALL = 1 << 18
"""Tensors of up to so many numbers are small: calling for each sequence would cost more than computing."""


@dataclass(frozen=True)
class Call:
    """One call of a module in a forward pass, batch first."""

    module: torch.nn.Module
    entered: torch.Tensor
    """x, what the module was given."""
    returned: torch.Tensor
    """δ, the gradient of the loss with respect to what the module gave."""

    def of(self, sequences: slice) -> "Call":
        """The same for some sequences of the batch."""
        return Call(self.module, self.entered[sequences], self.returned[sequences])


@dataclass(frozen=True)
class _Rule:
    """How one kind of tensor gets its gradient from a call."""

    gradients: Callable[[Call, torch.Tensor | None], torch.Tensor]
    """The gradient of each sequence (B, and the tensor's shape), added in place to what other calls gave."""
    shares: Callable[[Call, torch.Tensor], torch.Tensor]
    """Each position's inner product with a direction of the tensor's shape (T'); the batch holds one sequence."""


def _weight(call: Call) -> torch.Tensor:
    weight = call.module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(0, -2)


def _linear_shares(call: Call, v: torch.Tensor) -> torch.Tensor:
    return (torch.nn.functional.linear(call.entered, v.to(call.entered.dtype)) * call.returned).flatten(0, -2).sum(-1)


def _conv_shares(call: Call, v: torch.Tensor) -> torch.Tensor:
    return ((call.entered @ v.to(call.entered.dtype)) * call.returned).flatten(0, -2).sum(-1)


def _bias_shares(call: Call, v: torch.Tensor) -> torch.Tensor:
    return _per_position(call, call.returned * v)


def _dense(gradients: Callable[[Call], torch.Tensor]) -> Callable[[Call, torch.Tensor | None], torch.Tensor]:
    return lambda call, others: gradients(call) if others is None else others.add_(gradients(call))


def outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Σ_p left_p ⊗ right_p of each sequence."""
    return left.flatten(1, -2).transpose(1, 2) @ right.flatten(1, -2)


def _summed(of_positions: torch.Tensor) -> torch.Tensor:
    """The sum over the positions of each sequence."""
    return of_positions.flatten(1, -2).sum(1)


def _embedding_gradients(call: Call, others: torch.Tensor | None) -> torch.Tensor:
    weight = _weight(call)
    total = weight.new_zeros(len(call.entered), *weight.shape) if others is None else others
    for mine, entered, scaled in zip(total, call.entered, _scaled(call), strict=True):
        mine.index_add_(0, entered, scaled.to(total.dtype))
    return total


def _embedding_shares(call: Call, v: torch.Tensor) -> torch.Tensor:
    return (v[call.entered.flatten()] * _rows(_scaled(call))).sum(-1)


def _scaled(call: Call) -> torch.Tensor:
    """δ with respect to the looked-up row itself: some embeddings multiply it (Gemma)."""
    factor = getattr(call.module, "embed_scale", None)
    return call.returned if factor is None else call.returned * torch.as_tensor(factor).to(call.returned)


def _norm_derivative(call: Call) -> torch.Tensor:
    """∂y/∂w of a norm, elementwise: y is affine in its weight, whatever the norm."""
    one, zero = (
        functional_call(call.module, {"weight": torch.full_like(_weight(call), value)}, (call.entered,))
        for value in (1.0, 0.0)
    )
    return one - zero


def _norm_shares(call: Call, v: torch.Tensor) -> torch.Tensor:
    return _per_position(call, call.returned * _norm_derivative(call) * v)


def _per_position(call: Call, products: torch.Tensor) -> torch.Tensor:
    """Elementwise products (1, …, H) summed to one number a position (T')."""
    if products.dim() == 4:
        # Norms of single attention heads: positions come before heads, or, where the two were swapped, after.
        heads_first = products.shape[1] == 1 or (
            products.shape[2] > 1 and call.entered.stride(1) < call.entered.stride(2)
        )
        return products.sum(-1).sum(1 if heads_first else 2).flatten()
    return products.flatten(0, -2).sum(-1)


_RULES: dict[tuple[str, str], _Rule] = {
    ("linear", "weight"): _Rule(_dense(lambda call: outer(call.returned, call.entered)), _linear_shares),
    ("linear", "bias"): _Rule(_dense(lambda call: _summed(call.returned)), _bias_shares),
    ("conv", "weight"): _Rule(_dense(lambda call: outer(call.entered, call.returned)), _conv_shares),
    ("conv", "bias"): _Rule(_dense(lambda call: _summed(call.returned)), _bias_shares),
    ("embedding", "weight"): _Rule(_embedding_gradients, _embedding_shares),
    ("norm", "weight"): _Rule(_dense(lambda call: _summed(call.returned * _norm_derivative(call))), _norm_shares),
    ("norm", "bias"): _Rule(_dense(lambda call: _summed(call.returned)), _bias_shares),
}


def _kind(module: torch.nn.Module) -> str:
    if isinstance(module, Conv1D):
        return "conv"
    if type(module) is torch.nn.Linear:
        return "linear"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    return "norm" if type(module).__name__.endswith("Norm") else ""


def _unsupported(name: str, module: torch.nn.Module) -> UnsupportedError:
    return UnsupportedError(
        f"{name} belongs to a {type(module).__name__}, whose positions and batches can't be told "
        "apart; gradients are taken one example at a time, and token values by the token's loss."
    )


class Capture:
    """Watches the modules that hold some tensors of a network."""

    def __init__(self, network: torch.nn.Module, names: Sequence[str], sequences: int = 1):
        """Raises UnsupportedError, naming the tensor, when one belongs to a module that no rule is known for."""
        self._sequences = sequences
        self._uses = {name: places(network)[name] for name in names}
        for name, uses in self._uses.items():
            for module, own in uses:
                kind = _kind(module)
                if (kind, own) not in _RULES or (kind == "norm" and module.get_parameter(own).dim() != 1):
                    raise _unsupported(name, module)
        self._left: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = []
        self._calls: dict[torch.nn.Module, list[Call]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record every call of the watched modules."""
        modules = {module for uses in self._uses.values() for module, _ in uses}
        handles = [module.register_forward_hook(self._record) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, module: torch.nn.Module, inputs: tuple[Any, ...], left: torch.Tensor) -> torch.Tensor:
        entered = inputs[0].detach() if inputs else None
        if entered is None or not self._by_position(module, entered, left):
            raise _unsupported(self._name(module), module)
        if not left.requires_grad:
            # The first trainable module of a network whose tensors are held constant: gradients end here.
            left = left.requires_grad_()
        if len(entered) < self._sequences:
            # Learned positions are looked up once for all sequences; each shall have its own gradient.
            entered, left = (each.expand(self._sequences, *each.shape[1:]) for each in (entered, left))
        self._left.append((module, entered, left))
        return left

    def _by_position(self, module: torch.nn.Module, entered: torch.Tensor, left: torch.Tensor) -> bool:
        """Whether what entered is laid out by sequence and position, and all that the rules take it for."""
        if _kind(module) == "embedding":
            if entered.dim() != 2 or len(entered) not in (1, self._sequences) or entered.is_floating_point():
                return False
            factor, weight = getattr(module, "embed_scale", 1.0), module.weight
            assert isinstance(weight, torch.Tensor)
            with torch.no_grad():
                looked_up = torch.nn.functional.embedding(entered, weight)
                return bool(torch.allclose(left, looked_up * torch.as_tensor(factor).to(looked_up)))
        return entered.dim() >= 3 and len(entered) == self._sequences

    def _name(self, module: torch.nn.Module) -> str:
        return next(name for name, uses in self._uses.items() if any(used is module for used, _ in uses))

    def finish(self, loss: torch.Tensor) -> None:
        """One backward pass from a scalar loss to what left the watched modules."""
        called = {module for module, _, _ in self._left}
        for name, uses in self._uses.items():
            for module, _ in uses:
                if module not in called:
                    # Its weight may be used without it.
                    raise _unsupported(name, module)
        returned = torch.autograd.grad(loss, [left for _, _, left in self._left], allow_unused=True)
        for (module, entered, _), back in zip(self._left, returned, strict=True):
            # Nothing comes back where the loss doesn't depend on what left.
            if back is not None:
                self._calls.setdefault(module, []).append(Call(module, entered, back))
        self._left = []

    @torch.no_grad()
    def gradients(self, name: str) -> Iterator[torch.Tensor]:
        """The gradient of every sequence with respect to one tensor, in turn; nothing where it is zero.

        Those of a small tensor are computed together, of a large one only one is there at a time.
        """
        # Embeddings last: they add a few rows to what a tied output layer gave.
        uses = sorted(self._of(name), key=lambda use: _kind(use[1].module) == "embedding")
        if not uses:
            return
        module, own = self._uses[name][0]
        step = self._sequences if module.get_parameter(own).numel() <= _SMALL else 1
        for start in range(0, self._sequences, step):
            total = None
            for rule, call in uses:
                total = rule.gradients(call.of(slice(start, start + step)), total)
            assert total is not None
            yield from total

    @torch.no_grad()
    def shares(self, direction: Mapping[str, torch.Tensor], length: int, kept: Sequence[int]) -> torch.Tensor:
        """What each position of the only sequence adds to ⟨gradient, direction⟩: (T), which sum to it.

        `length` is T; a module that saw fewer positions saw those in `kept` (the output layer).
        """
        total = torch.zeros(length, dtype=torch.float64)
        for name, v in direction.items():
            for rule, call in self._of(name):
                found = rule.shares(call, v).cpu().double()
                total[slice(None) if len(found) == length else list(kept)] += found
        return total

    def calls(self, name: str) -> list[Call]:
        """What entered and came back at every call of the modules that hold a tensor."""
        return [call for _, call in self._of(name)]

    def _of(self, name: str) -> Iterator[tuple[_Rule, Call]]:
        for module, own in self._uses[name]:
            for call in self._calls.get(module, []):
                yield _RULES[_kind(module), own], call
