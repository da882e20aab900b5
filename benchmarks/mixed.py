"""Mixed precision beside float32: a training step, a whole short training, and the examples that a cache leads to."""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Figures, load, options, show
from explorer import gradients
from explorer.cache import CacheSettings
from explorer.engine import make_sketcher
from explorer.evaluation.exact import Directions, normalised
from explorer.evaluation.fidelity import TOP
from explorer.methods.attributor import SPARE
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.retrieval import ranked
from explorer.training.recipe import FinetuneSettings
from precompute.finetune import train
from precompute.sketches import NormalisedSketch

_BATCH = 4


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--part", choices=("training", "agreement"), required=True)
    parser.add_argument("--rows", type=int, default=200, help="examples (200)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of the training (1)")
    parser.add_argument("--queries", type=int, default=20, help="questions of the agreement: examples, too (20)")
    parser.add_argument("--checkpoints", default="25%,51%", help="where gradients are taken (25%%,51%%)")
    chosen = parser.parse_args()
    if chosen.part == "training":
        chosen.adapter = "none"
        show(training(*load(chosen, chosen.rows), epochs=chosen.epochs), chosen.json)
        return
    adapter = Path(chosen.adapter)
    model = load_model(
        chosen.model, adapter, device=chosen.device, checkpoints=chosen.checkpoints, precision="float32", tensors=None
    )
    _, encoded = load(chosen, None)
    spaced = encoded[:: max(1, len(encoded) // (chosen.rows + chosen.queries))]
    show(agreement(model, spaced[: chosen.queries], spaced[chosen.queries :][: chosen.rows]), chosen.json)


def training(model: LanguageModel, encoded: Sequence[Encoded], epochs: int) -> Figures:
    """The same training both ways: medians of its steps, in time of the processor, and what it ends with."""
    steps: dict[bool, list[float]] = {}
    losses: dict[bool, float] = {}
    last: dict[bool, float] = {}
    for mixed in (False, True):
        clock = _Steps()
        with TemporaryDirectory() as folder:
            settings = FinetuneSettings(epochs=epochs, mixed_precision=mixed)
            network, found, _ = train(model, encoded, settings, clock, Path(folder))
        # What was learnt, computed alike for both.
        losses[mixed] = _mean_loss(model, encoded)
        network.unload()
        steps[mixed], last[mixed] = clock.seconds, found[-1]
    return {
        "steps": len(steps[True]),
        "float32_step_s": statistics.median(steps[False]),
        "mixed_step_s": statistics.median(steps[True]),
        "times_as_fast": statistics.median(a / b for a, b in zip(steps[False], steps[True], strict=True)),
        "float32_last_epoch": last[False],
        "mixed_last_epoch": last[True],
        "float32_loss": losses[False],
        "mixed_loss": losses[True],
        "loss_difference": losses[True] / losses[False] - 1,
    }


class _Steps:
    """The processor's time that every step takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.process_time()

    def __call__(self, done: int, total: int, loss: float) -> None:
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now


def _mean_loss(model: LanguageModel, encoded: Sequence[Encoded]) -> float:
    """The mean over all response tokens, in float32."""
    with torch.no_grad():
        losses = [
            torch.cat(gradients.token_losses(model, encoded[start : start + _BATCH]))
            for start in range(0, len(encoded), _BATCH)
        ]
    return float(torch.cat(losses).mean())


def agreement(model: LanguageModel, queries: Sequence[Encoded], rows: Sequence[Encoded]) -> Figures:
    """How far sketches in either precision lead to the exact top ten: by themselves, and by thirty refined candidates.

    Questions are in float32, and so are exact products and the norms that they are divided by.
    """
    settings, sketcher = CacheSettings(normalisation="cosine"), make_sketcher(model, CacheSettings())
    asked = [normalised(model, query, settings.normalisation) for query in queries]
    questions, directions = np.stack([sketcher(each) for each in asked]), Directions(asked)
    exact, cosines, norms = [], [], []
    sketches: dict[bool, list[NDArray[np.float32]]] = {False: [], True: []}
    order = sorted(rows, key=lambda row: len(row.ids))
    for start in range(0, len(order), _BATCH):
        both = {mixed: _gradients(model, order[start : start + _BATCH], mixed) for mixed in sketches}
        for single, rounded in zip(both[False], both[True], strict=True):
            sizes = [float(gradients.inner_product(each, each)) ** 0.5 for each in (single, rounded)]
            exact.append(directions(single) / sizes[0])
            norms.append(sizes)
            cosines.append(gradients.inner_product(single, rounded) / sizes[0] / sizes[1])
            for mixed, gradient in ((False, single), (True, rounded)):
                sketch = NormalisedSketch(sketcher, list(gradient), settings.normalisation)
                sketch.add(gradient)
                sketches[mixed].append(sketch.values())
    true, factors = np.stack(exact), np.array(norms)
    factors = factors[:, 1] / factors[:, 0]
    figures: Figures = {"rows": len(rows), "queries": len(queries)}
    for name, mixed in (("float32", False), ("mixed", True)):
        scores = np.stack(sketches[mixed]) @ questions.T
        figures[f"{name}_top_ten"] = _overlap(true, scores, scores)
        figures[f"{name}_top_ten_refined"] = _overlap(true, scores, true)
    # What it would be if exact products were divided by the norms of a cache in mixed precision.
    figures["refined_by_mixed_norms"] = _overlap(true, scores, true / factors[:, None])
    return figures | {
        "one_minus_cosine_mean": 1 - float(np.mean(cosines)),
        "one_minus_cosine_most": 1 - min(cosines),
        "norm_difference_deviation": float(np.std(factors)),
        "norm_difference_most": float(np.abs(factors - 1).max()),
    }


def _gradients(model: LanguageModel, batch: Sequence[Encoded], mixed: bool) -> list[dict[str, torch.Tensor]]:
    """The gradient of every example of a batch, as caching takes it."""
    found: list[dict[str, torch.Tensor]] = [{} for _ in batch]

    def receive(number: int, parts: Mapping[str, torch.Tensor]) -> None:
        found[number].update({name: part.detach().clone() for name, part in parts.items()})

    with gradients.mixed_precision(model.network, mixed):
        for checkpoint in model.checkpoints:
            gradients.example_gradients(model, checkpoint, batch, receive)
    return found


def _overlap(exact: NDArray[Any], approximate: NDArray[Any], refined: NDArray[Any]) -> float:
    """The share of the exact top ten that is shown: of the approximate candidates, the ten best by refined scores."""
    found = []
    for true, first, then in zip(exact.T, approximate.T, refined.T, strict=True):
        candidates = ranked(first, TOP + SPARE)
        shown = candidates[np.argsort(-then[candidates], kind="stable")][:TOP]
        found.append(len(set(ranked(true, TOP).tolist()) & set(shown.tolist())) / TOP)
    return float(np.mean(found))


if __name__ == "__main__":
    main()
