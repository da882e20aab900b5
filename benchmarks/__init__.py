"""Measurements against a floor taken in the same run. Each prints one JSON object with `--json`."""
