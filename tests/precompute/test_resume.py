"""A killed command, run again, ends with the bytes of one that nobody disturbed, and readers never see half of it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import precompute.build
from explorer.cache.files import file_sha256
from explorer.cache.store import open_cache
from explorer.cache.verify import verify
from explorer.commands import main as cli
from tests.conftest import Tiny
from tests.precompute import resume_driver

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("precompute", "append", "drop")
WRITE = 3
"""Steps of a write: sync the file, rename it, sync its folder."""
BEGUN = 2 + 3 * WRITE
"""Steps until a cache is begun: an old copy and pending manifest removed; examples, copy and manifest written."""

KILLED_AT: dict[str, dict[str, list[int]]] = {
    "precompute": {
        "while the cache is begun": [2, 5, 8, 11],
        "while sketches are written": [BEGUN + 2, 5, 13, 9],
        "while token sketches are written": [BEGUN + 4 * 3 * WRITE + 3, 7],
        "while the null sample is written": [BEGUN + 7 * 3 * WRITE + 3, 7],
    },
    "append": {
        "while it is begun": [2, 4, 7],
        "while shards are written": [9, 6, 11, 5],
        "while it takes the place of the old one": [41, 7, 1],
    },
    "drop": {
        "while it is written": list(range(1, 36, 3)),
        "while it takes the place of the old one": [34, 3],
        "at its end": [37, 2],
    },
}
"""Runs of one cache, each killed at that step of its own; then one that isn't."""

MORE = [{"prompt": f"What is {word}?", "response": f"The {word} of the river.", "source": "new"} for word in "abc"]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


class Kills:
    """Caches side by side, because a manifest keeps the places of model and adapter relative to the cache."""

    def __init__(self, tiny: Tiny, base: Path):
        self.tiny, self.base = tiny, base
        self.more = base / "more.jsonl"
        self.more.write_text("\n".join(map(json.dumps, MORE)))
        self.undisturbed = {command: base / f"{command}, undisturbed" for command in COMMANDS}
        start = dict(zip(COMMANDS, (None, *self.undisturbed.values()), strict=False))
        self.start = {command: folder and str(folder) for command, folder in start.items()}
        self._plans = [self._plan(command, self.undisturbed[command], []) for command in COMMANDS]

    def _plan(self, command: str, folder: Path, kills: list[Any]) -> dict[str, Any]:
        arguments = self.arguments(command, folder)
        return {"folder": str(folder), "start": self.start[command], "arguments": arguments, "kills": kills}

    def arguments(self, command: str, folder: Path) -> list[str]:
        """The command as it is run on a folder."""
        if command == "append":
            return ["append", str(folder), "--data", str(self.more), "--tokens", "2", "--device", "cpu"]
        if command == "drop":
            return ["drop", str(folder), "--rows", "1,5-6,8"]
        # The fastest batch, which is taken otherwise, may be another one in every run.
        options = ["--k", "1024", "--token-k", "256", "--tokens", "5", "--device", "cpu", "--batch", "2"]
        options += ["--null-prompts", "3"]
        model = ["--model", str(self.tiny.model), "--adapter", str(self.tiny.adapter), "--data", str(self.tiny.data)]
        return ["precompute", str(folder), *model, *options]

    def plan(self, command: str, name: str, kills: list[Any]) -> None:
        """One more cache, on which the command is killed so often."""
        self._plans.append(self._plan(command, self.base / f"{command}, {name}", kills))

    def follow(self) -> None:
        """Run all that was planned."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", resume_driver.__file__],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            input=json.dumps(self._plans),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        folders = [plan["folder"] for plan in self._plans]
        self.states = dict(zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True))

    def check(self, command: str, name: str) -> None:
        """The final bytes, and what readers found after every kill."""
        folder = self.base / f"{command}, {name}"
        expected, found = contents(self.undisturbed[command]), contents(folder)
        assert found.keys() == expected.keys(), "files are missing or were left over"
        assert [name for name in found if found[name] != expected[name]] == []
        rows = {"precompute": {0, 7}, "append": {7, 10}, "drop": {10, 6}}[command]
        finished: list[str] = []
        for state in self.states[str(folder)]:
            assert state["rows"] in rows
            assert all("precompute" in harm and "finish" in harm for harm in state["harm"]), state["harm"]
            if command == "precompute":
                assert not state["refused"] or "unfinished" in state["refused"] or "is no cache" in state["refused"]
            else:
                assert state["refused"] == "", "a reader is refused what was there before"
            if command != "drop":
                assert state["shards"][: len(finished)] == finished, "a finished shard was lost"
            finished = state["shards"]


@pytest.fixture(scope="module")
def kills(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Kills:
    made = Kills(tiny, tmp_path_factory.mktemp("resume"))
    for command, plans in KILLED_AT.items():
        for name, steps in plans.items():
            made.plan(command, name, list(steps))
    made.follow()
    return made


def test_the_undisturbed_runs_wrote_several_shards_of_every_kind(kills: Kills) -> None:
    made, grown, shrunk = (open_cache(kills.undisturbed[command]) for command in COMMANDS)
    assert [shard.kind for shard in made.shards] == ["sketches"] * 4 + ["tokens"] * 3 + ["nulls"] * 4
    assert [shard.kind for shard in grown.shards[len(made.shards) :]] == ["sketches"] * 2 + ["tokens"] + ["nulls"] * 2
    assert grown.shards[: len(made.shards)] == made.shards
    assert shrunk.ids.tolist() == [0, 2, 3, 4, 7, 9]
    for store in (made, grown, shrunk):
        assert store.complete and verify(store.folder) == []


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in KILLED_AT for name in KILLED_AT[command]])
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(kills: Kills, command: str, name: str) -> None:
    kills.check(command, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_running_a_finished_command_again_changes_nothing(
    kills: Kills, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", resume_driver.SHARD_ROWS)
    monkeypatch.setattr(precompute.build, "TOKEN_EXAMPLES_PER_SHARD", resume_driver.SHARD_ROWS)
    folder = kills.undisturbed[command]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    assert cli.main(kills.arguments(command, folder)) == 0
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.long
def test_fifty_kills_at_random_moments(tiny: Tiny, tmp_path: Path) -> None:
    made, chance = Kills(tiny, tmp_path), random.Random(0)
    plans = [(COMMANDS[number % 3], f"kill {number}") for number in range(50)]
    for command, name in plans:
        made.plan(command, name, [chance.random()])
    made.follow()
    for command, name in plans:
        made.check(command, name)
