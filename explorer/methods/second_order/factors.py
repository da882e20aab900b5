"""Eigenvalue-corrected Kronecker factors of every linear layer (EK-FAC; George et al., 2018), fitted to some rows.

A linear layer's Fisher matrix is approximated by U diag(Λ) Uᵀ with
U = U_B ⊗ U_A, the eigenvectors of the second moments of what comes back (δ,
with labels drawn for it) and of what enters (x); Λ is the mean square
of an example's gradient along them, the best for this basis. Other tensors
are left out, and the layer that gives the logits: one of its factors is as wide
as the vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from explorer.cache import Arrays
from explorer.concurrency import cached
from explorer.errors import NonFiniteError, about
from explorer.gradients import Gradient, loss_scale, response_logits
from explorer.gradients.capture import Call, Capture, outer
from explorer.gradients.sketch import generator
from explorer.methods.method import Report
from explorer.methods.second_order.curvature import batches
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded

_DRAWS = 64
"""Labels are drawn so often in all, if not more often than once a row: what few rows lack is made up by draws.

With 8 rows of SmolLM2's own weights, 8 draws a row in place of one raise
Spearman's correlation with conjugate gradients by 0.05 to 0.11, whatever λ.
"""
Damping = Callable[[torch.Tensor], float]
"""λ of a tensor, by its Λ."""


class Keeping(Protocol):
    """Keeps what is computed once, as a method does."""

    def fitted(self, name: str, make: Callable[[], Arrays], **settings: object) -> Arrays:
        """What was kept under a name, or what is made now."""

    def begun(self, name: str, make: Callable[[], Arrays], **settings: object) -> Arrays:
        """The same for what is needed until the fit is done."""

    def summed(
        self, name: str, start: Arrays, parts: int, add: Callable[[int, Arrays], None], **settings: object
    ) -> Arrays:
        """Sums over parts, from where a stopped run left them."""

    def forget(self, *names: str) -> None:
        """Remove what was begun under names."""


class Factors:
    """The factors of some rows at a model's one checkpoint, fitted once, in two passes; a stopped fit goes on."""

    def __init__(
        self,
        model: LanguageModel,
        rows: Mapping[int, Encoded],
        names: Sequence[str],
        keeping: Keeping,
        name: str,
        report: Report,
        **settings: object,
    ):
        """`rows` are token sequences by their numbers, `names` tensors, `name` and `settings` what it is kept under."""
        self._model, self._rows, self._names = model, rows, list(names)
        self._keeping, self._name, self.report = keeping, name, report
        self._settings = {
            "rows": list(rows),
            "checkpoint": model.checkpoints[0].name,
            "names": self._names,
            "draws": draws(len(rows)),
            **settings,
        }
        self._dtype = torch.promote_types(model.dtype, torch.float32)

    def preconditioned(self, q: Gradient, damping: Damping) -> Gradient:
        """U ((Uᵀ q)/(Λ + λ)), tensor by tensor; 0 where there are no factors."""
        (point,) = self._model.checkpoints
        found = {name: torch.zeros_like(part) for name, part in q.items()}
        for name in self._names:
            own = point.qualified(name)
            left, right, moments = (self._of(name, what).to(q[own]) for what in ("back", "in", "moments"))
            rotated = left.T @ q[own] @ right
            bottom = moments + damping(moments)
            found[own] = left @ torch.where(bottom > 0, rotated / bottom, 0) @ right.T
        return found

    def prepare(self) -> None:
        """Find the factors."""
        _ = self._arrays

    def _of(self, name: str, what: str) -> torch.Tensor:
        # What is kept is mapped: a tensor's own factors are read when they are needed, and let go.
        return torch.tensor(self._arrays[f"{name}/{what}"])

    @cached
    def _arrays(self) -> Arrays:
        """U_B (`back`), U_A (`in`) and Λ (`moments`) of every tensor, by NAME/what."""
        return self._keeping.fitted(self._name, self._fit, **self._settings)

    def _fit(self) -> Arrays:
        device = self._model.device
        bases = self._keeping.begun(f"{self._name}-bases", self._bases, **self._settings)
        sides = {name: torch.tensor(basis).to(device) for name, basis in bases.items()}

        def add(number: int, sums: Arrays) -> None:
            for capture in self._passes(number):
                for name in self._names:
                    basis = sides[f"{name}/back"], sides[f"{name}/in"]
                    for rotated in _rotated_gradients(capture.calls(name), *basis):
                        sums[f"{name}/moments"] += ((rotated / loss_scale(self._model)) ** 2).cpu().numpy()
            self.report("corrected eigenvalues", number + 1, len(self._rows))

        shapes = {name: (len(bases[f"{name}/back"]), len(bases[f"{name}/in"])) for name in self._names}
        dtype = torch.empty(0, dtype=self._dtype).numpy().dtype
        start = {f"{name}/moments": np.zeros(shape, dtype) for name, shape in shapes.items()}
        sums = self._keeping.summed(f"{self._name}-sums", start, len(self._rows), add, step=2, **self._settings)
        count = len(self._rows) * draws(len(self._rows))
        moments = {name: array / count for name, array in sums.items()}
        self._keeping.forget(f"{self._name}-sums", f"{self._name}-bases")
        return {**bases, **moments}

    def _bases(self) -> Arrays:
        """U_B and U_A of every tensor: eigenvectors of the sums of δδᵀ and of xxᵀ over all positions."""

        def add(number: int, sums: Arrays) -> None:
            for capture in self._passes(number):
                for name in self._names:
                    for call in capture.calls(name):
                        for what, moment in zip(("back", "in"), _moments(call), strict=True):
                            sums[f"{name}/{what}"] += moment.cpu().numpy()
            self.report("Kronecker factors", number + 1, len(self._rows))

        shapes = {name: tensor.shape for name, tensor in self._model.checkpoints[0].tensors.items()}
        start = {
            f"{name}/{what}": np.zeros((shapes[name][axis],) * 2)
            for name in self._names
            for axis, what in enumerate(("back", "in"))
        }
        sums = self._keeping.summed(f"{self._name}-sums", start, len(self._rows), add, step=1, **self._settings)
        found: Arrays = {}
        for place, (name, moment) in enumerate(sums.items(), start=1):
            vectors = torch.linalg.eigh(torch.from_numpy(moment).to(self._model.device)).eigenvectors
            found[name] = vectors.to(self._dtype).cpu().numpy()
            self.report("eigenvectors", place, len(sums))
        return found

    def _passes(self, number: int) -> Iterator[Capture]:
        """Passes over a row, by its place, with each of its draws, as many draws at once as fit."""
        row, encoded = list(self._rows.items())[number]
        for batch in batches([len(encoded.ids)] * draws(len(self._rows))):
            with about(f"Row {row} of the cache"):
                yield sampled_pass(self._model, self._names, encoded, [f"{row}/{draw}" for draw in batch])


def linear_weights(model: LanguageModel) -> list[str]:
    """The chosen tensors that are weights of linear layers, but for the one that gives the logits."""
    (point,) = model.checkpoints
    modules, last = dict(model.network.named_modules()), model.network.get_output_embeddings()
    found = []
    for name in point.tensors:
        module = modules.get(name.removesuffix(".weight"))
        if name.endswith(".weight") and type(module) is torch.nn.Linear and module is not last:
            found.append(name)
    return found


def draws(rows: int) -> int:
    """How often labels are drawn for each of so many curvature rows."""
    return math.ceil(_DRAWS / rows)


def _rotated_gradients(calls: Sequence[Call], back: torch.Tensor, entered: torch.Tensor) -> Iterator[torch.Tensor]:
    """U_Bᵀ g U_A of the gradient g of every sequence: Σ_p (U_Bᵀδ_p) ⊗ (U_Aᵀx_p), which spares rotating g itself."""
    sides = [(call.returned.to(back) @ back, call.entered.to(entered) @ entered) for call in calls]
    for sequence in range(len(sides[0][0]) if sides else 0):
        one = slice(sequence, sequence + 1)
        yield torch.cat([outer(left[one], right[one]) for left, right in sides]).sum(0)


def _moments(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """Σδδᵀ and Σxxᵀ over all positions and draws; what enters is the same for every draw of a row."""
    back, entered = call.returned.flatten(0, -2).double(), call.entered[0].flatten(0, -2).double()
    return back.T @ back, entered.T @ entered * len(call.entered)


def sampled_pass(model: LanguageModel, names: list[str], encoded: Encoded, seeds: Sequence[str]) -> Capture:
    """One pass over a row with labels drawn for each of some seeds, a sequence each.

    A sequence's loss is its tokens' weighted sum over √G. The mean of the outer
    product of such a gradient with itself is the row's Gauss-Newton matrix of
    the mean token loss; see `drawn_labels`. Raises NonFiniteError where the loss isn't finite.
    """
    (point,) = model.checkpoints
    constant = {name: tensor.detach() for name, tensor in point.tensors.items()}
    capture = Capture(model.network, names, len(seeds))
    with capture.watching():
        each = response_logits(model, [encoded] * len(seeds), point.standing_in(constant))
    losses = []
    for logits, seed in zip(each, seeds, strict=True):
        labels, weights = drawn_labels(logits.detach(), seed)
        losses.append((cross_entropy(logits, labels, reduction="none") * weights).sum() / len(logits) ** 0.5)
    loss = torch.stack(losses).sum()
    if not torch.isfinite(loss):
        raise NonFiniteError("a loss")
    capture.finish(loss * loss_scale(model))
    return capture


def drawn_labels(logits: torch.Tensor, seed_of: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A label of every token (G), and what its loss is multiplied by (G), from logits (G, vocabulary).

    The Fisher matrix is Σ_c p_c (e_c − p)(e_c − p)ᵀ. A model that is sure of
    every token would hardly ever draw a label other than its own, and a few
    draws from p would miss all curvature. So label c is drawn with a
    probability q_c in proportion to p_c‖e_c − p‖, its loss weighted by √(p_c/q_c):
    the same mean with the least variance. A random sign lets the products of
    different tokens vanish in the mean, as they do for labels drawn from p.
    """
    random = generator(0, "labels", seed_of)
    chance, signs = (torch.from_numpy(random.random(len(logits))).to(logits.device) for _ in range(2))
    p = logits.double().softmax(-1)
    q = p * ((p**2).sum(-1, keepdim=True) - 2 * p + 1).clamp(min=0).sqrt() + torch.finfo(p.dtype).tiny
    cumulative = q.cumsum(-1)
    places = torch.searchsorted(cumulative, chance[:, None] * cumulative[:, -1:])
    labels = places.clamp(max=logits.shape[1] - 1)
    odds = (p / q).gather(1, labels)[:, 0] * cumulative[:, -1]
    return labels[:, 0], (odds.sqrt() * torch.where(signs < 0.5, -1.0, 1.0)).to(logits.dtype)
