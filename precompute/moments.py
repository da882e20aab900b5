"""Where gradients are taken when nobody says: by one rule, from the model and the losses of its training data alone.

A model that has learnt its data has hardly any gradient left on it. On the straight way from the base to the model
(`explorer.model.way`) the mean loss of the training examples falls. The rule takes the two points at which it has
fallen by a third and by two thirds of what it falls in all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from explorer import gradients
from explorer.model.checkpoints import FINAL
from explorer.model.language_model import LanguageModel
from explorer.model.way import point_name
from explorer.records import Encoded
from precompute.sketches import check_losses

SHARES = (1 / 3, 2 / 3)
"""How much of its fall the loss has behind it at the points."""
ROWS = 48
"""So many examples, at even distances in the data, tell the mean loss."""
TOLERANCE = 0.02
"""A point is found when the loss there is as near as this to what it should be, as a share of its whole fall."""
_STEPS = 8
"""A point is looked for no longer than this."""
_TOGETHER = 8

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Moments:
    """Where gradients are taken, and why."""

    names: str
    """As `load_model` takes them."""
    reason: str
    """In one sentence for a person."""


def moments_by_rule(
    model: LanguageModel, encoded: Mapping[int, Encoded], report: Report = lambda stage, done, total: None
) -> Moments:
    """The points of the rule for a model and some of its training examples, or the final model where there is no way.

    The examples are given by their rows; `sampled` says which suffice. Costs one forward pass of them for each of about
    eight points. Raises NonFiniteError, naming the row, where a loss isn't finite.
    """
    if model.way.unknown:
        return Moments(FINAL, f"Gradients are taken at the final model alone: {model.way.unknown}.")
    curve = _Curve(model, encoded, report)
    base, final = curve(0.0), curve(1.0)
    if not final < base:
        found = [round(share, 2) for share in SHARES]
        doubt = (
            f"The fine-tuned model expects these examples no better than its base does (mean loss {final:.3g} and "
            f"{base:.3g}). Are they, and is the template, what it was trained with? "
        )
    else:
        found, doubt = [_rounded(curve.where(base - share * (base - final))) for share in SHARES], ""
    names = [point_name(alpha) for alpha in dict.fromkeys(found)]
    losses = f"the mean loss falls from {base:.3g} to {final:.3g} on this way"
    return Moments(
        ",".join(names),
        f"{doubt}Gradients are taken at {' and '.join(names)} of the way from the base to the fine-tuned model"
        + (f"; {losses}." if not doubt else "."),
    )


def sampled(rows: int) -> list[int]:
    """The rows, of so many, that tell the mean loss."""
    wanted = min(ROWS, rows)
    return [number * rows // wanted for number in range(wanted)]


def _rounded(alpha: float) -> float:
    """To two digits: small differences between machines shall not show in a cache."""
    return float(f"{alpha:.2g}")


class _Curve:
    """The mean loss of some training examples over the way, each point computed once."""

    def __init__(self, model: LanguageModel, encoded: Mapping[int, Encoded], report: Report):
        some = sorted(encoded.items(), key=lambda pair: len(pair[1].ids))
        self._model, self._report = model, report
        self._batches = [some[start : start + _TOGETHER] for start in range(0, len(some), _TOGETHER)]
        self._known: dict[float, float] = {}

    def __call__(self, alpha: float) -> float:
        """The mean over examples of the mean loss of their response tokens, at θ(α)."""
        if alpha not in self._known:
            trained = {**self._model.trainable, **self._model.held}
            tensors = self._model.way.at(alpha, trained)
            losses: list[float] = []
            with torch.no_grad():
                for batch in self._batches:
                    rows, items = zip(*batch, strict=True)
                    for row, each in zip(rows, gradients.token_losses(self._model, items, tensors), strict=True):
                        check_losses(row, each.float().cpu().numpy(), point_name(alpha))
                        losses.append(float(each.mean()))
            self._known[alpha] = float(np.mean(losses))
            self._report("points on the way", len(self._known), max(_STEPS, len(self._known)))
        return self._known[alpha]

    def where(self, loss: float) -> float:
        """The first α at which the loss has fallen so far, where it falls all along: by halving and by straight lines.

        The known points next to it are taken first; then in turns the point where a straight line between the
        neighbours has that loss, and the middle between them.
        """
        fall = self(0.0) - self(1.0)
        for step in range(_STEPS):
            below = min(alpha for alpha, found in self._known.items() if found <= loss)
            above = max(alpha for alpha, found in self._known.items() if found > loss and alpha < below)
            high, low = self(above), self(below)
            # Where a line would hardly leave one end, the middle is better.
            share = (high - loss) / (high - low) if step % 2 == 0 else 0.5
            alpha = above + min(max(share, 0.1), 0.9) * (below - above)
            if abs(self(alpha) - loss) <= TOLERANCE * fall:
                return alpha
        return alpha
