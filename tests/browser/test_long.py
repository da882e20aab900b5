"""Minutes each, so left to `make test-long`: the planted causes are found; a killed run ends with the same bytes."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from explorer.paths import DEMO

pytestmark = pytest.mark.long

COMMAND = [sys.executable, "-m", "explorer.commands"]


def test_probes_find_what_was_planted() -> None:
    done = subprocess.run([*COMMAND, "evaluate", "probes", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["triggered"]["attacked"] >= 0.95, found
    assert found["clean"]["attacked"] == 0, found
    assert found["triggered"]["top10_planted"] >= 0.95, found
    assert found["swaps"]["wrong"] >= 0.7, found
    assert found["swaps"]["top5_planted_token"] >= 0.88, found
    assert found["swaps"]["top5_planted_token"] > found["swaps"]["top5_planted_response"], found


def test_a_run_killed_three_times_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()[:72]
    data.write_text("\n".join(rows), encoding="utf-8")
    options = ["--data", str(data), "--adapter", str(DEMO / "adapter"), "--k", "4096", "--token-k", "1024"]
    # The fastest batch is measured, and shows in the last digits: two runs compare only with a fixed one.
    options += ["--tokens", "6", "--batch", "4"]

    started = time.monotonic()
    subprocess.run([*COMMAND, "precompute", str(tmp_path / "whole"), *options], capture_output=True, check=True)
    length = time.monotonic() - started

    stopped = tmp_path / "stopped"
    moments = random.Random(0)
    for _ in range(3):
        run = subprocess.Popen([*COMMAND, "precompute", str(stopped), *options], stderr=subprocess.DEVNULL)
        time.sleep(length * moments.uniform(0.2, 0.6))
        run.send_signal(signal.SIGKILL)
        run.wait()
    subprocess.run([*COMMAND, "precompute", str(stopped), *options], capture_output=True, check=True)

    whole = tmp_path / "whole"
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file())
    for file in files:
        assert (whole / file).read_bytes() == (stopped / file).read_bytes(), f"{file} differs"
