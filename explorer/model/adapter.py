"""Puts a PEFT adapter on a base, whole or not at all, and keeps what loading it changed of the base."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from explorer.errors import ModelError, UnsupportedError
from explorer.model.embedded import Say
from explorer.model.files import (
    Stored,
    as_ours,
    read_object,
    refuse_codes,
    refuse_infinite,
    refuse_unequal,
    stored_tensors,
    tensor_of,
)
from explorer.model.way import FROM_WEIGHTS, Way, adapter_way

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FROM_DATA = ("corda", "lora_ga")
"""Initialisations that change the base's weights by something that isn't kept beside the adapter."""
_BASE = "base_model.model."


@dataclass(frozen=True)
class Adapted:
    """A base with an adapter whose tensors are trainable."""

    network: Any
    way: Way
    """How the adapter's tensors go from the base to what was trained."""
    originals: dict[str, torch.Tensor]
    """The base's own tensors where loading the adapter put others into their place, by the network's names."""


def with_adapter(network: Any, path: Path, name: str, say: Say) -> Adapted:
    """The base `network`, called `name`, with the adapter in a folder.

    Raises ModelError unless the file holds exactly the tensors that the adapter's configuration describes,
    UnsupportedError for a kind of adapter that this can't work with.
    """
    import peft

    stored = _weights(path)
    kind = read_object(path / CONFIG).get("peft_type")
    if kind not in peft.PeftType.__members__:
        raise UnsupportedError(f"{path / CONFIG} names the kind {kind}, which peft {peft.__version__} doesn't know.")
    with as_ours(f"The adapter {path} can't be read"):
        config = peft.PeftConfig.from_pretrained(str(path))
    _refuse_kind(config, path)
    start = str(getattr(config, "init_lora_weights", ""))
    if start.startswith("pissa_niter"):
        say(f"{path} began at {start}, which is drawn at random: it lies on another draw than it was trained on")
    _refuse_strangers(path, stored)
    watched = _copies(network, None if start.startswith(FROM_WEIGHTS) else stored)
    # The adapter's own take the place of the base's, which are small.
    changes_biases = getattr(config, "bias", "none") != "none"
    biases = {own: kept for own, (_, kept) in watched.items() if changes_biases and own.endswith("bias")}
    with as_ours(f"The adapter {path} doesn't fit {name}", stored), quiet_peft(), _always_the_same(network.device):
        network = peft.PeftModel.from_pretrained(
            network, str(path), config=config, is_trainable=True, ignore_mismatched_sizes=True
        )
        _refuse_others(network, path, stored)
        names = {id(tensor): own for own, tensor in network.named_parameters()}
        originals = {
            names[id(tensor)]: kept.to(tensor.device)
            for tensor, kept in watched.values()
            if id(tensor) in names and not torch.equal(tensor.detach().cpu(), kept)
        }
        return Adapted(network, adapter_way(network, biases, str(path)), originals)


def resize_as_trained(network: Any, path: Path) -> bool:
    """Give the base as many embeddings as it had when the adapter in a folder was trained; whether it had others.

    That is known where the adapter's file holds embeddings as a whole, and an output's where that has its own. Added
    tokens are given what they had before the training, where the file says so, or else the mean of the base's own.
    """
    entry, output = network.get_input_embeddings(), network.get_output_embeddings()
    own, width = entry.weight.shape
    stored = {name: tensor for name, tensor in _weights(path).items() if tensor.shape[1:] == (width,)}
    names = {id(module): name for name, module in network.named_modules()}
    tied = output is None or output.weight is entry.weight
    ends = [names[id(end)] for end in ((entry,) if tied else (entry, output))]
    found = [{stored[kept].shape[0] for kept in _kept_as(name, stored, _WHOLE)} for name in ends]
    sizes = set[int]().union(*found)
    if not all(found) or len(sizes) > 1 or sizes == {own}:
        return False
    network.resize_token_embeddings(sizes.pop(), mean_resizing=False)
    replaced = read_object(path / CONFIG).get("modules_to_save") or ()
    for name in ends:
        was_trained = name.rpartition(".")[2] in replaced
        begun = _kept_as(name, stored, _BEGINNINGS if was_trained else (*_BEGINNINGS, "weight"))
        weight = network.get_submodule(name).weight
        with torch.no_grad():
            weight[own:] = tensor_of(stored, begun[0])[own:] if begun else weight[:own].mean(0)
    return True


_BEGINNINGS = ("original_module.weight", "token_adapter.base_layer.weight", "base_layer.weight")
"""What peft calls embeddings as they were before the training, behind the module's name."""
_WHOLE = ("weight", "modules_to_save.weight", *_BEGINNINGS)
"""And all that it calls whole embeddings."""


def _kept_as(module: str, stored: Mapping[str, Stored], ends: Sequence[str]) -> list[str]:
    """The names of a module's tables that an adapter's file holds."""
    names = (f"{_BASE}{module}.{end}" for end in ends)
    return [name for name in names if name in stored]


def _weights(path: Path) -> dict[str, Stored]:
    """What the adapter's file holds. Raises ModelError where there is none that can be read."""
    if (path / WEIGHTS).is_file():
        return stored_tensors([path / WEIGHTS])
    if (path / "adapter_model.bin").is_file():
        raise ModelError(
            f"{path} keeps its weights in adapter_model.bin, and only safetensors are read, which run no code. "
            "Convert it: load the adapter with peft, and save it with save_pretrained."
        )
    raise ModelError(
        f"{path} holds no {WEIGHTS}; --adapter takes the folder of a PEFT adapter, "
        "as `rapidin-explorer finetune` writes it."
    )


def _refuse_kind(config: Any, path: Path) -> None:
    kind = getattr(config.peft_type, "value", config.peft_type)
    if config.is_prompt_learning:
        raise UnsupportedError(
            f"The adapter {path} is of the kind {kind}, which adds virtual tokens to the prompt; "
            "give one that changes weights, such as LoRA."
        )
    start = str(getattr(config, "init_lora_weights", ""))
    if start.startswith(_FROM_DATA):
        raise UnsupportedError(
            f"The adapter {path} began at {start}, which changed the base's weights by data that isn't kept. Save it "
            "again with path_initial_model_for_weight_conversion; or, where --model is the base as that left it, "
            f"write true for init_lora_weights in {CONFIG}."
        )


def _refuse_strangers(path: Path, stored: Mapping[str, Stored]) -> None:
    """Raise ModelError for what peft would stumble over without saying which tensor it was."""
    if named := {name for name in stored if name.startswith("base_model.")}:
        refuse_unequal(f"The adapter {path}", stored, (), stored.keys() - named, {})
    refuse_codes(f"The adapter {path}", stored, lambda name: stored[name].dtype.startswith("F"))


def _copies(network: Any, stored: Mapping[str, Stored] | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The base's tensors that an adapter's file has tensors for, or all, with a copy of each, by the base's names."""
    own = None if stored is None else {name.removeprefix(_BASE).replace(".base_layer.", ".") for name in stored}
    return {
        name: (tensor, tensor.detach().to("cpu", copy=True))
        for name, tensor in network.named_parameters(remove_duplicate=False)
        if tensor.is_floating_point() and (own is None or name in own)
    }


def _refuse_others(network: Any, path: Path, stored: Mapping[str, Stored]) -> None:
    """Raise ModelError unless the adapter's file held just what the network takes of it."""
    from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    # Loaded once more, for only so peft tells which tensors it didn't find, and which it left out.
    renamed = getattr(network.get_base_model(), "_checkpoint_conversion_mapping", {})
    weights = load_peft_weights(str(path), device="cpu", key_mapping=renamed)
    result: Any = set_peft_model_state_dict(network, weights, ignore_mismatched_sizes=True)
    known = network.state_dict()
    taken = get_peft_model_state_dict(network, known, save_embedding_layers=False)
    unequal = {
        name: (tensor.shape, tuple(expected.shape))
        for name, tensor in stored.items()
        if (expected := taken.get(name, known.get(name))) is not None and tuple(expected.shape) != tensor.shape
    }
    names = {id(tensor): name for name, tensor in taken.items()}
    lost = set(result.missing_keys)
    found = {tensor.data_ptr() for name, tensor in known.items() if name not in lost}
    missing = {
        names[id(known[name])]
        for name in lost
        # A shared one is there under its other name.
        if id(known[name]) in names and known[name].data_ptr() not in found
    }
    # Where several tensors become one, peft looks at the beginnings of their names alone.
    parts = {part for name in taken for part in name.split(".")}
    surplus = {*result.unexpected_keys, *(name for name in stored if name.rpartition(".")[2] not in parts)}
    what = f"The adapter {path}"
    # peft writes whole embeddings twice where it isn't sure that they are those of the base.
    surplus = {name for name in surplus if not (name.endswith(_TWICE) and _is_copy(name, weights, taken))}
    refuse_unequal(what, stored, missing - unequal.keys(), surplus, unequal)
    refuse_codes(what, stored, lambda name: name not in taken or taken[name].is_floating_point())
    refuse_infinite(what, weights.items())


_TWICE = (".modules_to_save.weight", ".trainable_tokens_delta")


def _is_copy(name: str, weights: Mapping[str, torch.Tensor], taken: Mapping[str, torch.Tensor]) -> bool:
    """Whether one of the tensors that are taken of a file says the same."""
    return any(torch.equal(weights[name], weights[other]) for other in weights if other != name and other in taken)


@contextmanager
def _always_the_same(device: torch.device) -> Iterator[None]:
    """Within it random numbers begin at the same place, and behind it where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep from the terminal what peft warns of and is no news, or is refused here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Found missing adapter keys", category=UserWarning)
        warnings.filterwarnings("ignore", message="Some weights of .* were not initialized", category=UserWarning)
        warnings.filterwarnings("ignore", message="Careful, disabling adapter layers", category=UserWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but", category=UserWarning)
        yield
