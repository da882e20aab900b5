"""Composes the one way: prompt → answer → gradient → sketch → scores → ranking.

It owns the model. The methods that compute with it must be called from one
thread at a time (`worker.Worker` gives them one); `known` and `ranking` read
what was computed already and may be called from any thread.
"""

import hashlib
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from explorer import gradients, retrieval
from explorer.cache import CacheSettings, Store
from explorer.concurrency import Recent
from explorer.errors import PromptError
from explorer.gradients import Gradient, Sketcher, SketchSettings
from explorer.gradients.forward_mode import prepare_forward_mode
from explorer.model import alternatives
from explorer.model.generation import GenerationSettings, generate
from explorer.model.language_model import LanguageModel
from explorer.model.reader import TokenReader
from explorer.normalisation import divisors
from explorer.records import (
    Answer,
    Contrast,
    Encoded,
    Influence,
    Message,
    Prediction,
    Ranking,
    Selection,
    Span,
    Token,
    relative_difference,
    span_of,
)
from explorer.retrieval import ExampleScores, scores
from explorer.trust import NullSample, Redrawn, judged, kind_of, noise_covariance, redrawn
from explorer.trust.significance import KINDS, TOKEN
from explorer.trust.stability import POOL

Question = tuple[str, Selection]
"""An answer's id and what is selected of it."""

SPARE = 20
"""So many more candidates than are shown are made exact: the sketches may have ranked them too low."""

_PRODUCT_LENGTH = 8192
"""Sketches of this length give the examples' products to a hundredth, which is enough for the size of the noise."""
_TOGETHER = 16
"""So many tokens share a pass over the cache that one step is a fraction of a second even for a large one."""
_SCORES_BYTES = 1 << 28
"""Memory for the scores of questions asked lately."""


class Engine:
    """Answers prompts with one model, and questions about answers from one cache."""

    def __init__(self, model: LanguageModel, store: Store):
        """Raises MismatchError when the cache was made for another model."""
        store.check_model(model.fingerprint)
        prepare_forward_mode()
        self.model, self.store = model, store
        self.sketcher = make_sketcher(model, store.manifest.settings)
        self._norms: Recent[str, NDArray[np.float32]] = Recent(64)
        self._sketches: Recent[Question, NDArray[np.float32]] = Recent(2048)
        self._directions: Recent[Question, Gradient] = Recent(2)
        self._scores: Recent[Question, ExampleScores] = Recent(
            max(1, min(256, _SCORES_BYTES // (9 * store.manifest.rows)))
        )
        self._sequences: Recent[int, tuple[Token, ...]] = Recent(512)
        self._exact: Recent[tuple[Question, int], Influence] = Recent(8192)
        self._predictions: Recent[str, Prediction] = Recent(64)
        self._outputs: Recent[tuple[str, int, Span | None], NDArray[np.float32]] = Recent(2048)

    # Answers

    def answer(self, prompt: str, settings: GenerationSettings | None = None) -> Iterator[Answer]:
        """Yield the growing answer after every generated token; the last one is finished."""
        messages = user_turn(prompt)
        ids = self.model.encode_prompt(messages).tolist()
        start, read, tokens = len(ids), TokenReader(self.model.tokenizer), list[Token]()
        for token in generate(self.model, messages, settings):
            ids.append(token)
            tokens.append(read(token))
            yield _as_answer(prompt, Encoded(np.asarray(ids, dtype=np.int64), start), tokens, finished=False)
        yield _as_answer(prompt, Encoded(np.asarray(ids, dtype=np.int64), start), tokens, finished=True)

    def given_answer(self, prompt: str, response: str) -> Answer:
        """An answer from elsewhere, attributed as if the model had said it."""
        if not response.strip():
            raise PromptError("The response is empty; give some text to ask about.")
        encoded = self.model.encode(user_turn(prompt), response)
        tokens = self.model.tokens(encoded.ids[encoded.response_start :])
        return _as_answer(prompt, encoded, tokens, finished=True)

    def predict(self, answer: Answer) -> Prediction:
        """What the model, and the base without its adapter, expected at each token of the answer."""
        known = self._predictions.get(answer.id)
        if known is None:
            known = alternatives.predict(self.model, answer.encoded)
            self._predictions.put(answer.id, known)
        return known

    def contrast(self, answer: Answer, span: Span, text: str) -> Contrast:
        """Why a span and not this text in its place, as something to ask about. Raises PromptError where it is none."""
        check_selection(answer, span)
        found = alternatives.contrast(self.model, answer, span, text)
        check_selection(answer, found)
        return found

    # Questions about an answer: gradient → sketch

    def ask(self, answer: Answer, selection: Selection) -> None:
        """Compute the question's RapidGrad, unless it is known.

        Tokens and spans are divided by the norms of the *whole* response's
        gradient, which keeps influence bilinear.
        """
        question = (answer.id, check_selection(answer, selection))
        if self.known(answer, selection):
            return
        self._sketches.put(question, self.sketcher(self._direction(answer, selection)))

    def known(self, answer: Answer, selection: Selection) -> bool:
        """True when `ranking` can answer at once."""
        return self._sketches.get((answer.id, selection)) is not None

    def ask_ahead(self, answer: Answer) -> Generator[None, None, None]:
        """Compute the RapidGrad of every single token of the answer, by shared forward passes, one pass a step.

        Their scores follow, some tokens a step, by shared passes over the cache.
        """
        questions: list[Question] = []
        norms = self._norms_of(answer)
        yield
        for gradient in gradients.token_steps(self.model, answer.encoded):
            if gradient is not None:
                questions.append((answer.id, (len(questions), len(questions) + 1)))
                self._sketches.put(questions[-1], self.sketcher(self._normalised(gradient, norms)))
            yield
        for start in range(0, len(questions), _TOGETHER):
            together = questions[start : start + _TOGETHER]
            queries = np.stack([self._sketch_of(question) for question in together])
            for question, found in zip(together, retrieval.example_scores(self.store, queries), strict=True):
                self._scores.put(question, found)
            yield

    def _direction(self, answer: Answer, selection: Selection) -> Gradient:
        """The question's gradient, normalised: what an example's normalised gradient is multiplied with."""
        known = self._directions.get((answer.id, selection))
        if known is not None:
            return known
        gradient = gradients.gradient(self.model, answer.encoded, selection)
        if selection is None:
            self._norms.put(answer.id, gradients.norms(gradient))
        direction = self._normalised(gradient, self._norms_of(answer))
        self._directions.put((answer.id, selection), direction)
        return direction

    def _norms_of(self, answer: Answer) -> NDArray[np.float32]:
        known = self._norms.get(answer.id)
        if known is None:
            known = gradients.norms(gradients.gradient(self.model, answer.encoded))
            self._norms.put(answer.id, known)
        return known

    def _normalised(self, gradient: Gradient, norms: NDArray[np.float32]) -> Gradient:
        return gradients.normalised(self.model, gradient, norms, self.store.manifest.settings.normalisation)

    def _divided(self, gradient: Gradient, norms: NDArray[np.float32]) -> Gradient:
        return gradients.divided(gradient, divisors(norms, self.store.manifest.settings.normalisation))

    # Sketch → scores → ranking

    def ranking(
        self,
        answer: Answer,
        selection: Selection,
        count: int = 10,
        opponents: bool = False,
        among: Sequence[int] | None = None,
    ) -> Ranking:
        """The `count` most influential examples, exact where that is known, else from the cache.

        The order follows the sketches until all candidates are exact, then the
        exact scores. `ask` must have been called for this question.
        """
        question = (answer.id, selection)
        candidates = self.candidates(answer, selection, count, opponents, among)
        all_scores = self._scores_of(question)
        shown = [self._influence(question, row, all_scores.values[row]) for row in candidates]
        if all(influence.exact for influence in shown):
            shown.sort(key=lambda influence: influence.score, reverse=not opponents)
        error, shorter = self._sketch_error(question), self.store.manifest.settings.length / all_scores.length
        ranking = Ranking(
            answer.id,
            selection,
            opponents,
            all_scores.values,
            tuple(shown[:count]),
            error,
            coarse_error=error * float(np.sqrt(shorter)) if shorter > 1 else 0.0,
        )
        null = self.null_sample(kind_of(answer.tokens, selection))
        return judged(ranking, null, self.size(question)) if null else ranking

    def null_sample(self, kind: str) -> NullSample | None:
        """What the examples score on unrelated questions of a kind; None in a cache that doesn't keep it.

        An early cache tells no single tokens apart: there all of them are one kind.
        """
        found = self._null_samples.get(kind)
        return self._null_samples.get(TOKEN) if found is None and kind in KINDS else found

    @cached_property
    def _null_samples(self) -> dict[str, NullSample]:
        kinds = {kind: self.store.nulls(kind) for kind in KINDS}
        return {kind: NullSample(shards) for kind, shards in kinds.items() if shards}

    def size(self, question: Question) -> float:
        """What scores are divided by to be those of a question of length one: e·η·‖query‖, 1 where that is 0."""
        return self.store.manifest.training.scale * float(np.linalg.norm(self._sketch_of(question))) or 1.0

    def candidates(
        self,
        answer: Answer,
        selection: Selection,
        count: int = 10,
        opponents: bool = False,
        among: Sequence[int] | None = None,
    ) -> list[int]:
        """The rows worth making exact before `count` of them are shown: those the sketches rank highest."""
        question = (answer.id, selection)
        known, wanted = self._scores_of(question), count + SPARE
        (found,) = retrieval.rescored(self.store, self._sketch_of(question)[None], [known], wanted, among)
        if found is not known:
            self._scores.put(question, found)
        return [int(row) for row in retrieval.best(found, wanted, opponents, among)]

    def influences(self, answer: Answer, selection: Selection, rows: Sequence[int]) -> tuple[Influence, ...]:
        """What these examples have to do with a question that was asked, exact where that is known."""
        question = (answer.id, selection)
        scores = self._scores_of(question).values
        return tuple(self._influence(question, row, scores[row]) for row in rows)

    def progress(self, answer: Answer, selection: Selection, rows: Sequence[int]) -> int:
        """How many of the rows are exact by now."""
        return sum(self._exact.get(((answer.id, selection), row)) is not None for row in rows)

    def _scores_of(self, question: Question) -> ExampleScores:
        known = self._scores.get(question)
        if known is None:
            (known,) = retrieval.example_scores(self.store, self._sketch_of(question)[None])
            self._scores.put(question, known)
        return known

    def _sketch_of(self, question: Question) -> NDArray[np.float32]:
        sketch = self._sketches.get(question)
        if sketch is None:
            raise PromptError("This question was not computed yet, or long ago; ask it again.")
        return sketch

    def _influence(self, question: Question, row: int, score: float) -> Influence:
        exact = self._exact.get((question, row))
        if exact is not None:
            return exact
        values = scores.token_scores(self.store, self._sketch_of(question), row, float(score))
        return Influence(row, float(score), exact=False, values=values)

    def _sketch_error(self, question: Question) -> float:
        """√((‖u‖²‖v‖² + ⟨u, v⟩²)/K) with ⟨u, v⟩ left out, which is small beside the norms."""
        return self.size(question) * self._example_norm / math.sqrt(len(self._sketch_of(question)))

    @cached_property
    def _example_norm(self) -> float:
        """The median norm of the examples' normalised gradients."""
        return float(np.median(self.store.sizes))

    def redraw(
        self,
        answer: Answer,
        selection: Selection,
        rows: Sequence[int],
        shown: int,
        examined: int,
        opponents: bool,
    ) -> Redrawn:
        """What other sketch seeds would make of a question's best rows; see `stability.redrawn`."""
        question, settings = (answer.id, selection), self.store.manifest.settings
        pool = np.asarray(rows[:POOL], dtype=np.int64)
        found = self.influences(answer, selection, pool.tolist())
        centre = np.array([each.score for each in found], dtype=np.float64)
        sketches = self.store.sketches_of(pool, min(settings.length, _PRODUCT_LENGTH))
        covariance = noise_covariance(self.size(question), sketches @ sketches.T, centre, settings.length)
        return redrawn(pool, centre, covariance, shown, examined, opponents)

    # Exact values

    def refine(self, answer: Answer, selection: Selection, row: int) -> Influence:
        """The influence of one example without sketch noise, by one forward-mode pass over it."""
        return gradients.finished(self.refine_steps(answer, selection, row))

    def refine_steps(self, answer: Answer, selection: Selection, row: int) -> Generator[None, None, Influence]:
        """The work of `refine`; it yields after every checkpoint, so that more urgent work needn't wait for all."""
        known = self._exact.get(((answer.id, selection), row))
        if known is not None:
            return known
        direction = self._example_direction(answer, selection, row)
        parts = yield from gradients.directional_steps(self.model, self.store.examples[row].encoded, direction)
        values = parts.sum(axis=0, dtype=np.float64) * self.store.manifest.training.scale
        by_checkpoint = parts.mean(axis=1, dtype=np.float64) * self.store.manifest.training.scale
        found = Influence(
            row,
            float(values.mean()),
            exact=True,
            values=values.astype(np.float32),
            parts=tuple(by_checkpoint.tolist()),
        )
        self._exact.put(((answer.id, selection), row), found)
        return found

    def check(self, answer: Answer, selection: Selection, row: int) -> Influence:
        """The exact influence with its checksum: the example's value once more, by a backward pass of its own."""
        found = self.refine(answer, selection, row)
        if found.checksum is not None:
            return found
        direction = self._example_direction(answer, selection, row)
        gradient = gradients.gradient(self.model, self.store.examples[row].encoded)
        whole = self.store.manifest.training.scale * gradients.inner_product(gradient, direction)
        found = replace(found, checksum=relative_difference(found.score, whole))
        self._exact.put(((answer.id, selection), row), found)
        return found

    def locate(self, answer: Answer, selection: Selection, row: int) -> Influence:
        """The exact influence with the other meaning of a token: what of it passes through each position.

        The example's prompt has its share too. Raises UnsupportedError where a
        trainable tensor's gradient isn't a sum over positions.
        """
        found = self.refine(answer, selection, row)
        if found.positions is not None:
            return found
        direction = self._example_direction(answer, selection, row)
        shares = gradients.position_shares(self.model, self.store.examples[row].encoded, direction)
        found = replace(found, positions=shares * np.float32(self.store.manifest.training.scale))
        self._exact.put(((answer.id, selection), row), found)
        return found

    def sequence(self, row: int) -> tuple[Token, ...]:
        """All tokens (T) of a training example as they are shown, prompt and template included."""
        known = self._sequences.get(row)
        if known is None:
            known = self.model.tokens(self.store.examples[row].encoded.ids)
            self._sequences.put(row, known)
        return known

    def output_values(self, answer: Answer, row: int, selection: Span | None = None) -> NDArray[np.float32]:
        """The swapped direction: influence of one training example, or of some of its tokens, on every output token.

        (G), by one forward-mode pass over the answer; their mean is the example's
        influence on the whole response. `selection` counts the example's response tokens.
        """
        known = self._outputs.get((answer.id, row, selection))
        if known is not None:
            return known
        example = self.store.examples[row].encoded
        gradient = gradients.gradient(self.model, example, selection)
        direction = self._normalised(gradient, self.store.norms[row])
        direction = self._divided(direction, self._norms_of(answer))
        values = gradients.directional_token_losses(self.model, answer.encoded, direction)
        values = values * np.float32(self.store.manifest.training.scale)
        self._outputs.put((answer.id, row, selection), values)
        return values

    def _example_direction(self, answer: Answer, selection: Selection, row: int) -> Gradient:
        """The question's direction divided by the example's norms, so that the example itself needs no division."""
        return self._divided(self._direction(answer, selection), self.store.norms[row])


def _as_answer(prompt: str, encoded: Encoded, tokens: Sequence[Token], finished: bool) -> Answer:
    digest = hashlib.sha256(f"{encoded.response_start} {encoded.ids.tolist()}".encode()).hexdigest()
    text = "".join(token.text for token in tokens if not token.special)
    return Answer(digest[:16], prompt, encoded, tuple(tokens), text, finished)


def make_sketcher(model: LanguageModel, settings: CacheSettings) -> Sketcher:
    """The sketcher of a model's gradients under a cache's settings: one for its examples and its questions alike."""
    sketch = SketchSettings(settings.length, settings.rounds, settings.seed)
    return Sketcher(model.fingerprint.layout, sketch, model.device)


def user_turn(prompt: str) -> tuple[Message, ...]:
    """A prompt as a conversation. Raises PromptError when it is empty."""
    if not prompt.strip():
        raise PromptError("The prompt is empty; type a question first.")
    return ({"role": "user", "content": prompt},)


def check_selection(answer: Answer, selection: Selection) -> Selection:
    """The selection, if the answer has such tokens. Raises PromptError otherwise."""
    span = span_of(selection)
    if span is None:
        return selection
    start, stop = span
    if not 0 <= start < stop <= len(answer.tokens):
        raise PromptError(
            f"Tokens {start} to {stop - 1} were asked about; the answer has the tokens 0 to {len(answer.tokens) - 1}."
        )
    if isinstance(selection, Contrast):
        first = answer.encoded.response_start
        said = answer.encoded.ids[first + start : first + stop].tolist()
        if list(selection.instead) in ([], said):
            raise PromptError("That is what the answer says; give another word in its place.")
    return selection
