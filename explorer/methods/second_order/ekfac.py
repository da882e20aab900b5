"""EK-FAC: the inverse of eigenvalue-corrected Kronecker factors of every linear layer (George et al., 2018).

A linear layer's Fisher matrix is approximated by U diag(Λ) Uᵀ with
U = U_B ⊗ U_A, the eigenvectors of the second moments of what comes back (δ,
with labels drawn for it) and of what enters (x); Λ is the mean square
of an example's gradient along them, the best for this basis. Other tensors
are left out.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from explorer.cache import Arrays
from explorer.concurrency import cached
from explorer.errors import NonFiniteError, UnsupportedError, about
from explorer.gradients import Gradient, loss_scale, response_logits
from explorer.gradients.capture import Call, Capture, outer
from explorer.gradients.sketch import generator
from explorer.methods.second_order.curvature import batches
from explorer.methods.second_order.influence import OWN_DAMPING, SecondOrder
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded

_DRAWS = 64
"""Labels are drawn so often in all, if not more often than once a row: what few rows lack is made up by draws.

With 8 rows of SmolLM2's own weights, 8 draws a row in place of one raise
Spearman's correlation with conjugate gradients by 0.05 to 0.11, whatever λ.
"""


class Ekfac(SecondOrder):
    """P q = U ((Uᵀ q)/(Λ + λ)), tensor by tensor, λ a tenth of the mean of Λ."""

    def prepare(self) -> None:
        """Find the factors."""
        _ = self._factors

    def preconditioned(self, q: Gradient) -> Gradient:
        """Two rotations and a division."""
        (point,), found = self.model.checkpoints, dict[str, torch.Tensor]()
        for name, part in q.items():
            found[name] = torch.zeros_like(part)
        for name in self._names:
            own = point.qualified(name)
            left, right, moments = (self._factors[f"{name}/{what}"].to(q[own]) for what in ("back", "in", "moments"))
            rotated = left.T @ q[own] @ right
            damping = OWN_DAMPING * moments.mean() if self.common_damping is None else self.common_damping
            found[own] = left @ (rotated / (moments + damping)) @ right.T
        return found

    @cached
    def _names(self) -> list[str]:
        """The tensors that have factors: weights of linear layers, of the MLPs alone where that was asked for."""
        (point,) = self.model.checkpoints
        modules = dict(self.model.network.named_modules())
        names = [
            name
            for name in point.tensors
            if name.endswith(".weight") and type(modules.get(name.removesuffix(".weight"))) is torch.nn.Linear
        ]
        if self.chosen.description.name == "ekfac-mlp":
            names = [name for name in names if ".mlp." in name or ".feed_forward." in name]
        if not names:
            raise UnsupportedError(
                f"{self.chosen.name} needs trainable weights of linear layers"
                f"{' in MLPs' if self.chosen.description.name == 'ekfac-mlp' else ''}, and this model's gradients are "
                "of none; graddot needs no factors."
            )
        return names

    @cached
    def _factors(self) -> dict[str, torch.Tensor]:
        """U_B (`back`), U_A (`in`) and Λ (`moments`) of every tensor, by NAME/what."""
        settings = {
            "rows": self.curvature_rows,
            "checkpoint": self.model.checkpoints[0].name,
            "names": self._names,
            "draws": draws(len(self.curvature_rows)),
        }
        kept = self.fitted(self.chosen.description.name, self._fit, **settings)
        return {name: torch.tensor(array) for name, array in kept.items()}

    def _fit(self) -> Arrays:
        bases = self._bases()
        moments = {name: torch.zeros(len(back), len(entered)) for name, (back, entered) in bases.items()}
        for capture in self._passes("corrected eigenvalues"):
            for name, basis in bases.items():
                for rotated in _rotated_gradients(capture.calls(name), *basis):
                    moments[name] += ((rotated / loss_scale(self.model)) ** 2).cpu()
        count = len(self.encoded) * draws(len(self.encoded))
        found: Arrays = {}
        for name, (back, entered) in bases.items():
            found[f"{name}/back"], found[f"{name}/in"] = back.cpu().numpy(), entered.cpu().numpy()
            found[f"{name}/moments"] = (moments[name] / count).numpy()
        return found

    def _bases(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """U_B and U_A of every tensor: eigenvectors of the sums of δδᵀ and of xxᵀ over all positions."""
        sums: dict[str, list[torch.Tensor]] = {}
        for capture in self._passes("Kronecker factors"):
            for name in self._names:
                for call in capture.calls(name):
                    for place, moment in enumerate(_moments(call)):
                        known = sums.setdefault(name, [])
                        if len(known) <= place:
                            known.append(moment)
                        else:
                            known[place] += moment
        return {
            name: (torch.linalg.eigh(back).eigenvectors.float(), torch.linalg.eigh(entered).eigenvectors.float())
            for name, (back, entered) in sums.items()
        }

    def _passes(self, purpose: str) -> Iterator[Capture]:
        """Passes over every curvature row with each of its draws, as many draws at once as fit."""
        for number, (row, encoded) in enumerate(zip(self.curvature_rows, self.encoded, strict=True), start=1):
            for batch in batches([len(encoded.ids)] * draws(len(self.encoded))):
                with about(f"Row {row} of the cache"):
                    capture = sampled_pass(self.model, self._names, encoded, [f"{row}/{draw}" for draw in batch])
                yield capture
            self.report(purpose, number, len(self.encoded))


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
