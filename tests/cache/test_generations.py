"""Caches that grow, shrink and are mended: what readers see, and what is written anew."""

import dataclasses
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer.cache import shards
from explorer.cache.generations import begin, commit, drop, pending
from explorer.cache.manifest import Contents, Part, expand, ranges
from explorer.cache.store import Store, create_cache, open_cache
from explorer.cache.table import examples_table, pack_table, unpack_table
from explorer.cache.verify import verify
from explorer.errors import CacheError, DataError, MismatchError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.paths import DEMO
from explorer.records import Example
from explorer.serving.session import model_for
from precompute.build import append_examples, build_cache
from precompute.data import Review, read_examples
from precompute.mend import mend_cache
from tests.cache.test_store import MANIFEST, ROWS, shard, token_shard
from tests.conftest import TINY_SETTINGS, Tiny

NEW = [Example(({"role": "user", "content": f"What is {word}?"},), f"The {word}.", {"source": "new"}) for word in "abc"]


def digests(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished cache of three rows, two of them with token sketches."""
    made = create_cache(tmp_path / "cache", MANIFEST, ROWS)
    made = made.add_shard("sketches", shard(2), 2).add_shard("sketches", shard(1, 2), 1)
    made.add_shard("tokens", token_shard(), 5)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter, device="cpu")


@pytest.fixture(scope="module")
def made(tiny: Tiny, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of all tiny rows, with three more appended and three dropped since."""
    folder = tmp_path_factory.mktemp("made") / "0"
    settings = dataclasses.replace(TINY_SETTINGS, length=1024, token_length=256, shard_rows=2)
    build_cache(model, read_examples(tiny.data), folder, settings, 4, "train.jsonl")
    append_examples(model, NEW, folder, 2, "new.jsonl")
    drop(folder, [2, 3, 8])
    return folder


@pytest.fixture
def grown(made: Path) -> Path:
    """A copy of it, beside it: the manifest keeps the places of model and adapter relative to the cache."""
    return Path(shutil.copytree(made, made.with_name(str(len(list(made.parent.iterdir()))))))


# Ids


@given(st.sets(st.integers(0, 60)))
def test_ranges_stand_for_their_numbers(numbers: set[int]) -> None:
    found = ranges(sorted(numbers))
    assert expand(found).tolist() == sorted(numbers)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


def test_a_table_packs_into_the_same_bytes_however_it_came_about() -> None:
    whole = pack_table(examples_table(ROWS))
    read = unpack_table(np.frombuffer(whole, dtype=np.uint8))
    assert pack_table(read) == whole
    assert pack_table(pa.concat_tables([read.slice(0, 1), examples_table(ROWS[1:])])) == whole
    assert pack_table(read.filter(pa.array([True, False, True]))) == pack_table(examples_table([ROWS[0], ROWS[2]]))


# Drop


def test_dropping_rewrites_only_the_shards_it_touches(folder: Path) -> None:
    before, old = digests(folder), open_cache(folder)
    assert drop(folder, [0]) == 1
    found, store = digests(folder), open_cache(folder)
    assert [shard.file for shard in store.shards] == [
        "sketches/00000-1.safetensors",
        "sketches/00001.safetensors",
        "tokens/00000-1.safetensors",
    ]
    assert found["sketches/00001.safetensors"] == before["sketches/00001.safetensors"]
    assert verify(folder) == [] and not {"sketches/00000.safetensors", "examples.parquet"} & found.keys()
    assert [example.id for example in store.examples] == [1, 2]
    assert [example.row for example in store.examples] == [0, 1]
    np.testing.assert_array_equal(store.norms, old.norms[1:])
    assert store.token_sketches(0) is None
    np.testing.assert_array_equal(store.token_sketches(1), old.token_sketches(2))
    assert (store.manifest.rows, store.manifest.token_rows) == (2, 1)


def test_a_reader_keeps_what_it_opened_while_rows_are_dropped(folder: Path) -> None:
    store = open_cache(folder)
    drop(folder, [0, 1])
    assert [example.prompt for example in store.examples] == ["prompt 0", "prompt 1", "prompt 2"]
    assert sum(len(sketch) for sketch, _ in store.sketches()) == 3 and store.token_sketches(0) is not None


def test_dropping_the_same_again_changes_nothing(folder: Path) -> None:
    assert drop(folder, [1]) == 1
    before = digests(folder)
    assert drop(folder, [1]) == 0
    assert digests(folder) == before


def test_a_source_is_dropped(folder: Path) -> None:
    with pytest.raises(DataError, match="would leave no example"):
        drop(folder, source="sky")
    assert drop(folder, source="sea") == 0
    assert open_cache(folder).manifest.generation == 0


def test_an_example_that_never_was_cannot_be_dropped(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no example 3; the ids go from 0 to 2"):
        drop(folder, [1, 3])
    assert open_cache(folder).manifest.rows == 3


def test_nothing_is_dropped_from_a_damaged_or_unfinished_cache(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "sketches/00001.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "sketches/00001.safetensors").write_bytes(content)
    before = digests(folder)
    with pytest.raises(CacheError, match="mend"):
        drop(folder, [0])
    assert digests(folder) == before
    create_cache(tmp_path / "begun", MANIFEST, ROWS)
    with pytest.raises(CacheError, match="unfinished"):
        drop(tmp_path / "begun", [0])


@given(lengths=st.lists(st.integers(0, 3), min_size=1, max_size=5), data=st.data())
def test_selecting_from_a_ragged_shard_keeps_each_examples_rows(lengths: list[int], data: st.DataObject) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(offsets[-1])
    arrays = {"sketch": values[:, None], "offsets": offsets, "rows": np.arange(len(lengths)) * 10}
    found = shards.selected(arrays, keep)

    def per_example(arrays: shards.Arrays) -> list[tuple[int, list[int]]]:
        pairs = zip(arrays["offsets"][:-1], arrays["offsets"][1:], strict=True)
        rows: list[NDArray[np.int64]] = [arrays["sketch"][start:stop, 0] for start, stop in pairs]
        return [(int(number), row.tolist()) for number, row in zip(arrays["rows"], rows, strict=True)]

    assert per_example(found) == [one for one, kept in zip(per_example(arrays), keep, strict=True) if kept]


# Append


def appended(store: Store) -> Store:
    """The next generation of the little cache with one row more, not yet committed and without its sketch."""
    manifest = dataclasses.replace(
        store.manifest, parts=(*store.manifest.parts, Part("more", "hash", 1)), rows=4, generation=1
    )
    return begin(store, manifest, pa.concat_tables([store.table, examples_table(ROWS[:1])]))


def test_readers_see_nothing_of_an_append_until_it_is_committed(folder: Path) -> None:
    before = open_cache(folder)
    grown = appended(before).add_shard("sketches", shard(1, 9), 1)
    assert open_cache(folder).contents == before.contents
    (problem, *_) = [problem for problem in verify(folder) if problem.file == "pending.json"]
    assert not problem.harmful and "unfinished append of more" in problem.what
    commit(grown)
    after = open_cache(folder)
    assert after.ids.tolist() == [0, 1, 2, 3] and after.losses.tolist() == [0, 1, 2, 9]
    assert verify(folder) == [] and pending(after) is None


def test_an_abandoned_append_is_cleaned_by_the_next_command(folder: Path) -> None:
    appended(open_cache(folder)).add_shard("sketches", shard(1, 9), 1)
    assert drop(folder, [0]) == 1
    assert verify(folder) == [] and not (folder / "pending.json").exists()
    assert open_cache(folder).ids.tolist() == [1, 2]


def test_an_append_of_other_data_does_not_take_up_an_unfinished_one(folder: Path) -> None:
    store = open_cache(folder)
    appended(store).add_shard("sketches", shard(1, 9), 1)
    manifest = dataclasses.replace(
        store.manifest, parts=(*store.manifest.parts, Part("x", "y", 1)), rows=4, generation=1
    )
    assert begin(store, manifest, store.table).shards == store.shards


def test_appended_examples_are_scored_like_those_of_one_cache(tiny: Tiny, model: LanguageModel, tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY_SETTINGS, length=1024, token_length=256, shard_rows=3)
    rows = read_examples(tiny.data)
    whole = build_cache(model, rows, tmp_path / "whole", settings, 7, "all")
    build_cache(model, rows[:4], tmp_path / "parts", settings, 4, "first")
    parts = append_examples(model, rows[4:], tmp_path / "parts", 3, "second")
    assert [part.rows for part in parts.manifest.parts] == [4, 3] and parts.manifest.data == "first, second"
    np.testing.assert_array_equal(parts.norms, whole.norms)
    for one, other in zip(parts.examples, whole.examples, strict=True):
        assert (one.id, one.prompt, one.columns, one.loss) == (other.id, other.prompt, other.columns, other.loss)
        np.testing.assert_array_equal(parts.token_sketches(one.row), whole.token_sketches(one.row))


def test_another_model_cannot_append(tiny: Tiny, model: LanguageModel, folder: Path) -> None:
    with pytest.raises(MismatchError, match="another base model"):
        append_examples(model, NEW, folder, 0, "new")
    assert verify(folder) == []


def test_data_is_appended_once_but_again_after_all_of_it_was_dropped(grown: Path, model: LanguageModel) -> None:
    before = digests(grown)
    append_examples(model, NEW, grown, 2, "new.jsonl")
    assert digests(grown) == before
    drop(grown, [7, 9])
    store = append_examples(model, NEW, grown, 0, "new.jsonl")
    assert store.ids.tolist() == [0, 1, 4, 5, 6, 10, 11, 12]


# Mend


@pytest.mark.parametrize("damage", ["shards", "examples", "manifest", "copy", "everything but the copy"])
def test_mending_gives_back_the_bytes_there_were(tiny: Tiny, grown: Path, damage: str) -> None:
    before = digests(grown)
    hurt = {
        "shards": [name for name in before if name.endswith("1.safetensors")],
        "examples": ["examples-2.parquet"],
        "manifest": ["manifest.json"],
        "copy": ["manifest.copy.json"],
        "everything but the copy": [name for name in before if name != "manifest.copy.json"],
    }[damage]
    for number, name in enumerate(hurt):
        if number % 3 == 0:
            (grown / name).unlink()
        else:
            (grown / name).write_bytes(before[name][:-1] if number % 3 == 1 else before[name][::-1])
    assert {problem.file for problem in verify(grown)} == set(hurt)
    others = [grown / name for name in before if name not in hurt and not name.endswith(".json")]
    times = {path: path.stat().st_mtime_ns for path in others}
    said = mend_cache(grown, model_for, [(read_examples(tiny.data), Review()), (NEW, Review())])
    assert digests(grown) == before and verify(grown) == []
    assert len(said) == len(hurt) and not [line for line in said if "differ" in line]
    assert {path: path.stat().st_mtime_ns for path in others} == times, "what was whole was written anew"


def test_mending_shards_needs_no_data_and_a_whole_cache_no_model(grown: Path) -> None:
    before = digests(grown)

    def no_model(store: Store) -> LanguageModel:
        raise AssertionError("a model was loaded")

    assert mend_cache(grown, no_model) == []
    (grown / "tokens/00000.safetensors").unlink()
    assert mend_cache(grown, model_for) == ["tokens/00000.safetensors was made anew."]
    assert digests(grown) == before


def test_damaged_examples_ask_for_the_data_they_came_from(tiny: Tiny, grown: Path) -> None:
    (grown / "examples-2.parquet").unlink()
    before = digests(grown)
    with pytest.raises(CacheError, match=r"only the training data can mend it.*--data new\.jsonl"):
        mend_cache(grown, model_for, [(read_examples(tiny.data), Review())])
    assert digests(grown) == before


def test_the_same_precompute_mends_what_it_made(tiny: Tiny, model: LanguageModel, tmp_path: Path) -> None:
    def build() -> Store:
        settings = dataclasses.replace(TINY_SETTINGS, length=1024, token_length=256, shard_rows=2)
        return build_cache(model, read_examples(tiny.data), tmp_path / "cache", settings, 4, "train.jsonl")

    build()
    before = digests(tmp_path / "cache")
    (tmp_path / "cache/examples.parquet").write_bytes(b"")
    (tmp_path / "cache/sketches/00002.safetensors").unlink()
    (tmp_path / "cache/tokens/00001.safetensors").write_bytes(b"x" * 99)
    build()
    assert digests(tmp_path / "cache") == before


def test_a_manifest_whose_copy_is_lost_too_cannot_be_mended(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"{")
    (folder / "manifest.copy.json").unlink()
    before = digests(folder)
    with pytest.raises(CacheError, match=r"manifest\.json is damaged"):
        mend_cache(folder, model_for)
    assert digests(folder) == before


# Schema 2


def test_a_cache_of_schema_2_is_read_and_becomes_schema_4_when_it_is_written(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(__file__).parent / "schema2", tmp_path / "cache"))
    store = open_cache(folder)
    store.check()
    assert verify(folder) == [] and store.ids.tolist() == [0, 1, 2] and store.manifest.data == "train.jsonl"
    tokens = store.token_sketches(2)
    assert tokens is not None and tokens.shape == (3, 4) and store.token_sketches(1) is None
    assert drop(folder, [0]) == 1
    grown = open_cache(folder)
    assert Contents.decode((folder / "manifest.json").read_bytes()) == grown.contents
    np.testing.assert_array_equal(grown.token_sketches(1), tokens)
    assert verify(folder) == []


def test_the_demo_opens_whatever_its_schema() -> None:
    store = open_cache(DEMO / "cache")
    rows: Sequence[int] = [row for row in range(store.manifest.rows) if store.token_sketches(row) is not None]
    assert len(rows) == store.manifest.token_rows == 16 and len(store.ids) == 572
