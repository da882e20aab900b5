"""What decides an adapter besides model and data: its shape, the order of the rows, the rate of every step.

The loss is Eq. 1 of the paper: the mean over all response tokens of a batch.
AdamW without weight decay, cosine decay to zero. No activations are dropped, whatever the base was made with.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

OPTIMIZER = "AdamW, no weight decay, cosine decay to zero"
"""What the training record calls it."""


@dataclass(frozen=True)
class FinetuneSettings:
    """What decides the adapter, besides model and data."""

    rank: int = 16
    """Rank of every LoRA pair."""
    alpha: int = 32
    """LoRA scale is alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the linear layers that get a pair."""
    epochs: int = 2
    """Passes over the data."""
    learning_rate: float = 2e-3
    """Initial learning rate; it decays to zero along half a cosine."""
    batch_size: int = 4
    """Examples a step."""
    seed: int = 0
    """Decides the initial adapter and the order of the examples."""
    checkpoints: int | tuple[float, ...] = 1
    """How many moments of the training are kept, evenly spaced, or after how many epochs each; the last is the adapter
    itself."""
    mixed_precision: bool = False
    """Whether products with frozen weights are taken in bfloat16, and batches have no padding where the network allows
    it; see `explorer.gradients.mixed` and `explorer.gradients.packed`."""

    def recorded(self) -> dict[str, Any]:
        """As a record keeps them; mixed precision only where it is used, as in records from before there was any."""
        kept = asdict(self)
        if not self.mixed_precision:
            del kept["mixed_precision"]
        return kept


def lora_of(recipe: FinetuneSettings) -> Any:
    """The adapter's configuration, as peft takes it."""
    import peft

    return peft.LoraConfig(
        task_type="CAUSAL_LM", r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(recipe.targets)
    )


def batches(rows: int, recipe: FinetuneSettings, epoch: int) -> list[list[int]]:
    """The numbers of the rows of every step of an epoch, in an order of the epoch's own."""
    generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
    order = torch.randperm(rows, generator=generator).tolist()
    return [order[start : start + recipe.batch_size] for start in range(0, rows, recipe.batch_size)]


def decay(step: int, steps: int) -> float:
    """What the learning rate is multiplied by after so many of all steps: half a cosine, from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
