"""What a trainer logged: losses and learning rates by step, and what the loss of the finished model should be.

A logged loss is the mean over the batches since the one before, each computed before the step that learnt from it. So
the finished model's own loss on its data lies below the last epoch's mean, and about where another epoch would begin.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.errors import ModelError, first_line
from explorer.text_files import json_lines, json_value, read_text

STATE, LLAMA_FACTORY_LOG = "trainer_state.json", "trainer_log.jsonl"


@dataclass(frozen=True)
class Entry:
    """One line of a log."""

    step: int
    epoch: float
    """How often the data had been read by then."""
    loss: float | None
    """The mean over the steps since the entry before; None where it says none."""
    learning_rate: float | None


@dataclass(frozen=True)
class Log:
    """All that a trainer logged."""

    entries: tuple[Entry, ...] = ()
    epochs: float = 0.0
    """How often the data was read in all; 0 where that isn't known."""
    steps: int = 0
    """How many steps were taken in all."""
    batch: int = 0
    """Examples a step and device; 0 where that isn't known."""

    def rate_at(self, step: int) -> float | None:
        """The learning rate of a step: that of the last entry up to it."""
        known = [entry.learning_rate for entry in self.entries if entry.step <= step]
        return next((rate for rate in reversed(known) if rate is not None), None)

    def mean_rate(self, after: int, step: int) -> float | None:
        """The mean learning rate of the steps behind `after`, up to `step`; where none was logged there, its last."""
        found = [e.learning_rate for e in self.entries if after < e.step <= step and e.learning_rate is not None]
        return float(np.mean(found)) if found else self.rate_at(step)

    @property
    def peak_rate(self) -> float | None:
        """The largest learning rate."""
        return max((entry.learning_rate for entry in self.entries if entry.learning_rate is not None), default=None)

    @property
    def expected(self) -> tuple[float, float] | None:
        """The least and the largest loss that the finished model should have on its data; None where nothing tells."""
        losses = [(entry.epoch, entry.loss) for entry in self.entries if entry.loss is not None]
        if not losses:
            return None
        end = losses[-1][0]
        # Of a training of less than two epochs the halves are compared.
        span = 1.0 if end >= 2 else end / 2
        last = [loss for epoch, loss in losses if epoch > end - span + 1e-9]
        before = [loss for epoch, loss in losses if end - 2 * span < epoch <= end - span + 1e-9]
        high = float(np.mean(last))
        fall = min(1.0, high / float(np.mean(before))) if before and np.mean(before) > 0 else 1.0
        return min(high * fall, last[-1]), max(high, last[-1])


def read_log(folder: Path) -> Log:
    """What was logged in a folder; an empty log where nothing was. Raises ModelError for a file that is damaged."""
    if (folder / STATE).is_file():
        return _of_trainer(folder / STATE)
    if (folder / LLAMA_FACTORY_LOG).is_file():
        return _of_llama_factory(folder / LLAMA_FACTORY_LOG)
    return Log()


def _of_trainer(path: Path) -> Log:
    text = read_text(path, "The trainer's state", ModelError)
    try:
        state = json_value(text)
        history = state.get("log_history") or []
        entries = [_entry(line, "learning_rate", "step") for line in history if "loss" in line]
        return Log(
            tuple(entries),
            _number(state.get("epoch")) or _number(state.get("num_train_epochs")) or 0.0,
            int(state.get("global_step") or 0),
            int(state.get("train_batch_size") or 0),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise ModelError(f"{path} is no trainer's state ({first_line(problem)}); copy it anew, or remove it.") from None


def _of_llama_factory(path: Path) -> Log:
    text = read_text(path, "The trainer's log", ModelError)
    lines = [line for _, line in json_lines(text, str(path), ModelError) if isinstance(line, dict)]
    try:
        entries = tuple(_entry(line, "lr", "current_steps") for line in lines if "loss" in line)
        last: Mapping[str, Any] = lines[-1] if lines else {}
        return Log(entries, _number(last.get("epoch")) or 0.0, int(last.get("current_steps") or 0))
    except (ValueError, TypeError, KeyError) as problem:
        raise ModelError(f"{path} is no trainer's log ({first_line(problem)}); copy it anew, or remove it.") from None


def _entry(line: Mapping[str, Any], rate: str, step: str) -> Entry:
    return Entry(int(line[step]), float(line.get("epoch") or 0.0), _number(line["loss"]), _number(line.get(rate)))


def _number(value: Any) -> float | None:
    """A finite number; None for anything else, such as the text of one that isn't finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
