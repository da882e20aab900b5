"""Influence functions: the question's gradient, preconditioned by a damped inverse curvature of some training rows.

⟨P q, ∇L(s)⟩ with P in place of (G + λ)⁻¹: only the question is preconditioned,
so that the cached sketches serve as they are. Scores carry no e·η.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import Arrays
from explorer.concurrency import cached
from explorer.gradients import Gradient
from explorer.methods.first_order import directions
from explorer.methods.first_order.inner_products import GradientMethod
from explorer.methods.method import NotFitted
from explorer.methods.second_order import solvers
from explorer.methods.second_order.curvature import GaussNewton, curvature_rows, flat, shaped
from explorer.records import Answer, Encoded, Selection

DAMPING = 0.01
"""λ of the Gauss-Newton matrix, as a share of its largest eigenvalue."""
OWN_DAMPING = 0.1
"""λ of one tensor in DataInf and EK-FAC, as a share of the mean eigenvalue (Grosse et al., 2023)."""
_HELD = 1 << 27
"""DataInf holds its rows' gradients where they are no more numbers than these: half a gigabyte."""
_TOP_STEPS = 6
"""Products for the largest eigenvalue of G."""
_MOST_VECTORS = 1000
"""As many eigenvectors may be asked for; each is as long as the gradient."""
_ROW_STEPS = 4
"""And for that of each row, which need only be right within a factor of two."""


class SecondOrder(GradientMethod):
    """A question's gradient times a preconditioner."""

    common_damping: float | None = None
    """λ in place of the method's own, where methods are compared that differ in all else."""

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """P q."""
        return self.preconditioned(directions.question_gradient(self.model, answer, selection, "none"))

    def preconditioned(self, q: Gradient) -> Gradient:
        """P q for a gradient at the method's checkpoint."""
        raise NotImplementedError

    @cached
    def curvature_rows(self) -> list[int]:
        """The training rows that stand for all."""
        store = self.engine.store
        return curvature_rows(store.manifest.data_sha256, store.manifest.rows, self.rows)

    @cached
    def encoded(self) -> list[Encoded]:
        """Their token sequences."""
        return [self.engine.store.examples[row].encoded for row in self.curvature_rows]


class DataInf(SecondOrder):
    """DataInf (Kwon et al., 2023, Eq. 5), tensor by tensor.

    P v = (1/M) Σ_k (v − g_k⟨g_k, v⟩/(λ + ‖g_k‖²))/λ over M rows, λ a tenth of
    the mean of ‖g_k‖² over all training rows and the tensor's size.
    """

    @property
    def slow(self) -> bool:  # type: ignore[override]
        """Whether the rows' gradients are too large together to be held for the next question."""
        return len(self.encoded) * self.model.fingerprint.parameters > _HELD

    def prepare(self) -> None:
        """One backward pass over every curvature row, where what it gives can be held."""
        if self.kept_alone and not self.slow:
            raise NotFitted
        _ = self._held

    def preconditioned(self, q: Gradient) -> Gradient:
        """Two inner products for every curvature row and tensor."""
        (point,), rows = self.model.checkpoints, self.encoded
        squares = directions.training_norms(self.engine, self.model).astype(np.float64) ** 2
        sizes = np.array([part.numel() for part in q.values()])
        damping = dict(zip(q, OWN_DAMPING * squares.mean(axis=0) / sizes, strict=True))
        if self.common_damping is not None:
            damping = dict.fromkeys(q, self.common_damping)
        removed = {name: torch.zeros_like(part, dtype=torch.float64) for name, part in q.items()}

        def receive(_: int, parts: Mapping[str, torch.Tensor]) -> None:
            for name, part in parts.items():
                g, v = part.double(), q[name].double()
                bottom = damping[name] + float((g * g).sum())
                if bottom > 0:
                    removed[name] += g * (float((g * v).sum()) / bottom)

        for held in self._held:
            receive(0, held)
        for number, encoded in enumerate(rows if not self._held else (), start=1):
            gradients.example_gradients(self.model, point, [encoded], receive)
            self.report("curvature rows", number, len(rows))
        return {
            name: ((part.double() - removed[name] / len(rows)) / damping[name]).to(part.dtype)
            if damping[name] > 0
            else torch.zeros_like(part)
            for name, part in q.items()
        }

    @cached
    def _held(self) -> list[Gradient]:
        """The rows' gradients, for all questions; none where they would be too large together."""
        if self.slow:
            return []
        held = []
        for encoded in self.encoded:
            held.append(gradients.gradient(self.model, encoded))
            self.report("curvature rows", len(held), len(self.encoded))
        return held


class _Fitted(SecondOrder):
    """What the methods of Gauss-Newton products share."""

    def prepare(self) -> None:
        """Find the largest eigenvalues."""
        # What can't be used is refused before there is work for it.
        self.chosen.number(1)
        _ = self.sharpness

    @cached
    def curvature(self) -> GaussNewton:
        """G of the curvature rows."""
        return GaussNewton(self.model, self.encoded, self.curvature_rows)

    @cached
    def sharpness(self) -> tuple[float, float]:
        """The largest eigenvalue of G, and that of any row's own."""

        def make() -> Arrays:
            start, count = self.curvature.start("sharpness"), len(self.encoded)
            top = solvers.largest_eigenvalue(self.counted(_TOP_STEPS), start, _TOP_STEPS)
            rows = []
            for row in range(count):
                rows.append(solvers.largest_eigenvalue(partial(self.curvature.of_row, row), start, _ROW_STEPS))
                self.report("largest eigenvalue of every row", row + 1, count)
            return {"top": np.array([top], dtype=np.float32), "rows": np.array(rows, dtype=np.float32)}

        kept = self.fitted("sharpness", make, **self.settings)
        return float(kept["top"][0]), float(kept["rows"].max())

    @property
    def settings(self) -> Mapping[str, object]:
        """What a fit depends on besides the cache."""
        return {"rows": self.curvature_rows, "checkpoint": self.model.checkpoints[0].name}

    @property
    def damping(self) -> float:
        """λ."""
        return DAMPING * self.sharpness[0] if self.common_damping is None else self.common_damping

    def counted(self, total: int) -> solvers.Operator:
        """G, of which so many products at most are reported as they come, row by row."""
        done = 0

        def rows_done(count: int) -> None:
            nonlocal done
            done += count
            self.report("Gauss-Newton products, row by row", done, max(done, total * len(self.encoded)))

        return lambda v: self.curvature(v, rows_done)


class ConjugateGradients(_Fitted):
    """(G + λ)⁻¹ q by conjugate gradients."""

    slow = True

    def preconditioned(self, q: Gradient) -> Gradient:
        """A product with G an iteration."""
        iterations = self.chosen.number(10)
        v = flat(self.model, q)
        found = solvers.conjugate_gradients(self.counted(iterations), v, self.damping, iterations)
        return shaped(self.model, found)


class Lissa(_Fitted):
    """(G + λ)⁻¹ q by LiSSA, a row at a time (Agarwal et al., 2017)."""

    slow = True

    def preconditioned(self, q: Gradient) -> Gradient:
        """A product with one row's Gauss-Newton matrix a step, the rows in turn."""
        steps, scale = self.chosen.number(100), self.sharpness[1] + self.damping
        products = (partial(self._step, step, steps) for step in range(steps))
        return shaped(self.model, solvers.lissa(products, flat(self.model, q), self.damping, scale))

    def _step(self, step: int, steps: int, v: torch.Tensor) -> torch.Tensor:
        found = self.curvature.of_row(step % len(self.encoded), v)
        self.report("LiSSA's steps", step + 1, steps)
        return found


class Arnoldi(_Fitted):
    """The inverse of G within its largest eigenvectors (Schioppa et al., 2022), damped."""

    def prepare(self) -> None:
        """Find them, by twice as many products."""
        _ = self._pairs

    def preconditioned(self, q: Gradient) -> Gradient:
        """Σ_i u_i⟨u_i, q⟩/(λ_i + λ)."""
        values, vectors = self._pairs
        along = vectors @ flat(self.model, q)
        damping = DAMPING * values.max() if self.common_damping is None else self.common_damping
        return shaped(self.model, (along / (values + damping)) @ vectors)

    @cached
    def _pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues (n) and eigenvectors (n, D)."""
        count = self.chosen.number(10, most=_MOST_VECTORS)

        def make() -> Arrays:
            steps = 2 * count
            values, vectors = solvers.arnoldi(self.counted(steps), self.curvature.start("arnoldi"), steps)
            # What rounding makes of eigenvalues that are zero is left out.
            kept = values > 1e-6 * values.max()
            values, vectors = values[kept][-count:], vectors[kept.to(vectors.device)][-count:]
            return {"values": _single(values), "vectors": _single(vectors)}

        kept = self.fitted("arnoldi", make, count=count, **self.settings)
        like = self.curvature.start("arnoldi")
        return torch.tensor(kept["values"]).to(like), torch.tensor(kept["vectors"]).to(like)


def _single(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()
