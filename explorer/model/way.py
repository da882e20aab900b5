"""The straight way from the base to the fine-tuned model, and the trained tensors at any point of it.

A converged model has hardly any gradient left on what it learnt; part of the way there it still has. A point of the way
is θ(α) = θ₀ + α (θ − θ₀), with α = 0 at the base and 1 at the fine-tuned model. Where an adapter multiplies several
tensors to get its change of the weights, one of them is scaled by α and the others are kept, which scales the change.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from explorer.errors import ModelError
from explorer.model.files import (
    counted,
    is_constant,
    refuse_codes,
    refuse_infinite,
    stored_tensors,
    tensor_of,
    tensors_of,
    weight_files,
)

_POINT = re.compile(r"(\d+(?:\.\d+)?)%")


def point_name(alpha: float) -> str:
    """What a point is called among the moments at which gradients are taken: `25%` where α is 0.25."""
    return f"{100 * alpha:.4g}%"


def point_of(name: str) -> float | None:
    """α of a point's name; None for a name that is none. Raises ModelError for one beyond the end of the way."""
    found = _POINT.fullmatch(name)
    if not found:
        return None
    alpha = float(found[1]) / 100
    if alpha > 1:
        raise ModelError(f"{name} lies beyond the fine-tuned model; points on the way are 0% to 100%.")
    return alpha


@dataclass(frozen=True)
class Way:
    """How the trained tensors go from the base to the fine-tuned model."""

    start: Callable[[str, torch.Tensor], torch.Tensor | None]
    """Where a trained tensor of this name and value is at the base; None for one that is kept all the way."""
    tensors: str = ""
    """A regular expression for the tensors that move, which gradients are taken of unless others are asked for."""
    unknown: str = ""
    """Why there is no such way for this model, as the end of a sentence; empty where there is one."""

    def at(self, alpha: float, trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The trained tensors at a point. Raises ModelError where the way isn't known."""
        if self.unknown:
            raise ModelError(f"No point on the way from a base can be taken: {self.unknown}. Give --checkpoints final.")
        with torch.no_grad():
            return {name: self._moved(alpha, name, tensor) for name, tensor in trained.items()}

    def _moved(self, alpha: float, name: str, tensor: torch.Tensor) -> torch.Tensor:
        start = self.start(name, tensor)
        if start is None:
            return tensor.detach()
        if alpha == 0:
            return start.detach().to(tensor.device, tensor.dtype)
        return torch.lerp(start.to(tensor.device, tensor.dtype), tensor.detach(), alpha)


def no_way(why: str) -> Way:
    """For a model of which the way isn't known."""
    return Way(lambda name, tensor: None, unknown=why)


def whole_way(base: Path, network: Any, name: str) -> Way:
    """The way of a wholly fine-tuned model, or of one that an adapter was merged into, from the base in a folder.

    The base's tensors are read one by one when they are needed. Raises ModelError where they aren't the model's.
    """
    stored = stored_tensors(weight_files(base))
    trained = dict(network.named_parameters())
    known, constant = network.state_dict(), is_constant(network)
    other = [own for own, tensor in trained.items() if own not in stored or stored[own].shape != tuple(tensor.shape)]
    other += [own for own in stored if own not in known and not constant(own)]
    if other:
        raise ModelError(
            f"{base} isn't the base of {name}: only one of them has {counted(other, 'tensor')}, "
            f"or they are of different shapes. The model has {len(trained):,}, the base {len(stored):,}."
        )
    refuse_codes(str(base), stored, trained.__contains__)
    refuse_infinite(str(base), tensors_of(stored))

    return Way(lambda own, tensor: tensor_of(stored, own))


_STARTS: dict[str, dict[str, float]] = {
    "LORA": {"lora_B": 0, "lora_embedding_A": 0},
    "LOHA": {"hada_w2_b": 0},
    "LOKR": {r"lokr_w1(_a)?\.": 0},
    "VERA": {"vera_lambda_b": 0},
    "IA3": {"ia3_l": 1},
}
"""What changes nothing: for each kind of adapter the tensors that are scaled, and their value at the base."""
FROM_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""LoRA's initialisations that change the base's weights, too: B = 0 isn't the base there."""
_MAGNITUDE, _SAVED, _TOKENS = "lora_magnitude_vector", "modules_to_save", "trainable_tokens_delta"


def adapter_way(network: Any, biases: Mapping[str, torch.Tensor], folder: str) -> Way:
    """The way of a PEFT adapter; `biases` are the base's own where the adapter changes those."""
    config = network.peft_config[network.active_adapter]
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    start = str(getattr(config, "init_lora_weights", ""))
    if kind not in _STARTS or start.startswith(FROM_WEIGHTS):
        what = f"initialised by {start}" if kind in _STARTS else f"of the kind {kind}"
        return no_way(f"the adapter {folder} is {what}, where the way from the base isn't known")
    names = [name for name, tensor in network.named_parameters() if tensor.requires_grad]
    known = [*_STARTS[kind], _MAGNITUDE, _SAVED, _TOKENS, *([r"\.bias$"] if biases else [])]
    moving = [pattern for pattern in known if any(re.search(pattern, name) for name in names)]
    return Way(_Starts(network, _STARTS[kind], biases), "|".join(moving))


class _Starts:
    """Where the tensors of an adapter are at the base."""

    def __init__(self, network: Any, constants: Mapping[str, float], biases: Mapping[str, torch.Tensor]):
        self._network, self._constants, self._biases = network, constants, biases

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if _SAVED in name:
            return self._of_network(re.sub(rf"{_SAVED}\.[^.]+", "original_module", name))
        if _TOKENS in name:
            return self._of_network(name.replace(_TOKENS, "trainable_tokens_original"))
        if _MAGNITUDE in name:
            layer, dora = name.split(f".{_MAGNITUDE}")[0], name.removesuffix(".weight")
            return _magnitude(self._network.get_submodule(dora), self._network.get_submodule(layer))
        for pattern, value in self._constants.items():
            if re.search(pattern, name):
                return torch.full_like(tensor, value)
        return self._biases.get(name.removeprefix("base_model.model.").replace(".base_layer.", "."))

    def _of_network(self, name: str) -> torch.Tensor:
        where, _, own = name.rpartition(".")
        found: torch.Tensor = getattr(self._network.get_submodule(where), own)
        return found.detach()


def _magnitude(dora: Any, layer: Any) -> torch.Tensor:
    """The norms that DoRA's magnitudes begin with: those of the base's own weights."""
    from peft.utils.integrations import dequantize_module_weight

    norms: torch.Tensor = dora.get_weight_norm(dequantize_module_weight(layer.get_base_layer()), 0.0, 0.0)
    return norms.detach()
