"""RapidIn as the cache was made for it: the cache's sketches, its null sample, its checkpoints (paper, Eq. 5 to 8)."""

import math
from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from explorer import gradients, retrieval
from explorer.concurrency import Recent, cached
from explorer.errors import about
from explorer.gradients import Gradient
from explorer.methods.first_order.nulls import Nulls
from explorer.methods.method import Method
from explorer.records import Answer, Influence, Part, Selection, Span
from explorer.retrieval import ExampleScores, cascade, scores
from explorer.trust import NullSample, Redrawn, noise_covariance, redrawn

_PRODUCT_LENGTH = 8192
"""Sketches of this length give the examples' products to a hundredth, which is enough for the size of the noise."""
_TOGETHER = 16
"""So many tokens share a pass over the cache that one step is a fraction of a second even for a large one."""


class RapidIn(Method):
    """e·η·⟨∇L(t), ∇L(s)⟩ of gradients normalised as the cache was made."""

    exact = False

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """By full sketches of all examples (N), also of a cache so large that people are answered by a cascade."""
        self.engine.ask(answer, selection)
        (found,) = cascade.scan(self.engine.store, self.engine.sketch(answer, selection)[None])
        return found.values

    def values(self, answer: Answer, selection: Selection, row: int) -> NDArray[np.float32] | None:
        """One forward-mode pass over the example for each checkpoint."""
        return gradients.finished(self.influence_steps(answer, selection, row)).values

    # Sketched

    def ask(self, answer: Answer, selection: Selection) -> None:
        """One backward pass over the answer, and its sketch."""
        self.engine.ask(answer, selection)

    def recalled(self, answer: Answer, selection: Selection) -> ExampleScores | None:
        """One scan, or a cascade over the levels of a large cache."""
        if not self.engine.known(answer, selection):
            return None
        (found,) = retrieval.example_scores(self.engine.store, self.engine.sketch(answer, selection)[None])
        return found

    def deepened(
        self, answer: Answer, selection: Selection, known: ExampleScores, count: int, among: Sequence[int] | None
    ) -> ExampleScores:
        """Longer sketches of the rows that may be among the best; see `cascade.rescored`."""
        query = self.engine.sketch(answer, selection)[None]
        (found,) = retrieval.rescored(self.engine.store, query, [known], count, among)
        return found

    def sketched_values(
        self, answer: Answer, selection: Selection, row: int, score: float
    ) -> NDArray[np.float32] | None:
        """By the cached token sketches, shifted so that they average to the score."""
        return scores.token_scores(self.engine.store, self.engine.sketch(answer, selection), row, score)

    def sketch_error(self, answer: Answer, selection: Selection) -> float:
        """√((‖u‖²‖v‖² + ⟨u, v⟩²)/K) with ⟨u, v⟩ left out, which is small beside the norms."""
        length = len(self.engine.sketch(answer, selection))
        return self.size(answer, selection) * self._example_norm / math.sqrt(length)

    @cached
    def _example_norm(self) -> float:
        """The median norm of the examples' normalised gradients."""
        return float(np.median(self.engine.store.sizes))

    def influence_steps(self, answer: Answer, selection: Selection, row: int) -> Generator[None, None, Influence]:
        """Along the question's direction; see `along_steps`."""
        return self.along_steps(self.engine.direction(answer, selection), row)

    # Combining

    def added(self, total: Gradient | None, part: Part) -> Gradient:
        """One backward pass over the answer, unless it was just asked about, and another for unknown norms."""
        own = self.engine.direction(part.answer, part.selection)
        return {name: own[name] * part.weight + (total[name] if total else 0.0) for name in own}

    def sum_error(self, parts: Sequence[Part]) -> float:
        """As `sketch_error`, of the sum of the questions' sketches."""
        for part in parts:
            self.engine.ask(part.answer, part.selection)
        sketches = [part.weight * self.engine.sketch(part.answer, part.selection) for part in parts]
        size = self._scale * float(np.linalg.norm(np.sum(sketches, axis=0)))
        return size * self._example_norm / math.sqrt(len(sketches[0]))

    def along_steps(self, direction: Gradient, row: int) -> Generator[None, None, Influence]:
        """One forward-mode pass over the example for each checkpoint; it yields after every one."""
        direction = self.engine.for_example(direction, row)
        encoded = self.engine.store.examples[row].encoded
        with about(f"Row {row} of the cache"):
            parts = yield from gradients.directional_steps(self.engine.model, encoded, direction)
        values = parts.sum(axis=0, dtype=np.float64) * self._scale
        by_checkpoint = parts.mean(axis=1, dtype=np.float64) * self._scale
        return Influence(
            row,
            float(values.mean()),
            exact=True,
            values=values.astype(np.float32),
            parts=tuple(by_checkpoint.tolist()),
        )

    @property
    def _scale(self) -> float:
        """e·η."""
        return self.engine.store.manifest.training.scale

    # Foreseeing

    def ask_ahead(self, answer: Answer) -> Generator[Sequence[tuple[Selection, ExampleScores]], None, None]:
        """Every single token's sketch by shared forward passes, then their scores by shared passes over the cache."""
        asked: list[Selection] = []
        for selection in self.engine.ask_tokens(answer):
            asked += [] if selection is None else [selection]
            yield ()
        for start in range(0, len(asked), _TOGETHER):
            together = asked[start : start + _TOGETHER]
            queries = np.stack([self.engine.sketch(answer, selection) for selection in together])
            yield tuple(zip(together, retrieval.example_scores(self.engine.store, queries), strict=True))

    # Judging

    def null_sample(self, kind: str) -> NullSample | None:
        """The cache's."""
        return self._nulls.of(kind)

    @cached
    def _nulls(self) -> Nulls:
        return Nulls(self.engine.store)

    def size(self, answer: Answer, selection: Selection) -> float:
        """e·η·‖query‖; 1 where that is 0."""
        return self._scale * float(np.linalg.norm(self.engine.sketch(answer, selection))) or 1.0

    # Redrawing

    def redraw(
        self,
        answer: Answer,
        selection: Selection,
        found: Sequence[Influence],
        shown: int,
        examined: int,
        opponents: bool,
    ) -> Redrawn:
        """From the covariance of the sketches' noise, which the examples' products give."""
        rows = np.array([each.row for each in found], dtype=np.int64)
        centre = np.array([each.score for each in found], dtype=np.float64)
        length = self.engine.store.manifest.settings.length
        sketches = self.engine.store.sketches_of(rows, min(length, _PRODUCT_LENGTH))
        covariance = noise_covariance(self.size(answer, selection), sketches @ sketches.T, centre, length)
        return redrawn(rows, centre, covariance, shown, examined, opponents)

    # Checking, Locating, BothWays

    def second_value(self, answer: Answer, selection: Selection, row: int) -> float:
        """e·η times the inner product with the example's whole gradient, by a backward pass."""
        return self.second_along(self.engine.direction(answer, selection), row)

    def second_along(self, direction: Gradient, row: int) -> float:
        """The same along any direction."""
        gradient = gradients.gradient(self.engine.model, self.engine.store.examples[row].encoded)
        return self._scale * gradients.inner_product(gradient, self.engine.for_example(direction, row))

    def positions(self, answer: Answer, selection: Selection, row: int) -> NDArray[np.float32]:
        """Raises UnsupportedError where a trainable tensor's gradient isn't a sum over positions."""
        direction = self.engine.example_direction(answer, selection, row)
        encoded = self.engine.store.examples[row].encoded
        return gradients.position_shares(self.engine.model, encoded, direction) * np.float32(self._scale)

    def output_values(self, answer: Answer, row: int, selection: Span | None = None) -> NDArray[np.float32]:
        """One forward-mode pass over the answer; the mean is the example's influence on the whole response.

        `selection` counts the example's response tokens.
        """
        known = self._outputs.get((answer.id, row, selection))
        if known is not None:
            return known
        example = self.engine.store.examples[row].encoded
        gradient = gradients.gradient(self.engine.model, example, selection)
        direction = self.engine.output_direction(answer, gradient, row)
        values = gradients.directional_token_losses(self.engine.model, answer.encoded, direction)
        values = values * np.float32(self._scale)
        self._outputs.put((answer.id, row, selection), values)
        return values

    @cached
    def _outputs(self) -> Recent[tuple[str, int, Span | None], NDArray[np.float32]]:
        return Recent(2048)
