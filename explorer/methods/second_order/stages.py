"""Influence over two stages: what a training taught a model that was fine-tuned afterwards (multi-stage influence).

The question is asked of the fine-tuned model, and of the same tensors as the examples' gradients are: where an adapter
was trained, of the weights with the adapter merged into them.
"""

from collections.abc import Mapping

import torch

from explorer.concurrency import cached
from explorer.engine import FineTuned
from explorer.errors import MethodError
from explorer.gradients import Gradient
from explorer.methods.description import choose
from explorer.methods.first_order import directions
from explorer.methods.first_order.inner_products import GradientMethod
from explorer.methods.second_order.curvature import curvature_rows
from explorer.methods.second_order.ekfac import Ekfac
from explorer.methods.second_order.factors import Factors, linear_weights
from explorer.methods.second_order.influence import OWN_DAMPING
from explorer.model.language_model import LanguageModel
from explorer.records import Answer, Encoded, Selection
from explorer.retrieval import Rows


class StageProduct(GradientMethod):
    """⟨∇L(t) of the fine-tuned model, ∇L(s) of the model before it⟩: GDP over two stages."""

    def prepare(self) -> None:
        """Refuse a cache of which no later fine-tuning is known."""
        _ = self.tuned

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The question's gradient at the fine-tuned model."""
        return directions.question_gradient(self.tuned.model, answer, selection, "none")

    @cached
    def tuned(self) -> FineTuned:
        """What became of the cache's model."""
        found = self.engine.fine_tuned
        if found is None:
            raise MethodError(
                f"{self.chosen.name} needs a cache of what a model was trained on before it was fine-tuned: "
                "`rapidin-explorer precompute --followed-by` makes one, and names the fine-tuning's cache."
            )
        return found

    @cached
    def later(self) -> Factors:
        """The factors of the fine-tuning: of rows of its data, at the fine-tuned model."""
        store, model = self.tuned.store, self.tuned.model
        chosen = curvature_rows(store.manifest.data_sha256, store.manifest.rows, min(self.rows, store.manifest.rows))
        rows: Mapping[int, Encoded] = {row: store.examples[row].encoded for row in chosen}
        names, report = linear_weights(model), lambda *told: self.report(*told)
        return Factors(model, rows, names, self, "ekfac-fine-tuning", report, **self.identity)

    @property
    def identity(self) -> dict[str, str]:
        """What tells this fine-tuning from others, in the keys of what is kept."""
        kept = self.engine.store.manifest.followed_by
        return {"fine_tuned": kept.model, "on": kept.data} if kept else {}

    def damping(self, moments: torch.Tensor) -> float:
        """λ of a tensor in either stage; in the fine-tuning's the proximity term is a part of it."""
        return _share(self.chosen.value, self.chosen.name) * float(moments.mean())


class MultiStage(StageProduct):
    """⟨(G₀ + λ)⁻¹ (G₁ + λ)⁻¹ ∇L(t, θ₁), ∇L(s, θ₀)⟩, both inverses by EK-FAC."""

    def prepare(self) -> None:
        """Find both stages' factors."""
        # What can't be used is refused before there is work for it.
        _ = self.tuned, _share(self.chosen.value, self.chosen.name)
        self._earlier.prepare()
        self.later.prepare()

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The question's gradient through the fine-tuning's inverse, and through that of the stage before."""
        through = self.later.preconditioned(super().direction(answer, selection), self.damping)
        return self._earlier.factors.preconditioned(through, self.damping)

    @cached
    def _earlier(self) -> Ekfac:
        """EK-FAC of the cache's own rows, whose factors both methods share."""
        found = Ekfac(self.engine, choose("ekfac"), self.rows, lambda *told: self.report(*told))
        found.kept_alone, found.anew = self.kept_alone, self.anew
        return found


class SingleStage(StageProduct):
    """⟨(G₁ + λ)⁻¹ ∇L(t, θ₁), ∇L(s, θ₁)⟩: all of it at the fine-tuned model, as if there had been one stage."""

    def prepare(self) -> None:
        """Find the fine-tuning's factors."""
        _ = self.tuned, _share(self.chosen.value, self.chosen.name)
        self.later.prepare()

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The question's gradient through the fine-tuning's inverse."""
        return self.later.preconditioned(super().direction(answer, selection), self.damping)

    @cached
    def model(self) -> LanguageModel:
        """The fine-tuned model: the examples' gradients are taken there, too."""
        return self.tuned.model

    @cached
    def _own(self) -> Rows:
        """Sketches of the examples' gradients at the fine-tuned model."""
        return directions.own_sketches(self, self.tuned.model, self.kind, False, "fine-tuning", **self.identity)


def _share(value: str, name: str) -> float:
    """λ as a share of a tensor's mean eigenvalue. Raises MethodError where it is no positive number."""
    try:
        found = float(value or OWN_DAMPING)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise MethodError(f"{name.partition(':')[0]}:VALUE takes λ as a share above 0, such as 0.1, not {value}.")
    return found
