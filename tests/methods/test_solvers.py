"""Solvers of (A + λ)x = v against dense linear algebra."""

from functools import partial

import numpy as np
import pytest
import torch

from explorer.methods.second_order import solvers


def symmetric(size: int, rank: int, seed: int = 0) -> torch.Tensor:
    """A positive semidefinite matrix of a rank, with eigenvalues around one."""
    random = np.random.default_rng(seed)
    half = torch.from_numpy(random.normal(size=(size, rank)))
    return half @ half.T / rank


@pytest.fixture
def a() -> torch.Tensor:
    return symmetric(30, 30)


@pytest.fixture
def v() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=30))


def solved(a: torch.Tensor, v: torch.Tensor, damping: float) -> torch.Tensor:
    return torch.linalg.solve(a + damping * torch.eye(len(a), dtype=torch.float64), v)


def test_conjugate_gradients_find_the_solution(a: torch.Tensor, v: torch.Tensor) -> None:
    found = solvers.conjugate_gradients(partial(torch.mv, a), v, 0.1, 60, 1e-12)
    assert torch.allclose(found, solved(a, v, 0.1), rtol=1e-8, atol=1e-10)


def test_conjugate_gradients_come_nearer_with_every_iteration(a: torch.Tensor, v: torch.Tensor) -> None:
    right = solved(a, v, 0.1)
    far = [
        float((solvers.conjugate_gradients(partial(torch.mv, a), v, 0.1, count) - right).norm()) for count in range(12)
    ]
    assert far == sorted(far, reverse=True) and far[-1] < far[0] / 10


def test_conjugate_gradients_go_on_from_a_guess(a: torch.Tensor, v: torch.Tensor) -> None:
    right = solved(a, v, 0.1)
    guess = right + 0.01 * torch.flip(right, [0])
    found = [solvers.conjugate_gradients(partial(torch.mv, a), v, 0.1, 4, start=start) for start in (None, guess)]
    assert (found[1] - right).norm() < 0.1 * (found[0] - right).norm()
    at_once = solvers.conjugate_gradients(partial(torch.mv, a), v, 0.1, 0, start=right)
    assert torch.equal(at_once, right)


def test_conjugate_gradients_of_nothing_are_nothing(a: torch.Tensor) -> None:
    zero = torch.zeros(30, dtype=torch.float64)
    assert torch.equal(solvers.conjugate_gradients(partial(torch.mv, a), zero, 0.1, 5), zero)


def test_lissa_with_one_matrix_is_its_neumann_series(a: torch.Tensor, v: torch.Tensor) -> None:
    scale, damping, steps = 4.0, 0.1, 7
    shrunk = torch.eye(30, dtype=torch.float64) * (1 - damping / scale) - a / scale
    series = sum((torch.linalg.matrix_power(shrunk, power) @ v for power in range(steps + 1)), torch.zeros_like(v))
    found = solvers.lissa([partial(torch.mv, a)] * steps, v, damping, scale)
    assert torch.allclose(found, series / scale)


def test_lissa_converges_to_the_solution(a: torch.Tensor, v: torch.Tensor) -> None:
    scale = float(torch.linalg.eigvalsh(a).max())
    found = solvers.lissa([partial(torch.mv, a)] * 2000, v, 0.1, scale)
    assert torch.allclose(found, solved(a, v, 0.1), rtol=1e-6, atol=1e-8)


def test_lissa_takes_the_matrices_in_turn(a: torch.Tensor, v: torch.Tensor) -> None:
    b = symmetric(30, 30, seed=2)
    x = v
    for matrix in (a, b, a):
        x = v + x - (matrix @ x + 0.1 * x) / 5.0
    found = solvers.lissa([partial(torch.mv, matrix) for matrix in (a, b, a)], v, 0.1, 5.0)
    assert torch.allclose(found, x / 5.0)


def test_arnoldi_finds_all_eigenpairs_in_as_many_steps_as_there_are(a: torch.Tensor, v: torch.Tensor) -> None:
    values, vectors = solvers.arnoldi(partial(torch.mv, a), v, 30)
    assert torch.allclose(values, torch.linalg.eigvalsh(a))
    assert torch.allclose(vectors @ vectors.T, torch.eye(30, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(vectors @ a, values[:, None] * vectors, atol=1e-8)


def test_arnoldi_stops_where_there_is_nothing_more(v: torch.Tensor) -> None:
    low = symmetric(30, 3)
    values, vectors = solvers.arnoldi(partial(torch.mv, low), v, 20)
    assert len(values) == len(vectors) <= 5, "a matrix of rank 3 and a start outside it span four dimensions"
    assert torch.allclose(values[-3:], torch.linalg.eigvalsh(low)[-3:])


def test_few_steps_find_the_largest_eigenvalue_from_below(a: torch.Tensor, v: torch.Tensor) -> None:
    right = float(torch.linalg.eigvalsh(a).max())
    found = solvers.largest_eigenvalue(partial(torch.mv, a), v, 6)
    assert 0.9 * right < found <= right * (1 + 1e-9)
