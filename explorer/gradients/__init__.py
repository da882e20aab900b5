"""Gradients of losses, by example, span or token, and their random projections (RapidGrads).

In come a model and encoded examples; out come gradients as named tensors, values
along a direction, and sketches as numpy arrays. It knows nothing of what is done
with them: no cache, no question, no score.
"""

from explorer.gradients.losses import (
    Gradient,
    directional_steps,
    directional_token_losses,
    divided,
    each_token,
    example_gradients,
    finished,
    gradient,
    group_count,
    inner_product,
    log_probabilities,
    loss_scale,
    normalised,
    norms,
    position_shares,
    response_logits,
    selected_loss,
    token_gradients,
    token_losses,
    token_steps,
    weighted,
    zeros,
)
from explorer.gradients.mixed import MIXED, has_units, mixed_precision, weights_in
from explorer.gradients.sketch import Sketcher, SketchSettings

__all__ = [
    "MIXED",
    "Gradient",
    "SketchSettings",
    "Sketcher",
    "directional_steps",
    "directional_token_losses",
    "divided",
    "each_token",
    "example_gradients",
    "finished",
    "gradient",
    "group_count",
    "has_units",
    "inner_product",
    "log_probabilities",
    "loss_scale",
    "mixed_precision",
    "normalised",
    "norms",
    "position_shares",
    "response_logits",
    "selected_loss",
    "token_gradients",
    "token_losses",
    "token_steps",
    "weighted",
    "weights_in",
    "zeros",
]
