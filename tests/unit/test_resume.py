"""A killed precompute, run again, ends with the bytes of one that nobody disturbed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import precompute.build
from explorer import cli
from explorer.store import file_sha256, open_cache
from tests.conftest import Tiny
from tests.unit import resume_driver

REPOSITORY = Path(__file__).parents[2]
FSYNCS = 2 * (2 + 2 * (4 + 3))
"""Every write syncs a file and its folder: examples, manifest, and both for each of 4 + 3 shards."""

KILLED_AT = {
    "undisturbed": (),
    "while the cache is begun": (1, 2, 3),
    "while sketches are written": (5, 6, 8),
    "while token sketches are written": (FSYNCS - 9, 2, 3),
    "at the last manifest": (FSYNCS - 1,),
}
"""Runs of one cache, each killed at that fsync of its own; then one that isn't."""


def arguments(tiny: Tiny, cache: Path) -> list[str]:
    command = ["precompute", str(cache), "--model", str(tiny.model), "--adapter", str(tiny.adapter)]
    command += ["--data", str(tiny.data), "--k", "1024", "--token-k", "256", "--tokens", "5", "--device", "cpu"]
    # The fastest batch, which is taken otherwise, may be another one in every run.
    command += ["--batch", "2"]
    return command


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def caches(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished cache for every entry of KILLED_AT."""
    # Side by side, because the manifest keeps the places of model and adapter relative to the cache.
    base = tmp_path_factory.mktemp("resume")
    folders = {name: base / name for name in KILLED_AT}
    plans = [{"arguments": arguments(tiny, folder), "moments": KILLED_AT[name]} for name, folder in folders.items()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", resume_driver.__file__],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        input=json.dumps(plans),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folders


def test_the_undisturbed_run_wrote_several_shards_of_both_kinds(caches: dict[str, Path]) -> None:
    store = open_cache(caches["undisturbed"])
    assert store.complete and store.problems() == []
    assert [shard.kind for shard in store.shards] == ["sketches"] * 4 + ["tokens"] * 3


@pytest.mark.parametrize("killed", [name for name in KILLED_AT if KILLED_AT[name]])
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(caches: dict[str, Path], killed: str) -> None:
    expected, found = contents(caches["undisturbed"]), contents(caches[killed])
    assert found.keys() == expected.keys(), "files are missing or were left over"
    assert [name for name in found if found[name] != expected[name]] == []


def test_running_a_finished_precompute_again_changes_nothing(
    tiny: Tiny, caches: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", resume_driver.SHARD_ROWS)
    monkeypatch.setattr(precompute.build, "TOKEN_EXAMPLES_PER_SHARD", resume_driver.SHARD_ROWS)
    folder = caches["undisturbed"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    assert cli.main(arguments(tiny, folder)) == 0
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    assert after == before
