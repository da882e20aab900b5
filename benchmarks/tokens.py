"""What token values cost: exact ones against one forward pass, cached ones against one backward pass."""

import statistics
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import Figures, load, options, seconds, show
from explorer import gradients
from explorer.cache import CacheSettings
from explorer.gradients import Sketcher, SketchSettings
from explorer.gradients.forward_mode import prepare_forward_mode
from explorer.model.language_model import LanguageModel
from explorer.normalisation import divisors
from explorer.records import Encoded
from precompute.sketches import token_shard


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=10, help="training examples measured (10)")
    chosen = parser.parse_args()
    model, encoded = load(chosen, chosen.rows + 1)
    show(measure(model, encoded[0], encoded[1:]), chosen.json)


def measure(model: LanguageModel, query: Encoded, examples: list[Encoded], sketcher: Sketcher | None = None) -> Figures:
    """One query against every example: forward-mode, forward only, a backward loop, and the token cache."""
    prepare_forward_mode()
    gradient = gradients.gradient(model, query)
    norms = gradients.norms(gradient)
    direction = gradients.divided(gradient, divisors(norms, "layer"))
    settings = CacheSettings()
    sketcher = sketcher or Sketcher(model.fingerprint.layout, SketchSettings(settings.length), model.device)
    settings = replace(settings, token_length=min(settings.token_length, sketcher.settings.length))
    gradients.directional_token_losses(model, examples[0], direction)
    rows = [_one(model, direction, example, sketcher, settings, norms) for example in examples]
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {
        "examples": len(examples),
        **{name: value for name, value in middle.items() if name != "error"},
        "ratio": statistics.median(row["exact_s"] / row["forward_s"] for row in rows),
        "loop_over_exact": statistics.median(row["backward_loop_s"] / row["exact_s"] for row in rows),
        "cached_over_backward": statistics.median(row["cached_token_s"] / row["backward_s"] for row in rows),
        "max_rel_error": max(row["error"] for row in rows),
    }


def _one(
    model: LanguageModel,
    direction: gradients.Gradient,
    example: Encoded,
    sketcher: Sketcher,
    settings: CacheSettings,
    norms: np.ndarray,
) -> dict[str, float]:
    kept: dict[str, np.ndarray] = {}

    def forward() -> None:
        with torch.no_grad():
            gradients.token_losses(model, [example])

    def exact() -> None:
        kept["exact"] = gradients.directional_token_losses(model, example, direction)

    def loop() -> None:
        kept["loop"] = np.array(
            [gradients.inner_product(g, direction) for g in gradients.token_gradients(model, example)]
        )

    def cached() -> None:
        list(token_shard(model, sketcher, settings, {0: norms}, [(0, example)]))

    losses = gradients.token_losses(model, [example])[0]
    tensors = list(model.checkpoints[0].tensors.values())

    def backward() -> list[float]:
        return [seconds(lambda: torch.autograd.grad(losses[-1], tensors, retain_graph=True)) for _ in range(3)]

    # Once before and once after, so that a machine that slows down or speeds up meets both alike.
    before = backward()
    cached_s = seconds(cached) / example.response_length
    backward_s = statistics.median(before + backward())
    figures = {
        "forward_s": statistics.median(seconds(forward) for _ in range(3)),
        "exact_s": statistics.median(seconds(exact) for _ in range(3)),
        "backward_loop_s": seconds(loop),
        "backward_s": backward_s,
        "cached_token_s": cached_s,
    }
    error = np.abs(kept["exact"] - kept["loop"]).max() / np.abs(kept["loop"]).max()
    return figures | {"error": float(error)}


if __name__ == "__main__":
    main()
