"""Makes a network ready for forward-mode differentiation, and quick at it.

Forward mode carries a tangent beside every value. Three things stand in its
way. Fused kernels of attention and of experts have no forward derivative, so
attention is written out in plain products meanwhile, and experts are gone
through one by one. torch multiplies the tangents of frozen weights although
they are zero, so frozen linear layers take values and tangents together through
one product with their weight. And where a sum or a product has a tangent on one
side alone, torch finds out the shape of the other side's zeros in Python, which
takes longer than the sum itself; those are carried out here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D


@cache
def prepare_forward_mode() -> None:
    """Let torch compile its forward-mode formulas now, in this thread; once a process, before any other uses them.

    It does so at the first dual number by parsing its own source, and Python
    3.11's parser can fail when two threads parse at once, as a server's do.
    """
    with forward_ad.dual_level():
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))


@contextmanager
def forward_mode(network: Any, trainable: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within it, `network` can be called with dual numbers in place of its trainable tensors."""
    attention, experts = network.config._attn_implementation, network.config._experts_implementation
    network.set_attn_implementation("eager")
    network.set_experts_implementation("eager")
    duals = {id(tensor) for tensor in trainable.values()}
    frozen = {
        module: product
        for module in network.modules()
        if (product := _product(module)) and not any(id(tensor) in duals for tensor in module.parameters())
    }
    for module, product in frozen.items():
        vars(module)["forward"] = partial(_through, module, product)
    try:
        with _OneSided():
            yield
    finally:
        for module in frozen:
            del vars(module)["forward"]
        network.set_attn_implementation(attention)
        network.set_experts_implementation(experts)


class _OneSided(TorchFunctionMode):
    """Carries out sums and products of a dual number and something constant."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if len(args) == 2 and not kwargs and name in _SUMS | _PRODUCTS:
            (left, left_moved), (right, right_moved) = map(_unpacked, args)
            if left_moved is None or right_moved is None:
                moved, constant = (left_moved, right) if right_moved is None else (right_moved, left)
                if moved is not None:
                    value = func(left, right)
                    moved = moved * constant if name in _PRODUCTS else moved
                    return forward_ad.make_dual(value, moved.to(value.dtype).expand(value.shape))
        return func(*args, **(kwargs or {}))


_SUMS, _PRODUCTS = {"add", "__add__", "__radd__"}, {"mul", "__mul__", "__rmul__"}
"""What torch calls them."""


def _unpacked(operand: Any) -> tuple[Any, torch.Tensor | None]:
    """The value and the tangent of an operand; numbers have none."""
    return forward_ad.unpack_dual(operand) if isinstance(operand, torch.Tensor) else (operand, None)


def _product(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """X ↦ x times the weight of a linear layer, without its bias; None for other modules."""
    if type(module) is torch.nn.Linear:
        return lambda x: torch.nn.functional.linear(x, module.weight)
    if isinstance(module, Conv1D):
        return lambda x: x @ module.weight
    if type(module).__name__ == "Linear4bit":
        return lambda x: torch.nn.functional.linear(x, _dequantised(module).to(x.dtype))
    return None


def _dequantised(module: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight.data, module.weight.quant_state)


def _through(module: Any, product: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A frozen linear layer of a value and its tangent at once: the weight is read one time for both."""
    value, tangent = forward_ad.unpack_dual(x)
    if tangent is None or forward_ad.unpack_dual(module.weight).tangent is not None:
        # An adapter may put a changed weight in the layer's place while it is called.
        return type(module).forward(module, x)
    left, moved = product(torch.cat([value, tangent])).chunk(2)
    bias = getattr(module, "bias", None)
    return forward_ad.make_dual(left if bias is None else left + bias, moved)
