"""Backwards through a training: the derivative of what it ended with by the weight of every row.

With weights w the training minimises Σ_k w_k Σ_i L(s_k^i) over the number of a batch's response tokens, and all w_k are
1. A function f of the final θ then has a derivative by every w_k: reverse-mode differentiation of all steps (MAGIC;
Ilyas and Engstrom, 2025), states made again from a few that are held. By the chain rule, from the last step to the
first, with λ the derivative of f by the state (θ, m, v) and λ_g that by the step's gradient g (`adamw.pulled_back`):

    ∂f/∂w_k += ⟨λ_g, ∂g/∂w_k⟩        λ_θ += (∂g/∂θ)ᵀ λ_g
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from explorer.errors import NonFiniteError
from explorer.training.adamw import pulled_back
from explorer.training.replay import Report, Trail

_STAGE = "training, backwards"


@dataclass(frozen=True)
class Halfway:
    """What is known when the derivative has passed some of the steps."""

    step: int
    """So many steps, the first ones, are still before it."""
    adjoint: torch.Tensor
    """Derivatives by the state there (Q, 3, D), of Q functions."""
    found: torch.Tensor
    """What the later steps add to the derivative by every row's weight (Q, N)."""


def begin(by_end: torch.Tensor, trail: Trail) -> Halfway:
    """Before the last step, from the derivatives (Q, D) by the θ that the training ended with."""
    replay = trail.replay
    adjoint = torch.stack([by_end, torch.zeros_like(by_end), torch.zeros_like(by_end)], dim=1)
    return Halfway(len(replay.batches), adjoint, by_end.new_zeros(len(by_end), len(replay.rows)))


def by_weights(trail: Trail, known: Halfway, report: Report, keep: Callable[[Halfway], None]) -> torch.Tensor:
    """The derivatives by every row's weight (Q, N); `trail` goes as far as what is known, and `keep` gets what is new.

    Raises NonFiniteError.
    """
    replay, adjoint, found = trail.replay, known.adjoint.clone(), known.found.clone()
    count = len(adjoint)
    # Every step is taken once more, and gone back through once for each function.
    total, done = len(replay.batches) * (count + 1), (len(replay.batches) - known.step) * (count + 1)
    for first in trail.stretches():
        states = []
        for place, state in enumerate(trail.stretch(first)):
            states.append(state)
            if place > 0:
                done += 1
                report(_STAGE, done, total)
        for step in reversed(range(first, first + len(states) - 1)):
            theta = states[step - first][0].detach().requires_grad_()
            weights = theta.new_ones(len(replay.batches[step])).requires_grad_()
            # Fused attention can't be differentiated twice.
            with sdpa_kernel(SDPBackend.MATH):
                loss = replay.loss(theta, step, weights)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            for number in range(count):
                before, by_gradient = pulled_back(
                    adjoint[number], states[step - first + 1], gradient.detach(), replay.rate(step), step + 1
                )
                by_theta, by_weights = torch.autograd.grad(
                    gradient, (theta, weights), by_gradient, retain_graph=number < count - 1
                )
                before[0] += by_theta
                adjoint[number] = before
                found[number, replay.batches[step]] += by_weights
                done += 1
                report(_STAGE, done, total)
            if not torch.isfinite(adjoint).all():
                raise NonFiniteError("a derivative", f"Step {step + 1} of the training, gone through backwards,")
        keep(Halfway(first, adjoint.clone(), found.clone()))
    return found
