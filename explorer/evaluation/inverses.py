"""Judges second-order methods by converged conjugate gradients on the same damped Gauss-Newton matrix.

Paper 002, Table 1: the same λ for all, the same curvature rows, scores of the
same candidates by exact inner products. Scores are compared by rank alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.engine import Engine
from explorer.errors import MethodError
from explorer.evaluation.exact import Directions
from explorer.gradients import Gradient
from explorer.gradients.sketch import generator
from explorer.methods.first_order.directions import at_checkpoint, forget, question_gradient
from explorer.methods.first_order.inner_products import GradientMethod
from explorer.methods.opening import open_method
from explorer.methods.second_order.curvature import flat, shaped
from explorer.methods.second_order.influence import ConjugateGradients, SecondOrder
from explorer.methods.second_order.solvers import conjugate_gradients
from explorer.records import Answer
from explorer.trust import spearman

REFERENCE = "cg, converged"
TOLERANCE = 1e-4
"""What is left of the question's gradient where conjugate gradients have converged."""

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class InverseSettings:
    """How much is computed."""

    methods: tuple[str, ...]
    damping: float
    """λ as a share of the Gauss-Newton matrix's largest eigenvalue, the same for all methods."""
    curvature_rows: int
    candidates: int
    """How many training rows are ranked."""
    iterations: int
    """The most that conjugate gradients may take to converge."""


@dataclass(frozen=True)
class Inverses:
    """What was found."""

    figures: dict[str, dict[str, float]]
    """By method: Spearman's correlation with the reference, seconds to fit and a question."""
    damping: float
    """λ."""
    products: list[int]
    """Gauss-Newton products of the reference, for every question."""
    left: float
    """The largest part of a question's gradient that the reference left unsolved."""


def judge_inverses(engine: Engine, questions: Sequence[Answer], settings: InverseSettings, report: Report) -> Inverses:
    """Rank the candidates for every question by every method; a method's fit is made anew, to be timed.

    Raises MethodError for a method that gives no direction.
    """
    reference = open_method(engine, f"cg:{settings.iterations}", settings.curvature_rows, report)
    assert isinstance(reference, ConjugateGradients)
    damping = settings.damping * reference.sharpness[0]
    methods = [_opened(engine, name, settings, damping, report) for name in settings.methods]
    figures: dict[str, dict[str, float]] = {REFERENCE: {"spearman": 1.0, "fit_seconds": 0.0, "seconds_a_question": 0.0}}
    for method in methods:
        start = time.perf_counter()
        method.prepare()
        figures[method.chosen.name] = {"fit_seconds": time.perf_counter() - start, "seconds_a_question": 0.0}
    asked, products, left = list[Gradient](), list[int](), 0.0
    for answer in questions:
        start = time.perf_counter()
        direction, count, rest = _converged(engine, reference, answer, damping, settings.iterations)
        figures[REFERENCE]["seconds_a_question"] += (time.perf_counter() - start) / len(questions)
        asked.append(direction)
        products.append(count)
        left = max(left, rest)
        for method in methods:
            forget(engine.model)
            start = time.perf_counter()
            asked.append(method.direction(answer, None))
            spent = time.perf_counter() - start
            figures[method.chosen.name]["seconds_a_question"] += spent / len(questions)
    scores = _exact_scores(engine, asked, settings.candidates, report)
    by_question = scores.reshape(len(scores), len(questions), len(figures))
    for place, method in enumerate(methods, start=1):
        found = [spearman(each[:, 0], each[:, place]) for each in by_question.transpose(1, 0, 2)]
        figures[method.chosen.name] = {"spearman": float(np.mean(found)), **figures[method.chosen.name]}
    return Inverses(figures, damping, products, left)


def _opened(engine: Engine, name: str, settings: InverseSettings, damping: float, report: Report) -> GradientMethod:
    method = open_method(engine, name, settings.curvature_rows, report)
    if not isinstance(method, GradientMethod) or method.kind != "none":
        raise MethodError(f"{name} preconditions no gradient; ihvp compares second-order methods, and graddot.")
    method.anew = True
    if isinstance(method, SecondOrder):
        method.common_damping = damping
    return method


def _converged(
    engine: Engine, reference: ConjugateGradients, answer: Answer, damping: float, iterations: int
) -> tuple[Gradient, int, float]:
    """(G + λ)⁻¹ q, how many products it took, and the share of q that isn't solved."""
    model, count = at_checkpoint(engine.model, ""), 0
    counted = reference.counted(iterations)

    def product(v: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return counted(v)

    q = flat(model, question_gradient(model, answer, None, "none"))
    x = conjugate_gradients(product, q, damping, iterations, TOLERANCE)
    rest = q - reference.curvature(x) - damping * x
    return shaped(model, x), count, float(rest.norm() / q.norm())


def _exact_scores(
    engine: Engine, directions: Sequence[Gradient], candidates: int, report: Report
) -> NDArray[np.float64]:
    """⟨direction, ∇L(s)⟩ of some training rows (candidates, directions)."""
    model, together = at_checkpoint(engine.model, ""), Directions(directions)
    store, found = engine.store, []
    order = generator(0, "candidates", store.manifest.data_sha256).permutation(store.manifest.rows)
    for row in map(int, order[:candidates]):
        found.append(together(gradients.gradient(model, store.examples[row].encoded)))
        report("candidates", len(found), min(candidates, len(order)))
    return np.stack(found)
