"""The fine-tuned model beside the one that it was before, where a cache is of what that was trained on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from explorer.cache import Store, open_cache
from explorer.engine import FineTuned
from explorer.errors import CacheError, MismatchError, UnsupportedError, first_line
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.way import Way

_MEND = "give the cache of the fine-tuning that followed with `rapidin-explorer precompute --followed-by`"


def fine_tuned(store: Store, base: LanguageModel, load: Callable[[Store], LanguageModel]) -> FineTuned | None:
    """What became of the model of a cache; None where no fine-tuning is known to have followed.

    `load` loads the model of a cache. Raises CacheError, ModelError, UnsupportedError or MismatchError, each saying
    what to do.
    """
    kept = store.manifest.followed_by
    if kept is None:
        return None
    folder = (store.folder / kept.cache).resolve()
    if not folder.is_dir():
        raise CacheError(
            f"{store.folder} was followed by the fine-tuning cached in {folder}, which isn't there; {_MEND}."
        )
    later = open_cache(folder)
    later.require_complete()
    if (later.manifest.outcome, later.manifest.data_sha256) != (kept.model, kept.data):
        raise MismatchError(f"{folder} is another cache than when {store.folder} was made; {_MEND}.")
    tuned = load(later)
    later.check_model(tuned.fingerprint)
    if tuned.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        raise MismatchError(f"{folder} is of a model with other tokens than {base.name}, so its answers can't be read.")
    return FineTuned(merged(tuned, base), later)


def merged(tuned: LanguageModel, base: LanguageModel) -> LanguageModel:
    """A fine-tuned model as one of the base's tensors alone: gradients are taken of those that the base's are.

    A LoRA adapter, or a relative, is merged into the weights, which loses it. Raises UnsupportedError where that can't
    be, or the tensors are others.
    """
    network: Any = tuned.network
    if tuned.adapter:
        if tuned.fingerprint.precision == "4bit":
            raise UnsupportedError(f"{tuned.name} is quantised, so {tuned.adapter} can't be merged into its weights.")
        try:
            network = network.merge_and_unload()
        except Exception as problem:
            # Kinds of adapters say in their own ways that they have no weights to be merged into.
            raise UnsupportedError(f"{tuned.adapter} can't be merged into its base ({first_line(problem)}).") from None
    (*_, point), own = base.checkpoints, dict(network.named_parameters())
    for name, tensor in base.network.named_parameters():
        if name not in own or own[name].shape != tensor.shape:
            raise UnsupportedError(
                f"{tuned.name} with {tuned.adapter or 'all its parameters'} has no tensor {name} of the base's shape, "
                "so gradients of the two can't be multiplied."
            )
    for name, tensor in own.items():
        tensor.requires_grad_(name in point.tensors)
    chosen = {name: own[name] for name in point.tensors}
    beside = dict(base.network.named_parameters())
    return replace(
        tuned,
        network=network,
        trainable=chosen,
        held={name: tensor for name, tensor in own.items() if name not in chosen},
        checkpoints=(Checkpoint(point.name, dict(chosen)),),
        fingerprint=replace(tuned.fingerprint, layout=base.fingerprint.layout),
        adapter="",
        base=base.name,
        way=Way(lambda name, tensor: beside[name]),
        originals={},
        lost_base="",
        tensors=base.tensors,
    )
