"""Other tensors in the place of a network's own, for as long as a call lasts.

`torch.func.functional_call` does the same and looks through the whole network
each time, which costs as much as a tenth of a forward pass where an adapter has
hundreds of tensors. Here the places are found once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch

Places = dict[str, list[tuple[torch.nn.Module, str]]]
"""Of every named parameter the modules that hold it, and what they call it; a tied one has several."""

_found: WeakKeyDictionary[torch.nn.Module, Places] = WeakKeyDictionary()


def places(network: torch.nn.Module) -> Places:
    """Where the network's parameters lie. A network whose modules change afterwards isn't looked through again."""
    if network not in _found:
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        found: Places = {name: [] for name in names.values()}
        for module in network.modules():
            for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                found[names[id(parameter)]].append((module, own))
        _found[network] = found
    return _found[network]


@contextmanager
def substituted(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within it, `tensors` stand in for the network's parameters of these names, wherever those are used."""
    own = places(network)
    replaced = [(module._parameters, key, module._parameters[key]) for name in tensors for module, key in own[name]]
    try:
        for name, tensor in tensors.items():
            for module, key in own[name]:
                # Unlike setattr, this takes tensors that aren't parameters: dual numbers, constants.
                module._parameters[key] = tensor  # type: ignore[assignment]
        yield
    finally:
        for parameters, key, parameter in replaced:
            parameters[key] = parameter
