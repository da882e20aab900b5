"""What every benchmark shares: its options, the model and rows, and how figures are printed."""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import psutil  # type: ignore[import-untyped]
import torch

from explorer.model import embedded
from explorer.model.language_model import LanguageModel
from explorer.model.loading import PRECISIONS, load_model
from explorer.paths import DEMO
from explorer.records import Encoded
from precompute.data import read_examples

Figures = dict[str, float | int | str]


def options(description: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark; without any, it measures the demo."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default=embedded.NAME, help="base model (the demo's)")
    parser.add_argument("--adapter", default=str(DEMO / "adapter"), help="adapter folder (the demo's); none: all")
    parser.add_argument("--data", default=str(DEMO / "train.jsonl"), help="training data (the demo's)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="number format of the weights")
    parser.add_argument("--device", help="cpu, cuda … (a GPU where there is one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def load(chosen: argparse.Namespace, rows: int | None) -> tuple[LanguageModel, list[Encoded]]:
    """The model and the first `rows` examples (all of them for None) as token sequences."""
    adapter = None if chosen.adapter in ("", "none") else Path(chosen.adapter)
    model = load_model(chosen.model, adapter, device=chosen.device, precision=chosen.precision)
    examples = read_examples(chosen.data)[:rows]
    return model, [model.encode(example.messages, example.response) for example in examples]


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, what it leaves a GPU to do included."""
    settle()
    started = time.perf_counter()
    work()
    settle()
    return time.perf_counter() - started


def settle() -> None:
    """Wait until the GPU, where one is used, has done all it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def median_seconds(work: Callable[[], object], times: int = 5) -> float:
    """The median of several runs, after one that doesn't count."""
    work()
    return statistics.median(seconds(work) for _ in range(times))


class PeakMemory:
    """The most memory this process holds from now on, beyond what it holds now."""

    def __init__(self) -> None:
        """Begin; Linux forgets the peak so far when told so."""
        # What loading the model left to the allocator isn't the model's.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = psutil.Process().memory_info().rss

    def beyond(self) -> int:
        """Bytes, pages of mapped files included."""
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        return peak - self._before


def show(figures: Mapping[str, Any], as_json: bool) -> None:
    """Print the figures; a list of them as a table."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        if isinstance(value, list):
            print(pd.DataFrame(value).to_string(index=False, float_format=lambda x: f"{x:.4f}"))
        else:
            print(f"{name:22} {value:.5g}" if isinstance(value, float) else f"{name:22} {value}")
