"""What every benchmark shares: its options, the model and rows, and how figures are printed."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from explorer import embedded
from explorer.model import LanguageModel, load_model
from explorer.paths import DEMO
from explorer.records import Encoded
from precompute.dataset import read_examples

Figures = dict[str, float | int | str]


def options(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark; without any, it measures the demo."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default=embedded.NAME, help="base model (the demo's)")
    parser.add_argument("--adapter", default=str(DEMO / "adapter"), help="adapter folder (the demo's); none: all")
    parser.add_argument("--data", default=str(DEMO / "train.jsonl"), help="training data (the demo's)")
    parser.add_argument("--device", help="cpu, cuda … (a GPU where there is one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def load(chosen: argparse.Namespace, rows: int) -> tuple[LanguageModel, list[Encoded]]:
    """The model and the first `rows` examples as token sequences."""
    adapter = None if chosen.adapter in ("", "none") else Path(chosen.adapter)
    model = load_model(chosen.model, adapter, device=chosen.device)
    examples = read_examples(chosen.data)[:rows]
    return model, [model.encode(example.messages, example.response) for example in examples]


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_seconds(work: Callable[[], object], times: int = 5) -> float:
    """The median of several runs, after one that doesn't count."""
    work()
    return statistics.median(seconds(work) for _ in range(times))


def show(figures: Figures, as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:22} {value:.5g}" if isinstance(value, float) else f"{name:22} {value}")
