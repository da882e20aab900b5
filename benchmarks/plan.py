"""What caches of many examples need: computed from measured figures and stated assumptions, nothing is run.

`docs/scaling.md` shows the table; a test compares the two.
"""

import argparse
from dataclasses import dataclass
from math import ceil

from precompute.estimate import duration, volume

# Measured, on two cores without a GPU; docs/measurements.md says how.
EXAMPLE_S = 0.19
"""Caching one example: SmolLM2-135M, LoRA of rank 16."""
TEXT = 253
"""Bytes an example of the demo needs in `examples.parquet`."""
READ = 34e9
"""Bytes a second that a scan reads from memory."""
DRIVER = 9.5e3
"""Bytes of the writing process's memory for one example of the demo."""

# Assumed.
PARAMETERS, TOKENS = 7e9, 200
"""A larger model with frozen weights, and the length of its examples."""
GPU_FLOPS = 1e14
"""Operations a second that one GPU sustains, a tenth of what a large one promises."""
GPU_PRICE, MEMORY_PRICE, DISK_PRICE = 2.5, 0.2, 0.08
"""US dollars: a GPU for an hour; a machine that holds shards for an hour; a gigabyte of SSD for a month."""
MEMORY = 48e9
"""Bytes of shards that such a machine (64 GB, two cores like those measured) keeps in memory."""
CACHE_ROWS = 10_000_000
"""Examples in one cache, bounded by the memory of the process that writes it."""
LAYERS = 240
"""L: adapters on four projections of 30 layers, two tensors each."""


@dataclass(frozen=True)
class Plan:
    """One column of the table."""

    rows: int
    """N."""
    length: int
    """K."""
    dtype: str
    gpus: int

    @property
    def level(self) -> float:
        """Bytes of all sketches, which a scan reads: N·(K·b + 4)."""
        return self.rows * (self.length * {"float16": 2, "int8": 1}[self.dtype] + 4)

    @property
    def size(self) -> float:
        """Bytes on disk: N·(K·b + 4 + 4·L + 4 + text)."""
        return self.level + self.rows * (4 * LAYERS + 4 + TEXT)

    @property
    def machines(self) -> int:
        """Machines that together keep all sketches in memory."""
        return ceil(self.level / MEMORY)

    @property
    def query_s(self) -> float:
        """Seconds for a scan by all machines at a time."""
        return self.level / (READ * self.machines)

    @property
    def small_s(self) -> float:
        """Seconds of work for the measured model."""
        return self.rows * EXAMPLE_S

    @property
    def large_s(self) -> float:
        """Seconds of work for the assumed model: a forward pass, and a backward pass without its weights' gradients."""
        return self.rows * 4 * PARAMETERS * TOKENS / GPU_FLOPS

    def column(self) -> list[str]:
        """The cells, in the order of `NAMES`."""
        return [
            f"{self.length:,}, {self.dtype}",
            volume(round(self.size)),
            str(ceil(self.rows / CACHE_ROWS)),
            volume(round(min(self.rows, CACHE_ROWS) * DRIVER)),
            duration(self.small_s / self.gpus),
            duration(self.large_s / self.gpus),
            f"${self.large_s / 3600 * GPU_PRICE:,.0f}",
            f"${self.size / 1e9 * DISK_PRICE:,.2f}",
            f"{self.machines:,}",
            f"{self.query_s:.2g} s",
            f"${self.machines * MEMORY_PRICE:,.2f}",
        ]


NAMES = (
    "K, format",
    "disk",
    "caches",
    "memory of the writing process",
    "time to cache, measured model",
    "time to cache, assumed model",
    "cost of that",
    "disk, a month",
    "machines that hold it in memory",
    "time per question",
    "cost of these machines, an hour",
)
PLANS = (
    Plan(52_002, 65_536, "float16", 1),
    Plan(1_000_000, 65_536, "int8", 8),
    Plan(100_000_000, 16_384, "int8", 256),
    Plan(1_000_000_000, 4_096, "int8", 1024),
)


def table() -> str:
    """The table in Markdown."""
    heads = ["examples", *(f"{plan.rows:,}" for plan in PLANS)]
    workers = ["workers", *(f"{plan.gpus:,}" for plan in PLANS)]
    cells = [[name, *row] for name, *row in zip(NAMES, *(plan.column() for plan in PLANS), strict=True)]
    rows = [heads, ["---"] * len(heads), workers, *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(table())
