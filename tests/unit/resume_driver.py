"""Runs `rapidin-explorer precompute` in children that kill themselves at chosen moments.

Reads a JSON list of plans from standard input: `arguments` of the command and
`moments`. A moment is the number of the `fsync` at which a run dies by SIGKILL:
an odd one leaves a `.part` that was not renamed yet, an even one a file that has
its name but isn't listed. After a plan's last moment comes a run that nobody
disturbs. Libraries are imported once; every run is a fork of this process.
"""

import json
import os
import signal
import sys

import precompute.build
import precompute.dataset
from explorer import cli

SHARD_ROWS = 2


def run(moment: int, arguments: list[str]) -> int:
    """One run in a child, killed at its `moment`-th fsync (0: never); its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _die_at(moment)
            status = cli.main(arguments)
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(moment: int) -> None:
    true, count = os.fsync, 0

    def counting(handle: int) -> None:
        nonlocal count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        true(handle)

    os.fsync = counting  # type: ignore[assignment]


def main() -> None:
    """Follow every plan: once for each of its moments, and once to the end."""
    precompute.build.EXAMPLES_PER_SHARD = precompute.build.TOKEN_EXAMPLES_PER_SHARD = SHARD_ROWS
    for plan in json.load(sys.stdin):
        for moment in plan["moments"]:
            status = run(moment, plan["arguments"])
            if status != -signal.SIGKILL:
                sys.exit(f"the run that was to be killed at fsync {moment} ended with {status}")
        if run(0, plan["arguments"]):
            sys.exit(f"the run after {plan['moments']} did not finish")


if __name__ == "__main__":
    main()
