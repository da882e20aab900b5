"""A cache in the making, seen as a cache of the examples that are read so far."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.cache import create_cache, drop, later, open_cache, progress, so_far
from explorer.cache.files import only_writer
from explorer.cache.inventory import cache_report
from explorer.cache.store import Store
from explorer.errors import CacheError
from tests.cache.test_store import MANIFEST, ROWS, shard, token_shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def begun(folder: Path) -> Store:
    """Two of three examples are read."""
    return create_cache(folder, MANIFEST, ROWS).add_shard("sketches", shard(2), 2)


def test_what_is_read_is_a_cache_of_its_own(folder: Path, begun: Store) -> None:
    seen = so_far(open_cache(folder))
    assert (seen.manifest.rows, seen.awaited, seen.total, seen.read) == (2, 1, 3, 2)
    assert not seen.complete
    assert [(row.row, row.prompt, row.loss) for row in seen.examples] == [(0, "prompt 0", 0.0), (1, "prompt 1", 1.0)]
    assert seen.ids.tolist() == [0, 1] and seen.table.num_rows == 2 and seen.norms.shape == (2, 2)
    assert seen.manifest.data_sha256 == MANIFEST.data_sha256, "it is of the same data"
    assert seen.token_sketches(0) is None and not seen.nulls("response")
    report = cache_report(seen)
    assert (report["examples"], report["examples_done"], report["complete"]) == (3, 2, False)
    with pytest.raises(CacheError, match=r"unfinished \(2 of 3 examples\).*serve"):
        seen.require_complete()


def test_a_complete_cache_is_seen_as_it_is(begun: Store) -> None:
    store = begun.add_shard("sketches", shard(1, 2), 1)
    assert so_far(store) is store and store.complete and not store.awaited


def test_a_cache_without_any_example_is_refused(folder: Path) -> None:
    with pytest.raises(CacheError, match=r"\(0 of 3 examples\).*run the same `rapidin-explorer precompute`"):
        so_far(create_cache(folder, MANIFEST, ROWS))


def test_it_grows_by_what_is_added_and_reads_nothing_twice(folder: Path, begun: Store) -> None:
    seen = so_far(open_cache(folder))
    rows, first = seen.examples, next(iter(seen.sketches()))[0]
    assert later(seen) is seen, "nothing was added"
    finished = begun.add_shard("sketches", shard(1, 2), 1).add_shard("tokens", token_shard(), 5)
    now = later(seen)
    assert now.complete and now.awaited == 0 and now.manifest.rows == 3
    assert now.examples[:2] == rows and now.examples[0] is rows[0] and now.examples[2].prompt == "prompt 2"
    assert next(iter(now.sketches()))[0] is first, "what was checked isn't mapped and checked again"
    assert np.array_equal(now.norms, finished.norms) and np.array_equal(now.losses, finished.losses)
    assert seen.manifest.rows == 2 and len(seen.examples) == 2, "who looks at the earlier ones still does"


def test_another_generation_is_not_looked_at(folder: Path, begun: Store) -> None:
    begun.add_shard("sketches", shard(1, 2), 1)
    seen = so_far(open_cache(folder))
    drop(folder, [1])
    assert later(seen) is seen


def test_progress_says_how_much_is_left_and_whether_anyone_is_at_it(folder: Path, begun: Store) -> None:
    seen = so_far(open_cache(folder))
    found = progress(seen)
    assert (found.read, found.total, found.awaited, found.at_work, found.seconds_left) == (2, 3, 1, False, None)
    with only_writer(folder):
        assert progress(seen).at_work
    begun.add_shard("sketches", shard(1, 2), 1)
    assert progress(seen).awaited == 0 and progress(seen).seconds_left == 0.0


def test_the_time_left_goes_by_the_last_files_and_not_by_a_pause(folder: Path) -> None:
    made = create_cache(folder, replace(MANIFEST, rows=12, parts=(replace(MANIFEST.parts[0], rows=12),)), ROWS * 4)
    for number, written in enumerate((0, 10, 20, 5000)):
        made = made.add_shard("sketches", shard(2), 2)
        os.utime(folder / f"sketches/{number:05d}.safetensors", (written, written))
    assert progress(made).seconds_left == pytest.approx(4 * 5.0)


def test_looking_whether_somebody_writes_keeps_no_writer_out(folder: Path, begun: Store) -> None:
    with only_writer(folder):
        pass
    assert not progress(begun).at_work
    with only_writer(folder), pytest.raises(CacheError, match="Another command is writing"), only_writer(folder):
        pass
