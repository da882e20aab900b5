"""Approximate solutions of (A + λ)x = v for a symmetric positive A that is known by its products alone.

Vectors (D) are torch tensors of one dimension. It knows nothing of models.
"""

from collections.abc import Callable, Iterable

import torch

Operator = Callable[[torch.Tensor], torch.Tensor]
"""v ↦ Av."""


def conjugate_gradients(
    operator: Operator,
    v: torch.Tensor,
    damping: float,
    iterations: int,
    tolerance: float = 1e-5,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """The solution by conjugate gradients (Hestenes and Stiefel, 1952), from 0 or from a first guess (D).

    A guess takes a product more. It ends after so many iterations, or once what is left is less than
    `tolerance` of v.
    """
    x = torch.zeros_like(v) if start is None else start
    left = v.clone() if start is None else v - operator(start) - damping * start
    direction, size = left.clone(), left @ left
    for _ in range(iterations):
        if float(size) <= tolerance**2 * float(v @ v):
            break
        moved = operator(direction) + damping * direction
        step = size / (direction @ moved)
        x = x + step * direction
        left = left - step * moved
        size, before = left @ left, size
        direction = left + size / before * direction
    return x


def lissa(operators: Iterable[Operator], v: torch.Tensor, damping: float, scale: float) -> torch.Tensor:
    """The solution by the recursion x ← v + x − (A_j + λ)x/σ, divided by σ; one operator A_j a step (LiSSA).

    With one A throughout it is the truncated Neumann series of its inverse. It
    converges where no A_j + λ stretches anything by more than 2σ.
    """
    x = v
    for operator in operators:
        x = v + x - (operator(x) + damping * x) / scale
    return x / scale


def arnoldi(operator: Operator, start: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Approximate eigenvalues (n), ascending, and eigenvectors (n, D) by Arnoldi's iteration, n ≤ steps.

    The basis is made orthogonal twice, which rounding asks for; the matrix
    within it is made symmetric.
    """
    basis = [start / start.norm()]
    inner = torch.zeros(steps, steps, dtype=torch.float64)
    for step in range(steps):
        moved = operator(basis[step])
        before = moved.norm()
        for _ in range(2):
            for number, known in enumerate(basis):
                along = known @ moved
                inner[number, step] += float(along)
                moved = moved - along * known
        if step + 1 == steps or float(moved.norm()) <= 1e-6 * float(before):
            break
        inner[step + 1, step] = float(moved.norm())
        basis.append(moved / moved.norm())
    inner = inner[: len(basis), : len(basis)]
    values, rotation = torch.linalg.eigh((inner + inner.T) / 2)
    vectors = rotation.T.to(start) @ torch.stack(basis)
    return values, vectors


def largest_eigenvalue(operator: Operator, start: torch.Tensor, steps: int) -> float:
    """The largest eigenvalue, a little too small, by so many products."""
    return float(arnoldi(operator, start, steps)[0][-1])
