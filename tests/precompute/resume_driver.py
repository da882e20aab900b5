"""Runs `rapidin-explorer` in children that are killed at chosen moments.

Reads a JSON list of plans from standard input and writes, for each, what was
found after every kill. A plan has a `folder`, laid out as a copy of `start` (or
empty), the `arguments` of a command on it, and `kills`. A kill is the number of
the step at which a run kills itself, before it makes it: steps are all fsyncs,
renames and removals of files. Or it is a share of the time that the undisturbed
plan of the same command took, after which the run is killed from outside. After
a plan's last kill comes a run that nobody disturbs. Every run is a fork of this
process, which has made a cache itself: what a run imports, and what its seed
shuffles, is there already.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import precompute.build
import precompute.data
import precompute.mend
from explorer.cache.generations import pending
from explorer.cache.store import open_cache
from explorer.cache.verify import verify
from explorer.commands import main as cli
from explorer.errors import CacheError
from explorer.gradients import sketch
from tests.shuffles import once

SHARD_ROWS = 2


def run(arguments: list[str], step: int = 0, seconds: float | None = None) -> int:
    """One run in a child, killed at a step or after some time; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if step:
                _die_at(step)
            status = cli.main(arguments)
        finally:
            sys.stderr.flush()
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(step: int) -> None:
    count = 0

    def counted(true: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return true(*arguments, **options)

        return instead

    for place, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        setattr(place, name, counted(getattr(place, name)))


def state(folder: Path) -> dict[str, Any]:
    """What a reader finds in the folder: the finished shards, and whether all that is listed is whole."""
    found: dict[str, Any] = {"shards": [], "rows": 0, "harm": [], "refused": ""}
    try:
        store = open_cache(folder)
        store.check()
        found["rows"] = store.manifest.rows
        found["harm"] = [str(problem) for problem in verify(folder) if problem.harmful]
        found["shards"] = [shard.file for shard in (pending(store) or store).shards]
        store.require_complete()
    except CacheError as problem:
        found["refused"] = str(problem)
    return found


def follow(plan: dict[str, Any], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Follow a plan; what was found after each of its kills."""
    folder, arguments, states = Path(plan["folder"]), plan["arguments"], []
    if plan["start"]:
        shutil.copytree(plan["start"], folder)
    for kill in plan["kills"]:
        if isinstance(kill, int):
            status = run(arguments, step=kill)
            if status != -signal.SIGKILL:
                sys.exit(f"{arguments} was to be killed at step {kill}, and ended with {status}")
        else:
            run(arguments, seconds=kill * seconds[arguments[0]])
        states.append(state(folder))
    started = time.perf_counter()
    if run(arguments):
        sys.exit(f"{arguments} after {plan['kills']} did not finish")
    if not plan["kills"]:
        seconds[arguments[0]] = time.perf_counter() - started
    return states


def warm_up(arguments: list[str]) -> None:
    """Run a command here, on another folder, and keep what its seed shuffles."""
    sketch.draw_shuffles = once()  # type: ignore[assignment]
    name, _, *options = arguments
    with tempfile.TemporaryDirectory() as scratch:
        cli.main([name, f"{scratch}/cache", *options])


def main() -> None:
    """Follow every plan."""
    precompute.build.EXAMPLES_PER_SHARD = precompute.build.TOKEN_EXAMPLES_PER_SHARD = SHARD_ROWS
    plans, seconds = json.load(sys.stdin), dict[str, float]()
    warm_up(plans[0]["arguments"])
    print(json.dumps([follow(plan, seconds) for plan in plans]))


if __name__ == "__main__":
    main()
