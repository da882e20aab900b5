"""Makes a cache, or appends to it, shard by shard, and takes up where a stopped run left off."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import peft
import pyarrow as pa
import torch
import transformers

from explorer.cache import CacheSettings, FollowedBy, Manifest, Part, Shard, Store, create_cache, open_cache
from explorer.cache.files import only_writer
from explorer.cache.generations import begin, commit, pending, resumable, sweep
from explorer.cache.manifest import MANIFEST
from explorer.cache.store import check_room, load
from explorer.cache.table import GAPS, SYSTEM, examples_table, joined_tables
from explorer.engine import make_sketcher
from explorer.errors import CacheError, MismatchError
from explorer.gradients import Sketcher
from explorer.model.language_model import LanguageModel
from explorer.records import LAST_ANSWER, Conversation, Counting, Encoded, Example, Token, said
from precompute.batching import fastest_batch
from precompute.data import data_hash, readable
from precompute.estimate import Cost, estimate, volume
from precompute.executor import Executor, InProcess
from precompute.filling import Maker, Report, ignored
from precompute.nulls import add_nulls, lacking, mend_nulls
from precompute.sketches import named_as_in, token_rows

EXAMPLES_PER_SHARD = 32
"""The least examples a shard holds; a stopped run loses at most one shard's work."""
TOKEN_EXAMPLES_PER_SHARD = 4
"""The same for token sketches, which cost one backward pass a token; both grow alike."""
MOST_SHARDS = 512
"""Above so many shards of sketches they grow instead: the manifest is written anew with every shard."""
MOST_SHARDS_EARLY = 4 * MOST_SHARDS
"""The same where someone reads the cache while it is made."""
SHARD_BYTES = 1 << 28
"""They grow no further than so many bytes: a shard is made, and goes from one process to another, in memory."""

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
    null_prompts: int = 0,
    executor: Executor | None = None,
    encoded: Sequence[Encoded] | None = None,
    counting: Counting = LAST_ANSWER,
    followed_by: FollowedBy | None = None,
    listed: Callable[[Store], None] | None = None,
) -> Store:
    """Make the cache in `folder`, or finish and mend it: the bytes are those of one undisturbed run.

    `tokens` says how many examples get per-token sketches, `null_prompts` on
    how many unrelated prompts all are scored. With `announce` the cost is
    measured first, and a disk without room for it refused. Sketches are made by
    the `executor`, or else in this process with `model`. `encoded` are the
    examples' token ids, where they are known, and `counting` says which of these
    are in the loss; `followed_by` says which fine-tuning followed, where one did. `listed` is called with the cache
    whenever examples, or their tokens, were added, and once before where it holds some already; its files are then
    smaller, so that this is soon.
    Raises DataError for examples the model can't read, MismatchError when the
    folder holds something else, CacheError when it can't be written.
    """
    if encoded is None:
        examples, encoded = readable(model, examples, counting=counting)
    with_tokens = min(tokens, len(examples))
    settings = _resolved(settings, folder, len(examples), MOST_SHARDS if listed is None else MOST_SHARDS_EARLY)
    manifest = _manifest(model, examples, folder, settings, with_tokens, data_name, counting)
    found = check_room(folder, manifest)
    sketcher = make_sketcher(model, settings)
    if not settings.batch:
        settings = replace(settings, batch=fastest_batch(model, sketcher, settings, encoded))
        manifest = replace(manifest, settings=settings)
    executor = executor or InProcess(model, sketcher)
    if announce:
        # Which examples get token sketches is known once all have their own.
        wanted = _token_count(encoded, found, with_tokens) or round(_mean_length(encoded) * with_tokens)
        nulls = (found.null_prompts if found else 0) or null_prompts
        nulls_left = not (found and found.null_prompts) or any(
            lacking(found.shard_arrays(shard)) for shard in found.shards_of("nulls")
        )
        cost = _cost(model, encoded, folder, settings, wanted, found.shards if found else (), nulls, nulls_left)
        announce(cost.shared(executor.workers))
    maker = Maker(executor, dict(enumerate(encoded)), report, listed or ignored)
    with only_writer(folder):
        rows = table_rows(model, examples, encoded, manifest.system is not None)
        store = _linked(create_cache(folder, manifest, rows), followed_by)
        sweep(store, pending(store))
        store = mended(store, maker, model, sketcher, store.shards, examples_table(rows))
        if store.read:
            maker.listed(store)
        with named_as_in(examples):
            store = maker.fill(store, "sketches", store.ids.tolist(), settings.shard_rows)
            chosen = token_rows(store, with_tokens)
            store = maker.fill(store, "tokens", chosen, _token_shard_rows(settings))
        return add_nulls(model, sketcher, store, null_prompts, partial(report, "unrelated prompts"), renew=True)


def _linked(store: Store, followed_by: FollowedBy | None) -> Store:
    """The cache that names the fine-tuning which followed; as it is where none is given."""
    if followed_by is None or store.manifest.followed_by == followed_by:
        return store
    manifest = replace(store.manifest, followed_by=followed_by)
    linked = Store(store.folder, replace(store.contents, manifest=manifest))
    linked.save()
    return linked


def append_examples(
    model: LanguageModel,
    examples: Sequence[Example],
    folder: Path,
    tokens: int,
    data_name: str,
    report: Report = lambda stage, done, total: None,
    announce: Announce | None = None,
    encoded: Sequence[Encoded] | None = None,
) -> Store:
    """Append examples to a finished cache; until all are there, readers see it as it was.

    `tokens` says how many of them get per-token sketches. Run again after a
    stop, it goes on, and ends with the bytes of an undisturbed run; run again
    after it is done, it changes nothing. Raises what `build_cache` does.
    """
    with only_writer(folder):
        current = open_cache(folder)
        if encoded is None:
            examples, encoded = readable(model, examples, counting=current.manifest.counting)
        current.require_complete()
        current.check_model(model.fingerprint)
        if current.manifest.training != model.training:
            raise MismatchError(f"The cache {folder} was made with another training record; append with the same one.")
        current.check()
        manifest = _appended(current, examples, min(tokens, len(examples)), data_name)
        if manifest is None:
            sweep(current, pending(current))
            return current
        settings, first = manifest.settings, current.manifest.next_id
        with_tokens = manifest.token_rows - current.manifest.token_rows
        if announce:
            found = resumable(current, manifest)
            done = found.shards[len(current.shards) :] if found else ()
            tokens_wanted = round(_mean_length(encoded) * with_tokens)
            announce(_cost(model, encoded, folder, settings, tokens_wanted, done, current.null_prompts))
        rows = table_rows(model, examples, encoded, manifest.system is not None)
        table = joined_tables([current.table, examples_table(rows)])
        store = begin(current, manifest, table)
        sketcher = make_sketcher(model, settings)
        maker = Maker(InProcess(model, sketcher), dict(enumerate(encoded, start=first)), report)
        store = mended(store, maker, model, sketcher, store.shards[len(current.shards) :], table)
        with named_as_in(examples, first):
            store = maker.fill(store, "sketches", store.ids[current.manifest.rows :].tolist(), settings.shard_rows)
            chosen = token_rows(store, with_tokens, among=range(current.manifest.rows, manifest.rows))
            store = maker.fill(store, "tokens", store.ids[chosen].tolist(), _token_shard_rows(settings))
        return commit(add_nulls(model, sketcher, store, current.null_prompts, partial(report, "unrelated prompts")))


def mended(
    store: Store,
    maker: Maker,
    model: LanguageModel,
    sketcher: Sketcher,
    shards: Sequence[Shard],
    table: pa.Table,
) -> Store:
    """The store with the table of examples and those of the shards that are damaged made anew."""
    damaged = store.damage([store.contents.examples, *shards])
    if store.contents.examples in damaged:
        store = store.put_table(table)
    store = maker.mend(store, [shard for shard in shards if shard in damaged])
    lost = [shard for shard in shards if shard in damaged and shard.kind == "nulls"]
    return mend_nulls(model, sketcher, store, lost, partial(maker.report, "mended unrelated prompts"))


def _resolved(settings: CacheSettings, folder: Path, rows: int, files: int) -> CacheSettings:
    """The settings with what is left open as the cache in the folder has it, or else by the rule."""
    kept = load(folder).manifest.settings if (folder / MANIFEST).is_file() else CacheSettings(batch=0)
    return replace(
        settings,
        batch=settings.batch or kept.batch,
        shard_rows=settings.shard_rows or kept.shard_rows or rows_by_rule(rows, settings, files),
    )


def rows_by_rule(rows: int, settings: CacheSettings, files: int = MOST_SHARDS) -> int:
    """Examples a file of sketches, of so many in all and in about so many files, where nothing else is said."""
    largest = SHARD_BYTES // (settings.length * np.dtype(settings.dtype).itemsize)
    return max(EXAMPLES_PER_SHARD, min(-(-rows // files), largest))


def _token_shard_rows(settings: CacheSettings) -> int:
    return max(1, settings.shard_rows * TOKEN_EXAMPLES_PER_SHARD // EXAMPLES_PER_SHARD)


def _appended(current: Store, examples: Sequence[Example], token_rows: int, name: str) -> Manifest | None:
    """The manifest with one more part; None where that data is there already."""
    sha256, rows = data_hash(examples), len(examples)
    kept, first = current.manifest, 0
    for part in kept.parts:
        if part.sha256 == sha256 and ((current.ids >= first) & (current.ids < first + part.rows)).any():
            return None
        first += part.rows
    return replace(
        kept,
        parts=(*kept.parts, Part(name, sha256, rows)),
        rows=kept.rows + rows,
        token_rows=kept.token_rows + token_rows,
        generation=kept.generation + 1,
        # Unrelated prompts are asked of new rows as they were of the others.
        system="" if kept.system is None and any(map(_system_prompt, examples)) else kept.system,
    )


def _system(examples: Sequence[Example], folder: Path) -> str | None:
    """What a manifest says of system prompts: what the cache in the folder does, or else what the examples do."""
    if (folder / MANIFEST).is_file():
        return load(folder).manifest.system
    found = {_system_prompt(example) for example in examples}
    if found == {None}:
        return None
    return (found.pop() or "") if len(found) == 1 else ""


def _system_prompt(example: Example) -> str | None:
    """The system prompt that an example begins with; None where it says nothing."""
    text = Conversation(example.messages).system
    return text if text.strip() else None


def _mean_length(encoded: Sequence[Encoded]) -> float:
    return sum(item.response_length for item in encoded) / len(encoded)


def _token_count(encoded: Sequence[Encoded], store: Store | None, with_tokens: int) -> int | None:
    """How many tokens get a sketch, where all examples have theirs."""
    if store is None or not store.complete or store.damage(store.shards_of("sketches")):
        return None
    return sum(encoded[row].response_length for row in token_rows(store, with_tokens))


def _cost(
    model: LanguageModel,
    encoded: Sequence[Encoded],
    folder: Path,
    settings: CacheSettings,
    tokens: int,
    shards: Sequence[Shard],
    null_prompts: int,
    nulls_left: bool = True,
) -> Cost:
    """What is still to be spent, where so many tokens get a sketch and these shards are made.

    Raises CacheError when the disk hasn't room for it.
    """
    done = {kind: sum(shard.count for shard in shards if shard.kind == kind) for kind in ("sketches", "tokens")}
    found = estimate(model, encoded, settings, tokens, (done["sketches"], done["tokens"]), null_prompts, nulls_left)
    there = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())
    free = shutil.disk_usage(there).free
    if found.size - sum(shard.size for shard in shards) > free:
        raise CacheError(
            f"The cache needs {volume(found.size)} and {there} has {volume(free)} free; "
            "give another folder, a smaller --k, --dtype int8, or fewer --tokens."
        )
    return found


def table_rows(
    model: LanguageModel, examples: Sequence[Example], encoded: Sequence[Encoded], system: bool
) -> list[dict[str, object]]:
    """The rows of the table of examples; `system` says whether their system prompts have a column."""
    return [
        {
            "prompt": example.prompt,
            "response": said(example.answer),
            "ids": item.ids,
            "response_start": item.response_start,
            "tokens": _shown(model, item),
            GAPS: item.gaps,
            "columns": example.columns,
            **({SYSTEM: _system_prompt(example)} if system else {}),
        }
        for example, item in zip(examples, encoded, strict=True)
    ]


def _shown(model: LanguageModel, item: Encoded) -> tuple[Token, ...]:
    """How the response tokens are shown."""
    tokens = model.tokens(item.ids[item.response_start :])
    return tuple(tokens[place - item.response_start] for place in item.positions) if item.gaps else tokens


def _named(model: str, folder: Path) -> str:
    """A model as a cache in this folder names it: a folder by the way there."""
    return os.path.relpath(model, folder) if model and Path(model).is_dir() else model


def _manifest(
    model: LanguageModel,
    examples: Sequence[Example],
    folder: Path,
    settings: CacheSettings,
    with_tokens: int,
    data_name: str,
    counting: Counting,
) -> Manifest:
    return Manifest(
        fingerprint=model.fingerprint,
        training=model.training,
        settings=settings,
        model=_named(model.name, folder),
        base=_named(model.base, folder),
        adapter=os.path.relpath(model.adapter, folder) if model.adapter else "",
        template=model.template.name,
        parts=(Part(data_name, data_hash(examples), len(examples)),),
        rows=len(examples),
        token_rows=with_tokens,
        versions={
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "numpy": np.__version__,
        },
        system=_system(examples, folder),
        counting=counting,
    )
