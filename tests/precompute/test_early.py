"""A cache that is read while it is made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.cache import CacheSettings, Store, open_cache, progress, so_far
from explorer.cache.files import file_sha256
from explorer.engine import Engine
from explorer.errors import CacheError
from explorer.methods.attributor import Attributor
from explorer.methods.opening import open_method
from explorer.serving.session import open_engine
from precompute import build
from precompute.build import build_cache
from precompute.data import read_examples
from tests.conftest import TINY_SETTINGS, Tiny

SETTINGS = replace(TINY_SETTINGS, shard_rows=2, batch=2)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


class Stopped(Exception):
    """Somebody ended the command."""


def test_at_each_moment_readers_have_what_the_finished_cache_will_say(
    tiny: Tiny, tiny_engine: Engine, tmp_path: Path
) -> None:
    model, examples, name = tiny_engine.model, read_examples(tiny.data), tiny.data.name
    undisturbed, early = tiny.cache.parent / f"{tmp_path.name} whole", tiny.cache.parent / f"{tmp_path.name} early"
    build_cache(model, examples, undisturbed, SETTINGS, 2, name, null_prompts=3)
    whole = open_engine(undisturbed, device="cpu")
    answer = whole.given_answer("What is bright?", "The sun.")
    seen = list[tuple[int, bool]]()
    asked = Attributor(open_method(whole, "rapidin"))
    asked.ask(answer, None)
    scores = asked.scores(answer, None)
    assert scores is not None

    def look(store: Store) -> None:
        part = so_far(open_cache(early))
        seen.append((part.manifest.rows, progress(part).at_work))
        reader = Attributor(open_method(Engine(model, part), "rapidin"))
        reader.ask(answer, None)
        found = reader.scores(answer, None)
        assert found is not None and np.array_equal(found, scores[: part.manifest.rows])
        if len(seen) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        build_cache(model, examples, early, SETTINGS, 2, name, null_prompts=3, listed=look)
    assert seen == [(2, True), (4, True)]
    with pytest.raises(CacheError, match="unfinished"):
        open_engine(early, device="cpu")
    build_cache(model, examples, early, SETTINGS, 2, name, null_prompts=3, listed=look)
    rows = [count for count, _ in seen]
    assert rows[:4] == [2, 4, 4, 6] and set(rows[4:]) == {7}, "what is there is told first, then what is added"
    assert contents(early) == contents(undisturbed)


def test_files_are_smaller_where_someone_waits_for_the_first() -> None:
    usual = build.rows_by_rule(52_002, CacheSettings())
    assert (usual, build.rows_by_rule(52_002, CacheSettings(), build.MOST_SHARDS_EARLY)) == (102, 32)
