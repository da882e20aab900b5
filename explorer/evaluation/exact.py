"""Normalised training gradients, and their inner products with many directions at once, without any sketch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.gradients import Gradient
from explorer.model.language_model import LanguageModel
from explorer.normalisation import divisors
from explorer.records import Encoded


def normalised(model: LanguageModel, encoded: Encoded, kind: str) -> Gradient:
    """The gradient of the mean response loss at all of the model's checkpoints, divided by its own norms."""
    gradient = gradients.gradient(model, encoded)
    return gradients.divided(gradient, divisors(gradients.norms(gradient), kind))


class Directions:
    """Some directions (Q), held as one matrix a tensor, so that a gradient meets all of them in one product."""

    def __init__(self, directions: Sequence[Gradient]):
        """All are of the same tensors."""
        self._stacked = {
            name: torch.stack([each[name].flatten().float() for each in directions]) for name in directions[0]
        }

    def __call__(self, gradient: Gradient) -> NDArray[np.float64]:
        """⟨direction, gradient⟩ for every direction (Q)."""
        parts = [self._stacked[name] @ part.flatten().float() for name, part in gradient.items()]
        return np.asarray(torch.stack(parts).double().sum(0).cpu().numpy())
