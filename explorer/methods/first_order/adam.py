"""Gradients as AdamW used them: the question's divided by the roots of the second moments that the training had.

A step of AdamW moves θ by a gradient divided by √v̂ + ε, coordinate by coordinate (LESS; Xia et al., 2024). Here the
question is divided, so that the cached sketches serve: ⟨∇L(t)/(√v̂ + ε), ∇L(s)⟩ = ⟨∇L(t), ∇L(s)/(√v̂ + ε)⟩.
"""

from pathlib import Path

from explorer import gradients
from explorer.concurrency import cached
from explorer.errors import MethodError
from explorer.gradients import Gradient
from explorer.methods.first_order import directions
from explorer.methods.first_order.inner_products import GradientMethod
from explorer.model.checkpoints import FINAL, second_moments
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.normalisation import KINDS
from explorer.records import Answer, Selection
from explorer.training.adamw import EPSILON


class Adam(GradientMethod):
    """Σ_c e_c·η_c·⟨P_c∇L(t), ∇L(s)⟩, P_c = 1/(√v̂_c + ε), divided by norms as the cache's or another normalisation."""

    @cached
    def kind(self) -> str:
        """What gradients are divided by; the question's, once it is preconditioned."""
        kind = self.chosen.value or self.engine.store.manifest.settings.normalisation
        if kind not in KINDS:
            raise MethodError(f"{self.chosen.name} takes a normalisation, one of {', '.join(KINDS)}; not {kind}.")
        return kind

    @cached
    def model(self) -> LanguageModel:
        """At all of the cache's checkpoints."""
        return self.engine.model

    def prepare(self) -> None:
        """Refuse an adapter whose second moments weren't kept."""
        _ = self._divisors

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """P ∇L(t) times e·η."""
        part, whole = (
            self._preconditioned(directions.asked_gradient(self.model, answer, s)) for s in (selection, None)
        )
        scale = self.engine.store.manifest.training.scale
        direction = gradients.normalised(self.model, part, gradients.norms(whole), self.kind)
        return {name: each * scale for name, each in direction.items()}

    def _preconditioned(self, gradient: Gradient) -> Gradient:
        return {name: part / self._divisors[name].to(part) for name, part in gradient.items()}

    @cached
    def _divisors(self) -> Gradient:
        """√v̂ + ε of every tensor of every checkpoint."""
        found: Gradient = {}
        for point in self.model.checkpoints:
            for name, moments in self._moments(point).items():
                found[point.qualified(name)] = moments.sqrt() + EPSILON
        return found

    def _moments(self, point: Checkpoint) -> Gradient:
        """Of a checkpoint's own moment of the training, or where it is none, as points on the way are, of its end."""
        adapter = self.model.adapter
        for name in (point.name, FINAL):
            found = second_moments(Path(adapter), name, point.tensors) if adapter and name else None
            if found is not None:
                return found
        raise MethodError(
            f"{self.chosen.name} needs the second moments that AdamW had when {adapter or 'the model'} was trained, "
            "and they weren't kept; `rapidin-explorer finetune` keeps them beside an adapter that it trains anew."
        )
