"""A cache that was copied to an object store comes back file by file, and is checked like any other."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from explorer.cache.files import file_sha256
from explorer.cache.objects import fetch, fetch_outline, upload
from explorer.cache.store import open_cache
from explorer.commands import main as cli
from explorer.errors import CacheError, DamageError
from tests.conftest import Tiny


@pytest.fixture
def bucket() -> Iterator[str]:
    yield "memory://bucket/cache"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_cache_comes_back_as_it_was_copied(tiny: Tiny, bucket: str, tmp_path: Path) -> None:
    original = open_cache(tiny.cache)
    upload(original, bucket)
    upload(original, bucket)
    store = fetch_outline(bucket, tmp_path)
    assert store.contents == original.contents and store.table.equals(original.table)
    fetch(bucket, tmp_path, store.contents.files)
    names = [*store.contents.files, "manifest.json"]
    assert all(file_sha256(tmp_path / name) == file_sha256(tiny.cache / name) for name in names)


def test_what_was_changed_on_the_way_is_found_when_it_is_used(tiny: Tiny, bucket: str, tmp_path: Path) -> None:
    store = open_cache(tiny.cache)
    upload(store, bucket)
    name = store.shards[0].file
    payload = (tiny.cache / name).read_bytes()
    fsspec.filesystem("memory").pipe_file(f"/bucket/cache/{name}", payload[:-1] + b"?")
    fetched = fetch_outline(bucket, tmp_path)
    fetch(bucket, tmp_path, [name])
    with pytest.raises(DamageError, match=f"{Path(name).name} is damaged"):
        fetched.shard_arrays(store.shards[0])


def test_a_place_without_a_cache_and_one_of_no_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"memory://nowhere/manifest.json can't be read"):
        fetch_outline("memory://nowhere", tmp_path)
    with pytest.raises(CacheError, match="nosuch://place can't be used"):
        fetch("nosuch://place", tmp_path, ["manifest.json"])


def test_precompute_copies_the_finished_cache(tiny: Tiny, bucket: str, tmp_path: Path) -> None:
    command = ["precompute", str(tmp_path / "cache"), "--model", str(tiny.model), "--adapter", str(tiny.adapter)]
    command += ["--data", str(tiny.data), "--k", "256", "--token-k", "64", "--tokens", "none", "--device", "cpu"]
    assert cli.main([*command, "--null-prompts", "0", "--batch", "1", "--upload", bucket]) == 0
    assert fetch_outline(bucket, tmp_path / "back").contents == open_cache(tmp_path / "cache").contents
