"""What the commands' work shares at a terminal: lines, costs said first, progress bars, the engine over a cache."""

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from explorer.commands.options import Options
from explorer.errors import Cancelled


def say(line: str) -> None:
    """A line for a person, beside what the command prints."""
    print(line, file=sys.stderr, flush=True)


def say_all(lines: Iterable[str]) -> None:
    """Lines for a person, beside what the command prints."""
    for line in lines:
        say(line)


def reading_of(options: Options) -> Any:
    """How the data is to be read."""
    from precompute.data import Reading, named_columns

    return Reading(options.split, options.config, named_columns(options.column))


def counting_of(options: Options) -> Any:
    """Which tokens of a row are in the loss."""
    from explorer.records import Counting

    return Counting(options.loss or "last", options.end or "", options.max_length or 0, options.chunk)


def announcer(estimate: bool, first: str = "") -> Callable[[object], None]:
    """Says what something will cost, after a line of its own; that is all when only an estimate was asked for."""

    def announce(cost: object) -> None:
        if first:
            say(first)
        say(str(cost))
        if estimate:
            raise Cancelled("nothing was written")

    return announce


def engine_of(options: Options, ray: Any = None) -> Any:
    """The engine over the cache that the options name, with the model that they, or it, name."""
    from explorer.serving.session import open_engine

    workers = options.workers or 0 if ray else 0
    cache, model, adapter = options.cache, options.model, options.adapter
    return open_engine(cache, model, adapter, options.template, options.device, say, ray, workers)


def ray_of(options: Options) -> AbstractContextManager[Any]:
    """A connection to Ray where that was asked for."""
    from explorer.retrieval.cluster import cluster

    return cluster(options.address) if options.engine == "ray" else nullcontext()


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
