"""What a seed shuffles, drawn once for all sketchers of a process: to a tiny model it would be most of the work."""

from collections.abc import Callable, Iterator
from functools import lru_cache

from explorer.gradients.sketch import Shuffle, SketchSettings, draw_shuffles


def once() -> Callable[[int, SketchSettings], Iterator[Shuffle]]:
    """What stands in for `draw_shuffles`. K decides nothing of it, so that sketches of any length share a draw."""

    @lru_cache(maxsize=4)
    def kept(padded: int, rounds: int, seed: int) -> list[Shuffle]:
        return list(draw_shuffles(padded, SketchSettings(1, rounds, seed)))

    return lambda padded, settings: iter(kept(padded, settings.rounds, settings.seed))
