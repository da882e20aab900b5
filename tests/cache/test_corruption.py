"""A thousand random corruptions of a cache: every one is found by `verify`, and none is served."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from explorer.cache.manifest import COPY
from explorer.cache.store import Store, create_cache, open_cache
from explorer.cache.verify import verify
from explorer.errors import CacheError
from tests.cache.test_store import MANIFEST, ROWS, shard, token_shard

COUNT = 1000
Files = dict[str, bytes]


def flip(random: random.Random, files: Files, name: str) -> None:
    """One bit of one byte."""
    content = bytearray(files[name])
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    files[name] = bytes(content)


def flips(random: random.Random, files: Files, name: str) -> None:
    """A run of bytes."""
    start = random.randrange(len(files[name]))
    length = random.randint(1, 64)
    while (changed := random.randbytes(length)) == files[name][start : start + length]:
        pass
    files[name] = files[name][:start] + changed + files[name][start + length :]


def truncate(random: random.Random, files: Files, name: str) -> None:
    files[name] = files[name][: random.randrange(len(files[name]))]


def lengthen(random: random.Random, files: Files, name: str) -> None:
    files[name] += random.randbytes(random.randint(1, 64))


def delete(random: random.Random, files: Files, name: str) -> None:
    del files[name]


def swap(random: random.Random, files: Files, name: str) -> None:
    """The contents of two files; that of the manifest and its copy are the same."""
    other = random.choice([one for one in sorted(files) if files[one] != files[name]])
    files[name], files[other] = files[other], files[name]


KINDS: list[Callable[[random.Random, Files, str], None]] = [flip, flips, truncate, lengthen, delete, swap]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a finished cache."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    made = create_cache(folder, MANIFEST, ROWS)
    made.add_shard("sketches", shard(2), 2).add_shard("sketches", shard(1, 2), 1).add_shard("tokens", token_shard(), 5)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lay(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def served(store: Store) -> list[object]:
    """All that a cache can tell."""
    arrays = [np.array(part).tolist() for pair in store.sketches() for part in pair]
    tokens = [None if found is None else found.tolist() for found in map(store.token_sketches, range(3))]
    examples = [(one.prompt, one.encoded.ids.tolist(), one.loss, one.tokens, one.columns) for one in store.examples]
    return [store.manifest, arrays, store.norms.tolist(), store.losses.tolist(), tokens, examples]


@pytest.mark.parametrize("seed", range(10))
def test_every_random_corruption_is_found_and_none_is_served(whole: Files, tmp_path: Path, seed: int) -> None:
    chance, right = random.Random(seed), None
    for number in range(COUNT // 10):
        files = dict(whole)
        kind, name = chance.choice(KINDS), chance.choice(sorted(files))
        kind(chance, files, name)
        folder = tmp_path / str(number)
        lay(folder, files)
        case = f"seed {seed}, {number}: {kind.__name__} {name}"
        hurt = {one for one in whole if files.get(one) != whole[one]}
        named = {problem.file for problem in verify(folder) if problem.harmful}
        assert hurt <= named, f"{case}: verify named {named}"
        assert named <= hurt, f"{case}: verify named what is whole, {named - hurt}"
        right = right or served(opened(whole, tmp_path / "right"))
        try:
            found = served(open_cache(folder))
        except CacheError:
            continue
        assert hurt == {COPY}, f"{case}: nothing refused it"
        assert found == right, f"{case}: other values were served"
        shutil.rmtree(folder)


def opened(files: Files, folder: Path) -> Store:
    lay(folder, files)
    return open_cache(folder)


def test_one_damaged_file_keeps_no_other_from_being_named(whole: Files, tmp_path: Path) -> None:
    lay(tmp_path, {name: content[:-1] for name, content in whole.items() if name != COPY} | {COPY: whole[COPY]})
    assert {problem.file for problem in verify(tmp_path)} == set(whole) - {COPY}
    lay(tmp_path, {COPY: whole[COPY][:-1]})
    (problem,) = verify(tmp_path)
    assert problem.file == "manifest.json" and "can't stand in for it" in problem.remedy


def test_every_single_byte_of_the_manifest_counts(whole: Files, tmp_path: Path) -> None:
    lay(tmp_path, whole)
    for place in range(0, len(whole["manifest.json"]), 7):
        content = bytearray(whole["manifest.json"])
        # A space for a line's end, and the other way round, means the same to JSON.
        content[place] = {32: 10, 10: 32}.get(content[place], content[place] ^ 32)
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(CacheError, match="damaged"):
            open_cache(tmp_path)
