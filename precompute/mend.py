"""Makes the damaged files of a cache anew, and nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from explorer.cache import Store
from explorer.cache.files import only_writer
from explorer.cache.generations import pending, sweep
from explorer.cache.manifest import COPY, MANIFEST
from explorer.cache.store import load
from explorer.cache.table import encoded_examples, examples_table, joined_tables
from explorer.cache.verify import verify
from explorer.engine import make_sketcher
from explorer.errors import CacheError, DamageError
from explorer.model.language_model import LanguageModel
from explorer.records import Example
from precompute.build import mended, table_rows
from precompute.data import Review, data_hash, readable
from precompute.executor import InProcess
from precompute.filling import Maker, Report


def mend_cache(
    folder: Path,
    load_model: Callable[[Store], LanguageModel],
    data: Sequence[tuple[Sequence[Example], Review]] = (),
    report: Report = lambda stage, done, total: None,
) -> list[str]:
    """Mend a cache; a line about each file that was made anew.

    A damaged manifest is restored from its copy. The model is loaded only where
    a shard or the table of examples is to be made, the `data`, each with what is
    to be said of it, needed only for the latter. Raises CacheError where
    something is missing for it, DataError where rows can't be used.
    """
    if not folder.is_dir():
        load(folder)
    with only_writer(folder):
        said = _restore_manifest(folder)
        store = load(folder)
        damaged = store.damage()
        if damaged:
            model = load_model(store)
            store.check_model(model.fingerprint)
            table = _table(store, model, data) if store.contents.examples in damaged else store.table
            encoded = dict(zip(store.ids.tolist(), encoded_examples(table), strict=True))
            sketcher = make_sketcher(model, store.manifest.settings)
            maker = Maker(InProcess(model, sketcher), encoded, report)
            store = mended(store, maker, model, sketcher, store.shards, table)
            now = {listed.file: listed.sha256 for listed in (store.contents.examples, *store.shards)}
            for listed in damaged:
                change = "" if now[listed.file] == listed.sha256 else "; its last digits differ from what it had"
                said.append(f"{listed.file} was made anew{change}.")
        elif any(problem.file == COPY for problem in verify(folder)):
            store.save()
            said.append(f"{COPY} was written anew.")
        sweep(store, pending(store))
        return said


def _restore_manifest(folder: Path) -> list[str]:
    try:
        load(folder)
        return []
    except CacheError as problem:
        if (folder / MANIFEST).is_file() and not isinstance(problem, DamageError):
            raise
        try:
            copy = load(folder, COPY)
        except CacheError:
            raise problem from None
    Store(folder, copy.contents).save()
    return [f"{MANIFEST} was restored from {COPY}."]


def _table(store: Store, model: LanguageModel, data: Sequence[tuple[Sequence[Example], Review]]) -> pa.Table:
    """The table of examples out of the training data, without what has been dropped."""
    read = [readable(model, *each, store.manifest.counting) for each in data]
    given = {data_hash(kept): (kept, ids) for kept, ids in read}
    tables, first = [], 0
    for part in store.manifest.parts:
        own = store.ids[(store.ids >= first) & (store.ids < first + part.rows)] - first
        first += part.rows
        if len(own) and part.sha256 not in given:
            raise CacheError(
                f"{store.folder / store.contents.examples.file} is damaged, and only the training data can mend it: "
                f"run `rapidin-explorer mend` with --data {part.name}, as it was then."
            )
        examples, encoded = ([of[row] for row in own] for of in given.get(part.sha256, ((), ())))
        tables.append(examples_table(table_rows(model, examples, encoded, store.manifest.system is not None)))
    return joined_tables(tables)
