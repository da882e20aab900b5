"""Loads a base model, puts an adapter on it, and names what is trainable."""

import hashlib
import inspect
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from explorer.errors import ModelError, UnsupportedError, first_line
from explorer.model import embedded
from explorer.model.adapter import CONFIG, Adapted, resize_as_trained, with_adapter
from explorer.model.checkpoints import recorded_template, refuse_other_base, taken_at
from explorer.model.files import (
    as_ours,
    folder_hash,
    is_constant,
    read_object,
    refuse_codes,
    refuse_infinite,
    refuse_unequal,
    stored_tensors,
    weight_files,
)
from explorer.model.language_model import LanguageModel
from explorer.model.reader import load_tokenizer
from explorer.model.sequences import Habits, Template, habits
from explorer.model.way import no_way, whole_way
from explorer.records import Fingerprint, TrainingRecord

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "4bit")
"""Number formats of the weights: as they are stored, converted, or quantised to 4 bits (QLoRA's NF4)."""

_Tensors = dict[str, torch.nn.Parameter]


def load_model(
    name: str = embedded.NAME,
    adapter: str | Path | None = None,
    template: str = "auto",
    device: str | None = None,
    say: embedded.Say = lambda line: None,
    checkpoints: str = "final",
    precision: str = "auto",
    tensors: str | None = "",
    base: str = "",
    checked: bool = False,
    training: TrainingRecord | None = None,
) -> LanguageModel:
    """Load a base model, put the adapter on it, and name what is trainable.

    `name` is the embedded model's name, a folder, or a model hub id; `adapter`
    a PEFT adapter folder; `checkpoints` says where gradients are taken: `final`,
    `all` that the training record lists, or names with commas, of those or of
    points on the way from the base, such as `25%`;
    `precision` is one of `PRECISIONS` (or `float64`, for reference); `tensors` a
    regular expression that the names of the tensors have to match of which
    gradients are taken, of all where it is empty, with None of those that move on
    the way from the base; `base` the model that `name` was fine-tuned from, where
    that has no adapter; `checked` that the fingerprint will be compared with
    that of a cache, which tells bases apart better than their names do; `training` what is
    known of the training where no record lies beside the adapter. Weights are read from
    safetensors only. Raises ModelError, saying what to give instead,
    and UnsupportedError for a kind of model or adapter that this can't work with.
    """
    folder = _resolve(name, say)
    device = _device(device)
    path = Path(adapter) if adapter is not None else None
    base_hash = folder_hash(folder, "*.safetensors")
    if path is not None:
        refuse_other_base(path, name, base_hash, (lambda line: None) if checked else say)
    network, answers = _base(name, folder, device, precision)
    if path is not None and resize_as_trained(network, path):
        answers = _answers(network)
    rows = network.get_input_embeddings().weight.shape[0]
    tokenizer, tokenizer_hash = load_tokenizer(folder, path, rows)
    adapted = Adapted(network, no_way(f"all parameters of {name} were trained, and the base isn't given (--base)"), {})
    if path is not None:
        adapted = with_adapter(network, path, name, say)
    elif _quantisation(network.config):
        raise ModelError(f"{name} is quantised: its own weights have no gradients; give the --adapter trained on it.")
    network, way = adapted.network, adapted.way
    if precision == "float64":
        # An adapter's own tensors come in the format of its file.
        network.double()
    network.eval()
    for module in network.modules():
        # Backward passes drop the padding token's embedding, forward mode doesn't; padding carries no loss anyway.
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if not trainable:
        raise ModelError(
            f"{f'The adapter {path}' if path else name} has no tensors that can be trained, "
            "so there is nothing to take gradients of; give another."
        )
    origin = _resolve(base, say) if base else None
    if origin:
        if adapter is not None:
            raise ModelError("An adapter's base is the model itself; give --base only for a model without an adapter.")
        way = whole_way(origin, network, name)
    pattern = way.tensors if tensors is None else tensors
    trainable, held = _chosen(trainable, pattern)
    chosen = Template(recorded_template(path, template), tokenizer)
    written = habits(tokenizer, chosen)
    if written.unlike_prompt:
        say(
            f"the template ends a prompt with {written.unlike_prompt!r}, which trained rows don't have there: "
            "the model answers behind it, and what is given or trained is read without it"
        )
    loaded = LanguageModel(
        network=network,
        tokenizer=tokenizer,
        template=chosen,
        trainable=trainable,
        checkpoints=(),
        training=TrainingRecord(),
        fingerprint=Fingerprint(
            base=base_hash,
            adapter=folder_hash(path, "adapter_*") if path else "",
            tokenizer=tokenizer_hash,
            template=_template_hash(chosen, written),
            precision="4bit" if _quantisation(network.config) else str(network.dtype).removeprefix("torch."),
            layout=(),
            start=folder_hash(origin, "*.safetensors") if origin else "",
        ),
        name=name,
        adapter=str(adapter or ""),
        base=base,
        way=way,
        held=held,
        tensors=pattern,
        end=written.end,
        originals=adapted.originals,
        lost_base=_computed_otherwise(network.config, origin) if origin else "",
    )
    if path is not None:
        loaded = _with_known_base(loaded, answers)
    return taken_at(loaded, checkpoints, training)


def with_template(model: LanguageModel, name: str) -> LanguageModel:
    """The model with another template, named as `load_model` takes it. Raises ModelError where there is none."""
    chosen = Template(name, model.tokenizer)
    written = habits(model.tokenizer, chosen)
    fingerprint = replace(model.fingerprint, template=_template_hash(chosen, written))
    return replace(model, template=chosen, end=written.end, fingerprint=fingerprint)


def _template_hash(template: Template, written: Habits) -> str:
    """A SHA-256 that tells templates apart, and caches of earlier versions where those made other sequences."""
    version = "" if written.as_before else "\nthe whole conversation"
    return hashlib.sha256(f"{template.is_chat}\n{template.text}{version}".encode()).hexdigest()


_NOT_COMPUTED_WITH = re.compile(
    r"_name_or_path|architectures|transformers_version|(torch_)?dtype|use_cache|.*_token_id|max_position_embeddings"
    r"|.*dropout|initializer_range|_attn_implementation.*"
)


def _computed_otherwise(config: Any, base: Path) -> str:
    """Why the base's tensors in this network aren't the base, as the end of a sentence; empty where they are."""
    if not (base / "config.json").is_file():
        return ""
    from transformers import AutoConfig

    with as_ours(f"The base {base} can't be read"):
        own, other = config.to_dict(), AutoConfig.from_pretrained(base, trust_remote_code=False).to_dict()
    unlike = [key for key in sorted(own.keys() | other.keys()) if own.get(key) != other.get(key)]
    unlike = [key for key in unlike if not _NOT_COMPUTED_WITH.fullmatch(key)]
    return f"its config.json says otherwise how to compute ({', '.join(unlike)})" if unlike else ""


def _with_known_base(model: LanguageModel, expected: torch.Tensor) -> LanguageModel:
    """The model; where it can't do without its adapter what the base did before, it says that it has no base."""
    with model.without_adapter():
        found = _answers(model.network)
    allowed = 1e-5 if found.dtype in (torch.float32, torch.float64) else 1e-2
    if torch.allclose(found.log_softmax(-1), expected.log_softmax(-1), rtol=0, atol=allowed):
        return model
    return replace(model, lost_base="this kind of adapter changes the base, and doesn't give it back")


def _answers(network: Any, last: int = -1) -> torch.Tensor:
    """The logits behind each of a few tokens from all of the vocabulary, or of others, with another `last` one."""
    rows = network.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(0, rows - 1, 8).long()
    ids[-1] = last % rows
    with torch.no_grad():
        logits: torch.Tensor = network(input_ids=ids[None].to(network.device), use_cache=False).logits[0]
        return logits


def _chosen(trainable: _Tensors, pattern: str) -> tuple[_Tensors, _Tensors]:
    """The tensors that gradients are taken of, and those held constant. Raises ModelError when none is left."""
    try:
        wanted = re.compile(pattern)
    except re.error as problem:
        raise ModelError(f"{pattern} is no regular expression ({problem}).") from None
    chosen = {name: tensor for name, tensor in trainable.items() if wanted.search(name)}
    if not chosen:
        raise ModelError(f"No trainable tensor's name matches {pattern}; the first one's is {next(iter(trainable))}.")
    held = {name: tensor for name, tensor in trainable.items() if name not in chosen}
    for tensor in held.values():
        tensor.requires_grad_(False)
    return chosen, held


def _resolve(name: str, say: embedded.Say) -> Path:
    if name == embedded.NAME:
        return embedded.embedded_model(say)
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"There is no model folder {name}; --model takes {embedded.NAME}, a folder or a hub id.")
    from huggingface_hub import snapshot_download

    say(f"looking for {name} on the model hub")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]))
    except Exception as problem:
        raise ModelError(
            f"{name} is no folder here, and the model hub did not give it ({first_line(problem)}). "
            f"Give a folder that holds the model, or {embedded.NAME}, which needs no hub."
        ) from problem


def _device(device: str | None) -> str:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise ModelError(f"The device {device} can't be used here ({first_line(problem)}); give cpu.") from None
    return device


def _base(name: str, folder: Path, device: str, precision: str) -> tuple[Any, torch.Tensor]:
    """The base model, with the numbers that its files hold and no others, and what it answers to a few tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if precision not in (*PRECISIONS, "float64"):
        raise ModelError(f"{precision} is no precision; it is one of {', '.join(PRECISIONS)}.")
    options: dict[str, Any] = {"dtype": precision}
    if precision == "float64":
        # Grouped products of experts' weights know no float64.
        options["experts_implementation"] = "eager"
    if precision == "4bit":
        options = _four_bit(device)
    _refuse_no_model(name, folder)
    failed = f"{name} can't be loaded as a causal language model"
    with as_ours(failed):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.is_encoder_decoder:
        kind = type(config).__name__.removesuffix("Config")
        raise UnsupportedError(f"{name} is a {kind}, an encoder-decoder; give a decoder-only language model.")
    if (method := _quantisation(config)) not in ("", "bitsandbytes"):
        raise UnsupportedError(f"{name} is quantised by {method}; give the unquantised model and --precision 4bit.")
    stored = stored_tensors(weight_files(folder))
    with as_ours(failed, stored), _quiet_transformers():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    network, report = loaded
    constant = is_constant(network)
    surplus = [own for own in report["unexpected_keys"] if not constant(own)]
    unequal = {own: (tuple(there), tuple(here)) for own, there, here in report["mismatched_keys"]}
    refuse_unequal(name, stored, report["missing_keys"] - unequal.keys(), surplus, unequal)
    if not _quantisation(config):
        refuse_codes(name, stored, lambda own: not constant(own))
    refuse_infinite(name, network.named_parameters())
    if not _quantisation(network.config):
        with as_ours(failed):
            network = network.to(device)
    for module in network.modules():
        # On processors bitsandbytes would reorder 4-bit weights for a kernel without derivatives.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    kind = type(network).__name__
    if "logits_to_keep" not in inspect.signature(network.forward).parameters:
        raise UnsupportedError(f"{name} is a {kind}, which can't give logits for some positions alone; give another.")
    answers, others = _answers(network.eval()), _answers(network, last=0)
    if not torch.allclose(answers[:-1], others[:-1], rtol=1e-2, atol=1e-3 * float(answers.abs().max())):
        raise UnsupportedError(f"{name} is a {kind}, whose tokens look ahead; give a model that reads left to right.")
    return network, answers


def _refuse_no_model(name: str, folder: Path) -> None:
    """Raise ModelError for a folder whose configuration isn't that of a model."""
    if (folder / CONFIG).is_file():
        raise ModelError(
            f"{name} holds an adapter ({CONFIG}); give its base as --model, and the folder as --adapter. "
            "Where it holds a whole model, too, give that from a folder of its own."
        )
    read_object(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        # transformers takes a damaged one for a missing one.
        read_object(folder / "generation_config.json")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep from the terminal progress, and the report of what doesn't fit, which is refused here."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _four_bit(device: str) -> dict[str, Any]:
    """The options that load a base as QLoRA does: 4-bit NormalFloat, doubly quantised (arXiv 2305.14314)."""
    try:
        import accelerate  # noqa: F401
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ModelError("4-bit models need bitsandbytes and accelerate; install rapidin-explorer[qlora].") from None
    from transformers import BitsAndBytesConfig

    computed_in = torch.bfloat16 if device.startswith("cuda") else torch.float32
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed_in,
    )
    return {"dtype": computed_in, "quantization_config": config, "device_map": {"": device}}


def _quantisation(config: Any) -> str:
    """The method a network of this configuration is quantised by, or an empty text."""
    kept = getattr(config, "quantization_config", None)
    method = kept.get("quant_method", "") if isinstance(kept, dict) else getattr(kept, "quant_method", "")
    return str(getattr(method, "value", method))
