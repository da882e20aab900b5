"""Makes a cache, shard by shard, and takes up where a stopped run left off."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import torch
import transformers

from explorer.engine import make_sketcher
from explorer.errors import CacheError, DataError, PromptError
from explorer.model import LanguageModel
from explorer.records import Encoded, Example
from explorer.store import (
    MANIFEST,
    Arrays,
    CacheSettings,
    Manifest,
    Store,
    check_room,
    create_cache,
    only_writer,
    open_cache,
)
from precompute.batching import fastest_batch
from precompute.dataset import data_hash
from precompute.estimate import Cost, estimate, volume
from precompute.sketches import sketch_shard
from precompute.token_gradients import token_rows, token_shard

EXAMPLES_PER_SHARD = 32
"""A stopped run loses at most so many examples' work."""
TOKEN_EXAMPLES_PER_SHARD = 4
"""The same for token sketches, which cost one backward pass a token."""

Report = Callable[[str, int, int], None]
"""Called with the stage (`examples`, `tokens`), how many are done, and how many there are."""

Announce = Callable[[Cost], None]
"""Called with what is still to be spent, measured on one example, before the first shard."""


def build_cache(
    model: LanguageModel,
    examples: Sequence[Example],
    folder: Path,
    settings: CacheSettings,
    tokens: int,
    data_name: str,
    report: Report = lambda stage, done, total: None,
    announce: Announce | None = None,
) -> Store:
    """Make the cache in `folder`, or finish it: the bytes are those of one undisturbed run.

    `tokens` says how many examples get per-token sketches. With `announce` the
    cost is measured first, and a disk without room for it refused. Raises
    DataError for an example the model can't read, MismatchError when the folder
    holds something else, CacheError when it can't be written.
    """
    encoded = [encode_example(model, example, row) for row, example in enumerate(examples)]
    with_tokens = min(tokens, len(examples))
    if not settings.batch and (folder / MANIFEST).is_file():
        settings = replace(settings, batch=open_cache(folder).manifest.settings.batch)
    manifest = _manifest(model, examples, folder, settings, with_tokens, data_name)
    check_room(folder, manifest)
    sketcher = make_sketcher(model, settings)
    if not settings.batch:
        settings = replace(settings, batch=fastest_batch(model, sketcher, settings, encoded))
        manifest = replace(manifest, settings=settings)
    if announce:
        announce(_cost(model, encoded, folder, settings, with_tokens))
    with only_writer(folder):
        store = create_cache(
            folder,
            manifest,
            _rows(model, examples, encoded),
        )
        pairs = list(enumerate(encoded))
        store = _fill(
            store,
            "sketches",
            pairs,
            EXAMPLES_PER_SHARD,
            lambda shard: sketch_shard(model, sketcher, settings, shard),
            lambda done: report("examples", done, len(pairs)),
        )
        chosen = token_rows(store, with_tokens)
        total = sum(encoded[row].response_length for row in chosen)
        norms = store.norms
        return _fill(
            store,
            "tokens",
            [(row, encoded[row]) for row in chosen],
            TOKEN_EXAMPLES_PER_SHARD,
            lambda shard: token_shard(model, sketcher, settings, norms, shard),
            lambda done: report("tokens", done, total),
        )


def _cost(
    model: LanguageModel, encoded: Sequence[Encoded], folder: Path, settings: CacheSettings, with_tokens: int
) -> Cost:
    """What is still to be spent. Raises CacheError when the disk hasn't room for it."""
    done, have = {"sketches": 0, "tokens": 0}, 0
    # Which examples get token sketches is known once all have their own.
    tokens = round(sum(item.response_length for item in encoded) * with_tokens / len(encoded))
    if (folder / MANIFEST).is_file():
        store = open_cache(folder)
        done = {kind: sum(shard.count for shard in store.shards_of(kind)) for kind in done}
        have = sum(shard.size for shard in store.shards)
        if store.complete:
            tokens = sum(encoded[row].response_length for row in token_rows(store, with_tokens))
    found = estimate(model, encoded, settings, tokens, (done["sketches"], done["tokens"]))
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())
    free = shutil.disk_usage(there).free
    if found.size - have > free:
        raise CacheError(
            f"The cache needs {volume(found.size)} and {there} has {volume(free)} free; "
            "give another folder, a smaller --k, --dtype int8, or fewer --tokens."
        )
    return found


def _fill(
    store: Store,
    kind: str,
    rows: Sequence[tuple[int, Encoded]],
    per_shard: int,
    make: Callable[[Sequence[tuple[int, Encoded]]], Iterator[Arrays | None]],
    report: Callable[[int], None],
) -> Store:
    """Make the missing shards of one kind, reporting after every unit of work."""
    done = sum(shard.count for shard in store.shards_of(kind))
    first = len(store.shards_of(kind)) * per_shard
    for start in range(first, len(rows), per_shard):
        arrays: Arrays | None = None
        for arrays in make(rows[start : start + per_shard]):
            if arrays is None:
                done += 1
                report(done)
        if arrays is not None:
            store = store.add_shard(kind, arrays, len(arrays["sketch"]))
    return store


def encode_example(model: LanguageModel, example: Example, row: int) -> Encoded:
    """The token ids of a training example. Raises DataError naming the row that the model can't read."""
    try:
        return model.encode(example.messages, example.response)
    except PromptError as problem:
        raise DataError(f"Row {row + 1} of the data: {problem}") from None


def _rows(model: LanguageModel, examples: Sequence[Example], encoded: Sequence[Encoded]) -> list[dict[str, object]]:
    return [
        {
            "prompt": example.prompt,
            "response": example.response,
            "ids": item.ids,
            "response_start": item.response_start,
            "tokens": model.tokens(item.ids[item.response_start :]),
            "columns": example.columns,
        }
        for example, item in zip(examples, encoded, strict=True)
    ]


def _manifest(
    model: LanguageModel,
    examples: Sequence[Example],
    folder: Path,
    settings: CacheSettings,
    with_tokens: int,
    data_name: str,
) -> Manifest:
    return Manifest(
        fingerprint=model.fingerprint,
        training=model.training,
        settings=settings,
        model=os.path.relpath(model.name, folder) if Path(model.name).is_dir() else model.name,
        adapter=os.path.relpath(model.adapter, folder) if model.adapter else "",
        template=model.template.name,
        data=data_name,
        data_sha256=data_hash(examples),
        rows=len(examples),
        token_rows=with_tokens,
        versions={
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "numpy": np.__version__,
        },
    )
