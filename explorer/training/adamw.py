"""A step of AdamW without weight decay, and how a derivative passes through it backwards.

    m' = β₁m + (1 − β₁)g      m̂ = m'/(1 − β₁ᵗ)
    v' = β₂v + (1 − β₂)g²     v̂ = v'/(1 − β₂ᵗ)      θ' = θ − η m̂/(√v̂ + ε)

A state is one tensor (3, D): θ, m and v. Operations are those of `torch.optim.AdamW`, in its order, so that a step
here ends in the same bits.
"""

import torch

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""β₁ and β₂, and ε, as `torch.optim.AdamW` has them where nothing else is said."""


def corrections(number: int) -> tuple[float, float]:
    """1 − β₁ᵗ and 1 − β₂ᵗ of step `number`, counted from 1."""
    return 1 - BETAS[0] ** number, 1 - BETAS[1] ** number


def advanced(state: torch.Tensor, gradient: torch.Tensor, rate: float, number: int) -> torch.Tensor:
    """The state (3, D) after step `number`, counted from 1, by a gradient (D) and at a learning rate."""
    theta, m, v = state
    first, second = corrections(number)
    m = m.lerp(gradient, 1 - BETAS[0])
    v = (v * BETAS[1]).addcmul(gradient, gradient, value=1 - BETAS[1])
    theta = theta.addcdiv(m, v.sqrt() / second**0.5 + EPSILON, value=-rate / first)
    return torch.stack([theta, m, v])


def pulled_back(
    adjoint: torch.Tensor, after: torch.Tensor, gradient: torch.Tensor, rate: float, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A derivative by the state after a step, as one by the state before it (3, D) and by the step's gradient (D).

    `adjoint` is (3, D), `after` the state after the step. What passes through the gradient's own dependence on θ isn't
    in the first. Where v' = 0, which makes g and m' zero, too, nothing passes through v'.
    """
    (by_theta, by_m, by_v), (_, m, v) = adjoint, after
    first, second = corrections(number)
    root = v.sqrt() / second**0.5
    bottom = root + EPSILON
    step = by_theta * (rate / first) / bottom
    by_m = by_m - step
    by_v = by_v + torch.where(root > 0, step * m / bottom / (2 * second * root), 0)
    by_gradient = (1 - BETAS[0]) * by_m + 2 * (1 - BETAS[1]) * gradient * by_v
    return torch.stack([by_theta, BETAS[0] * by_m, BETAS[1] * by_v]), by_gradient
