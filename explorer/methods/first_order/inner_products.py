"""Methods that multiply gradients as they are: TracIn with every normalisation, and RapidIn by shorter sketches."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from explorer.cache import fold
from explorer.concurrency import Recent, cached
from explorer.errors import MethodError
from explorer.gradients import Gradient
from explorer.methods.first_order import directions
from explorer.methods.first_order.nulls import Nulls
from explorer.methods.method import Method
from explorer.model.language_model import LanguageModel
from explorer.records import Answer, Contrast, Selection, Span
from explorer.retrieval import Rows, products
from explorer.trust import NullSample, kind_of
from explorer.trust.significance import RESPONSE

_KINDS = {"gradcos": "cosine", "gradcos-whole": "cosine", "gradlayer": "layer"}
"""What gradients are divided by, if by anything."""


class GradientMethod(Method):
    """Scores ⟨direction, ∇L(s)⟩ for a direction that the question decides."""

    exact = False
    kind = "none"
    """What training gradients are divided by; see `normalisation.KINDS`."""

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """What training gradients are multiplied with, all factors included."""
        raise NotImplementedError

    @cached
    def model(self) -> LanguageModel:
        """The model, with gradients taken where the method takes them: at one checkpoint."""
        return directions.at_checkpoint(self.engine.model, "")

    def fit(self) -> None:
        """What the direction needs, and sketches of the method's own where the cache's can't serve."""
        self.prepare()
        _ = self._own

    def prepare(self) -> None:
        """Compute what the direction of any question needs."""

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """By the cached sketches where they serve, else by the method's own."""
        direction = self._known(answer, selection)
        if self._own is None:
            return directions.sketched_products(self.engine, self.model, direction, self.kind)
        return products([self._own], self.engine.sketcher(direction)[None])[0]

    @property
    def served(self) -> bool:
        """Whether the cache's sketches are those that it reads."""
        return self._own is None

    @cached
    def _own(self) -> Rows | None:
        """None where the cache serves."""
        if directions.serves(self.engine.store, self.kind):
            return None
        return directions.own_sketches(self, self.model, self.kind)

    def values(self, answer: Answer, selection: Selection, row: int) -> NDArray[np.float32] | None:
        """One forward-mode pass over the example."""
        return directions.token_values(self.engine, self.model, self._known(answer, selection), self.kind, row)

    def _known(self, answer: Answer, selection: Selection) -> Gradient:
        known = self._directions.get((answer.id, selection))
        if known is None:
            known = self.direction(answer, selection)
            self._directions.put((answer.id, selection), known)
        return known

    @cached
    def _directions(self) -> Recent[tuple[str, Selection], Gradient]:
        return Recent(2)


class TracIn(GradientMethod):
    """The gradients' inner product at one checkpoint, or, as TracInCP, summed over those of the cache."""

    @cached
    def kind(self) -> str:
        """By the method's name."""
        return _KINDS.get(self.chosen.description.name, "none")

    @cached
    def model(self) -> LanguageModel:
        """At all checkpoints, or at the one that was asked for."""
        if self.chosen.description.name == "tracincp":
            return self.engine.model
        return directions.at_checkpoint(self.engine.model, self.chosen.value)

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The question's gradient times e·η; for a cosine without it."""
        factor = 1.0 if self.kind == "cosine" else directions.scale(self.engine, self.model)
        gradient = directions.question_gradient(self.model, answer, selection, self.kind)
        return {name: part * factor for name, part in gradient.items()}


class WholeSequence(TracIn):
    """The same with the loss of the prompt's tokens, too, as the code published with paper 001 takes it."""

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The same words as ever, but for those of the whole question, which take the prompt in."""
        before, encoded = answer.encoded.response_start - 1, directions.with_prompt(answer.encoded)
        if isinstance(selection, Contrast):
            selection = replace(selection, span=_behind(before, selection.span))
        elif selection is not None:
            selection = _behind(before, selection)
        return super().direction(replace(answer, encoded=encoded), selection)

    def values(self, answer: Answer, selection: Selection, row: int) -> None:
        """None: the response's tokens are only some of those whose mean the loss is."""
        return None

    @cached
    def _own(self) -> Rows:
        return directions.own_sketches(self, self.model, self.kind, whole_sequence=True)


def _behind(before: int, span: Span) -> Span:
    return span[0] + before, span[1] + before


class Folded(GradientMethod):
    """RapidIn by sketches as long as the cache's, or shorter ones that they fold to."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        """As the cache was made."""
        return self.engine.store.manifest.settings.normalisation

    @cached
    def model(self) -> LanguageModel:
        """At all of the cache's checkpoints."""
        return self.engine.model

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The question's gradient times e·η."""
        factor = self.engine.store.manifest.training.scale
        gradient = directions.question_gradient(self.model, answer, selection, self.kind)
        return {name: part * factor for name, part in gradient.items()}

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """By sketches of the length that was asked for."""
        full = self.engine.store.manifest.settings.length
        short = shorter(self.chosen.number(full), full)
        query = self.engine.sketcher(self._known(answer, selection))
        return directions.scan(self.engine.store, unfold(fold(query, short), full))


class Centred(Folded):
    """RapidIn less what an example scores on unrelated prompts in the mean.

    By linearity this is RapidIn of a question less the mean unrelated one of its length.
    """

    def prepare(self) -> None:
        """Refuse a cache without null sample."""
        _ = self._null(RESPONSE)

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """By the cached sketches and the cached null sample."""
        return super().scores(answer, selection) - self._usual(answer, selection)

    def values(self, answer: Answer, selection: Selection, row: int) -> NDArray[np.float32] | None:
        """RapidIn's, all less the same."""
        found = super().values(answer, selection, row)
        return None if found is None else found - self._usual(answer, selection)[row]

    def _usual(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """The mean scores (N) on unrelated questions as long as this one."""
        size = np.linalg.norm(self.engine.sketcher(self._known(answer, selection)))
        return (self._null(kind_of(answer.tokens, selection)).mean * size).astype(np.float32)

    @cached
    def _nulls(self) -> Nulls:
        return Nulls(self.engine.store)

    def _null(self, kind: str) -> NullSample:
        found = self._nulls.of(kind)
        if found is None:
            raise MethodError(
                f"{self.chosen.name} needs the cache's scores on unrelated prompts; the same `rapidin-explorer "
                "precompute` with --null-prompts 200 adds them."
            )
        return found


def unfold(sketch: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """What `fold` is the transpose of: ⟨unfold(q), s⟩ = ⟨q, fold(s)⟩."""
    return np.repeat(sketch, length // len(sketch))


def shorter(length: int, full: int) -> int:
    """A length that sketches of the full length fold to. Raises MethodError otherwise."""
    if length > full or full % length:
        raise MethodError(
            f"The cache's sketches have {full:,} numbers and fold to powers of two below, not {length:,}."
        )
    return length
