"""Mixed precision: products with frozen weights in bfloat16, all else in float32.

A linear layer that nothing is trained of multiplies, forward and backward, with a weight that stays as it is. Where a
processor or GPU has units for bfloat16, such a product takes less than half of the time. The weight is rounded once,
what enters and what comes back each time, and a product to bfloat16 at its end. Adapters, attention, norms, activations
and losses stay in float32, and so do gradients and what an optimiser keeps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers.pytorch_utils import Conv1D

from explorer.errors import UnsupportedError

MIXED = "mixed"
"""What `--precision` calls it, where it else names the number format of the weights."""
_ROUNDED = torch.bfloat16

_known: WeakKeyDictionary[torch.nn.Module, tuple[object, torch.Tensor]] = WeakKeyDictionary()
"""The rounded weight of every layer that was ever computed so, and what tells whether it is still the layer's."""


def weights_in(precision: str) -> str:
    """The number format of the weights, as `load_model` takes it, where computing in this precision is asked for."""
    return "float32" if precision == MIXED else precision


@contextmanager
def mixed_precision(network: torch.nn.Module, wanted: bool = True) -> Iterator[None]:
    """Within it, the frozen linear layers of a float32 network multiply in bfloat16; nothing changes if not `wanted`.

    Raises UnsupportedError where it has no such layer.
    """
    layers = _frozen(network) if wanted else []
    if wanted and not layers:
        raise UnsupportedError(
            "Mixed precision is for models in float32 with an adapter, and this one has no frozen linear layer in "
            "float32; give another --precision."
        )
    for layer in layers:
        vars(layer)["forward"] = partial(_multiplied, layer, layer.weight, _rounded(layer))
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _frozen(network: torch.nn.Module) -> list[Any]:
    """The linear layers in float32 that nothing is trained of, and that belong to no adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    of_adapters = {part for each in adapters for part in set(each.modules()) - set(each.get_base_layer().modules())}
    return [
        module
        for module in network.modules()
        if (type(module) is torch.nn.Linear or isinstance(module, Conv1D))
        and module not in of_adapters
        and module.weight.dtype == torch.float32
        and not any(parameter.requires_grad for parameter in module.parameters())
    ]


def _rounded(layer: Any) -> torch.Tensor:
    """The weight in bfloat16, (out, in) whichever way the layer has it."""
    weight = layer.weight.detach()
    state = (weight.data_ptr(), weight.device, layer.weight._version)
    if layer not in _known or _known[layer][0] != state:
        _known[layer] = state, (weight.T if isinstance(layer, Conv1D) else weight).to(_ROUNDED).contiguous()
    return _known[layer][1]


def _multiplied(layer: Any, weight: torch.Tensor, rounded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if layer.weight is not weight:
        # Another tensor stands in for it meanwhile.
        found: torch.Tensor = type(layer).forward(layer, x)
        return found
    product = torch.nn.functional.linear(x.to(_ROUNDED), rounded).to(x.dtype)
    return product if layer.bias is None else product + layer.bias


def has_units(device: torch.device) -> bool:
    """Whether a processor or GPU has units of its own for bfloat16, as far as torch knows."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Earlier versions of torch don't say it of processors.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(value is True and name.endswith("bf16") for name, value in known.items())
