"""What commands share at a terminal: numbers among their options, lines, progress bars, the engine over a cache."""

import argparse
import math
import sys
from typing import Any


def positive(text: str) -> int:
    """An option's whole number from one on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def count(text: str) -> int:
    """An option's whole number from nought on."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def rate(text: str) -> float:
    """An option's number above nought."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return number


def moments(text: str) -> int | tuple[float, ...]:
    """How many moments, as a whole number, or which ones, as numbers above nought with commas or a point in them."""
    try:
        return positive(text) if text.isdigit() else tuple(rate(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither so many moments nor epochs such as 0.05,1") from None


def other_model(command: argparse.ArgumentParser) -> None:
    """Options that take another model than the one that a cache names."""
    command.add_argument("--model", default="", help="base model, if it isn't where the cache says")
    command.add_argument("--adapter", default="", help="adapter folder, if it isn't where the cache says")
    command.add_argument("--template", default="", help="prompt template, if it isn't where the cache says")
    command.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")


def engine_of(options: argparse.Namespace, ray: Any = None) -> Any:
    """The engine over the cache that the options name, with the model that they, or it, name."""
    from explorer.serving.session import open_engine

    workers = options.workers if ray else 0
    cache, model, adapter = options.cache, options.model, options.adapter
    return open_engine(cache, model, adapter, options.template, options.device, say, ray, workers)


def say(line: str) -> None:
    """A line for a person, beside what the command prints."""
    print(line, file=sys.stderr, flush=True)


class Bars:
    """Progress bars with the time left: one a stage, and another where a stage begins again."""

    def __enter__(self) -> "Bars":
        """None is shown yet."""
        self._stage, self._bar = "", None
        return self

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """So much of a stage is done."""
        from tqdm import tqdm

        bar: Any = self._bar
        if bar is None or stage != self._stage or total != bar.total or done < bar.n:
            self.__exit__()
            bar = tqdm(total=total, desc=stage, initial=done - 1, mininterval=1.0)
            self._stage, self._bar = stage, bar
        bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)

    def __exit__(self, *_: object) -> None:
        """The bar ends."""
        if self._bar is not None:
            self._bar.close()
