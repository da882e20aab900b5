"""Composes the one way that all methods share: prompt → answer → gradient → sketch.

It owns the model. What computes with it must be called from one thread at a
time (`worker.Worker` gives it one); `known` and `sketch` read what was computed
already and may be called from any thread. It knows nothing of scores: what they
are is for methods to say.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache import CacheSettings, Store
from explorer.concurrency import Recent
from explorer.errors import PromptError, about
from explorer.gradients import Gradient, Sketcher, SketchSettings
from explorer.gradients.forward_mode import prepare_forward_mode
from explorer.model import alternatives
from explorer.model.generation import Decoder, GenerationSettings
from explorer.model.language_model import LanguageModel
from explorer.model.reader import TokenReader
from explorer.model.sequences import Tools
from explorer.normalisation import divisors
from explorer.records import (
    Answer,
    Contrast,
    Conversation,
    Encoded,
    Message,
    Prediction,
    Prompt,
    Selection,
    Span,
    Token,
    said,
    span_of,
)
from explorer.trust.words import raised_word, words_of

Question = tuple[str, Selection]
"""An answer's id and what is selected of it."""

NOT_ASKED = "This question was not computed yet, or long ago; ask it again."


@dataclass(frozen=True)
class FineTuned:
    """What became of the model of a cache by the fine-tuning that followed."""

    model: LanguageModel
    """The fine-tuned model; its gradients are of the same tensors as those of the model it comes from."""
    store: Store
    """The cache of the fine-tuning."""


class Engine:
    """Answers prompts with one model, and sketches questions about answers as one cache's examples are."""

    def __init__(self, model: LanguageModel, store: Store, fine_tuned: FineTuned | None = None):
        """Where the model was fine-tuned afterwards, what it became answers. Gradients are the model's own.

        Raises MismatchError when the cache was made for another model.
        """
        store.check_model(model.fingerprint)
        prepare_forward_mode()
        self.model, self.store, self.fine_tuned = model, store, fine_tuned
        self.speaker = fine_tuned.model if fine_tuned else model
        self.sketcher = make_sketcher(model, store.manifest.settings)
        self._decoder = Decoder(self.speaker)
        self._norms: Recent[str, NDArray[np.float32]] = Recent(64)
        self._sketches: Recent[Question, NDArray[np.float32]] = Recent(2048)
        self._directions: Recent[Question, Gradient] = Recent(2)
        self._example_norms: Recent[int, NDArray[np.float32]] = Recent(4096)
        self._sequences: Recent[int, tuple[Token, ...]] = Recent(512)
        self._predictions: Recent[str, Prediction] = Recent(64)
        self._raised: Recent[str, tuple[Span | None]] = Recent(2048)

    def over(self, store: Store) -> "Engine":
        """The same over the cache as it has grown: what is known of questions and of its first rows stays known."""
        grown = copy.copy(self)
        grown.store = store
        return grown

    # Answers

    def answer(self, prompt: Prompt, settings: GenerationSettings | None = None) -> Iterator[Answer]:
        """Yield the growing answer after every step, mostly a generated token more; the last one is finished.

        Answers that are asked for at the same time are decoded together.
        """
        asked = check_question(prompt)
        ids = self.speaker.encode_prompt(asked.turns).tolist()
        start, read, tokens = len(ids), TokenReader(self.speaker.tokenizer), list[Token]()
        for token in self._decoder.answer(asked.turns, settings):
            if token is not None:
                ids.append(token)
                tokens.append(read(token))
            yield _as_answer(asked, Encoded(np.asarray(ids, dtype=np.int64), start), tokens, finished=False)
        yield _as_answer(asked, Encoded(np.asarray(ids, dtype=np.int64), start), tokens, finished=True)

    def given_answer(self, prompt: Prompt, response: str | Message, tools: Tools = ()) -> Answer:
        """An answer from elsewhere, a text or a whole turn, attributed as if the model had said it."""
        turn = {"role": "assistant", "content": response} if isinstance(response, str) else response
        if not said(turn).strip():
            raise PromptError("The response is empty; give some text to ask about.")
        asked = check_question(prompt)
        encoded = self.speaker.encode(asked.turns, turn, tools)
        tokens = self.speaker.tokens(encoded.ids[encoded.response_start :])
        return _as_answer(asked, encoded, tokens, finished=True)

    def answered(self, prompt: Prompt, response: str | None, max_tokens: int) -> Answer:
        """The model's answer to a prompt, all at once; or `response`, as if the model had said that."""
        if response is not None:
            return self.given_answer(prompt, response)
        *_, answer = self.answer(prompt, GenerationSettings(max_tokens=max_tokens))
        return answer

    def predict(self, answer: Answer) -> Prediction:
        """What the model, and the base without its adapter, expected at each token of the answer."""
        known = self._predictions.get(answer.id)
        if known is None:
            known = alternatives.predict(self.speaker, answer.encoded)
            self._predictions.put(answer.id, known)
            self._raised.put(answer.id, (raised_word(answer.tokens, known.change),))
        return known

    def predicted(self, answer: Answer) -> Prediction | None:
        """What `predict` found; None where it wasn't asked. May be called from any thread."""
        return self._predictions.get(answer.id)

    def raised_word(self, answer: Answer) -> Span | None:
        """The word that fine-tuning raised most; it says nothing of which examples did, so asking about it is fair."""
        self.predict(answer)
        return self.raised(answer)

    def raised(self, answer: Answer) -> Span | None:
        """`raised_word`, where `predict` was asked; may be called from any thread."""
        (word,) = self._raised.get(answer.id) or (None,)
        return word

    def contrast(self, answer: Answer, span: Span, text: str) -> Contrast:
        """Why a span and not this text in its place, as something to ask about. Raises PromptError where it is none."""
        check_selection(answer, span)
        found = alternatives.contrast(self.speaker, answer, span, text)
        check_selection(answer, found)
        return found

    # Questions about an answer: gradient → sketch

    def ask(self, answer: Answer, selection: Selection) -> None:
        """Compute the question's RapidGrad, unless it is known.

        Tokens and spans are divided by the norms of the *whole* response's
        gradient, which keeps influence bilinear.
        """
        question = (answer.id, check_selection(answer, selection))
        if not self.known(answer, selection):
            with about("This question"):
                self._sketches.put(question, self.sketcher(self.direction(answer, selection)))

    def known(self, answer: Answer, selection: Selection) -> bool:
        """Whether the question's RapidGrad is remembered."""
        return self._sketches.get((answer.id, selection)) is not None

    def sketch(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """The RapidGrad (K) of a question that was asked. Raises PromptError where it isn't remembered."""
        sketch = self._sketches.get((answer.id, selection))
        if sketch is None:
            raise PromptError(NOT_ASKED)
        return sketch

    def ask_tokens(self, answer: Answer) -> Iterator[Span | None]:
        """Compute the RapidGrad of every token of the answer, by shared forward passes, and so of every word.

        Yields after every pass: the token that was asked about in it, if there was one. Then come the words of several
        tokens, which cost nothing: the gradient of a span is the mean of its tokens'.
        """
        norms, done = self._norms_of(answer), 0
        yield None
        for gradient in gradients.token_steps(self.model, answer.encoded):
            selection = None
            if gradient is not None:
                selection, done = (done, done + 1), done + 1
                with about("This question"):
                    self._sketches.put((answer.id, selection), self.sketcher(self._normalised(gradient, norms)))
            yield selection
        for start, stop in words_of(answer.tokens):
            if stop - start > 1:
                tokens = [self.sketch(answer, (j, j + 1)) for j in range(start, stop)]
                self._sketches.put((answer.id, (start, stop)), np.mean(tokens, axis=0, dtype=np.float32))
                yield start, stop

    def direction(self, answer: Answer, selection: Selection) -> Gradient:
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

    def example_direction(self, answer: Answer, selection: Selection, row: int) -> Gradient:
        """The question's direction divided by an example's norms, so that the example itself needs no division."""
        return self.for_example(self.direction(answer, selection), row)

    def for_example(self, direction: Gradient, row: int) -> Gradient:
        """Any direction divided by an example's norms."""
        return self._divided(direction, self.example_norms(row, self._kind))

    def output_direction(self, answer: Answer, gradient: Gradient, row: int) -> Gradient:
        """The other way round: a gradient of an example, divided so that the answer needs no division."""
        return self._divided(self._normalised(gradient, self.example_norms(row, self._kind)), self._norms_of(answer))

    def example_norms(self, row: int, kind: str) -> NDArray[np.float32]:
        """‖g^l‖ of an example (L), as exact values are divided by them where gradients are normalised so.

        A cache made in mixed precision has its rounding in them: there they are computed, by a backward pass at every
        checkpoint, and remembered.
        """
        if kind == "none" or not self.store.manifest.settings.mixed_precision:
            return self.store.norms[row]
        known = self._example_norms.get(row)
        if known is None:
            known = gradients.norms(gradients.gradient(self.model, self.store.examples[row].encoded))
            self._example_norms.put(row, known)
        return known

    def _norms_of(self, answer: Answer) -> NDArray[np.float32]:
        known = self._norms.get(answer.id)
        if known is None:
            # The whole response's direction is remembered with them: it is asked about soon.
            self.direction(answer, None)
            known = self._norms.get(answer.id)
        assert known is not None
        return known

    def _normalised(self, gradient: Gradient, norms: NDArray[np.float32]) -> Gradient:
        return gradients.normalised(self.model, gradient, norms, self._kind)

    def _divided(self, gradient: Gradient, norms: NDArray[np.float32]) -> Gradient:
        return gradients.divided(gradient, divisors(norms, self._kind))

    @property
    def _kind(self) -> str:
        return self.store.manifest.settings.normalisation

    def sequence(self, row: int) -> tuple[Token, ...]:
        """All tokens (T) of a training example as they are shown, prompt and template included."""
        known = self._sequences.get(row)
        if known is None:
            known = self.model.tokens(self.store.examples[row].encoded.ids)
            self._sequences.put(row, known)
        return known


def _as_answer(asked: Conversation, encoded: Encoded, tokens: Sequence[Token], finished: bool) -> Answer:
    digest = hashlib.sha256(f"{encoded.response_start} {encoded.ids.tolist()}".encode()).hexdigest()
    text = "".join(token.text for token in tokens if not token.special)
    return Answer(digest[:16], asked, encoded, tuple(tokens), text, finished)


def make_sketcher(model: LanguageModel, settings: CacheSettings) -> Sketcher:
    """The sketcher of a model's gradients under a cache's settings: one for its examples and its questions alike."""
    sketch = SketchSettings(settings.length, settings.rounds, settings.seed)
    return Sketcher(model.fingerprint.layout, sketch, model.device)


def check_question(prompt: Prompt) -> Conversation:
    """What is asked, as a conversation. Raises PromptError when its last turn says nothing."""
    asked = Conversation.of(prompt)
    if not asked.question.strip():
        raise PromptError("The prompt is empty; type a question first.")
    return asked


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
