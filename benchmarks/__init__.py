"""Measurements against a floor taken in the same run. Each prints one JSON object with `--json`."""

import os

# As the commands have it: idle OpenMP threads that spin for long would keep cores from other threads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
