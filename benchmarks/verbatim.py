"""What it costs to index the words of a training set, beside reading them, and to ask for the passages of a text.

The rows are made up, as many and as long as Alpaca's: words drawn by Zipf's law, a part of them repeated from row to
row. `floor_s` is the time that splitting all texts into words takes; nothing can be indexed without that.
"""

import argparse
import statistics
import time
from random import Random

import numpy as np

from benchmarks.common import show
from explorer.corpus.verbatim import MOST, VerbatimIndex, places

ROWS, PROMPT, RESPONSE = 52_002, 20, 45
"""Alpaca's rows, and the mean number of words of its prompts and responses."""
VOCABULARY = 80_000
SHARED = 0.2
"""So many rows say part of an earlier one again."""
ASKED = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="made-up training examples (52,002)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    examples = made_up(chosen.rows)
    started = time.perf_counter()
    words = sum(len(places(text)) for example in examples for text in example)
    floor = time.perf_counter() - started
    index, steps = VerbatimIndex(examples), list[float]()
    began = last = time.perf_counter()
    for _ in index.build():
        steps.append(time.perf_counter() - last)
        last = time.perf_counter()
    built = time.perf_counter() - began
    # What costs most: a whole row of the data; and a new text, of parts of many rows.
    random = Random(1)
    same = [asked(index, random.choice(examples)[1]) for _ in range(ASKED)]
    mixed = [asked(index, " ".join(random.choice(examples)[1][:60] for _ in range(10))) for _ in range(ASKED)]
    figures = {
        "rows": len(examples),
        "words": words,
        "floor_s": floor,
        "index_s": built,
        "over_floor": built / floor,
        "longest_step_s": max(steps),
        "row_median_ms": 1000 * statistics.median(same),
        "row_most_ms": 1000 * max(same),
        "mixed_median_ms": 1000 * statistics.median(mixed),
        "mixed_most_ms": 1000 * max(mixed),
    }
    show(figures, chosen.json)


def made_up(rows: int) -> list[tuple[str, str]]:
    """So many prompts and responses, the same each time."""
    drawn = np.random.default_rng(0)
    chances = 1 / np.arange(1, VOCABULARY + 1) ** 1.05
    names = [f"w{number:x}" for number in range(VOCABULARY)]
    lengths = drawn.geometric(1 / np.array([PROMPT, RESPONSE]), (rows, 2))
    found = list[tuple[str, str]]()
    pool = iter(drawn.choice(VOCABULARY, int(lengths.sum()), p=chances / chances.sum()).tolist())
    for prompt, response in lengths.tolist():
        first, second = ([names[next(pool)] for _ in range(length)] for length in (prompt, response))
        if found and drawn.random() < SHARED:
            second += found[drawn.integers(len(found))][1].split()[:12]
        found.append((" ".join(first), f"{' '.join(second)}."))
    return found


def asked(index: VerbatimIndex, text: str) -> float:
    """Seconds that the passages of a text take."""
    started = time.perf_counter()
    assert len(index.passages(text)) <= MOST
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
