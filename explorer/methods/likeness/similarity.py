"""Methods that compare representations: of an encoder, or the model's own hidden states."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.cache import Arrays
from explorer.cache.files import file_sha256
from explorer.concurrency import cached
from explorer.errors import NonFiniteError, about
from explorer.methods.likeness.encoder import Encoder, is_fetched, minilm
from explorer.methods.likeness.lexical import example_texts, question_text
from explorer.methods.method import Method, NotFitted
from explorer.model.language_model import LanguageModel
from explorer.records import Answer, Encoded, Selection, span_of


class Embedding(Method):
    """Cosine of an encoder's vectors of question and example."""

    def fit(self) -> None:
        """Embed every training example."""
        if self.kept_alone and not self.chosen.value and not is_fetched():
            raise NotFitted
        _ = self._vectors

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """Cosines (N)."""
        self.refuse_contrasts(selection)
        ((query,),) = self._encoder([question_text(answer, selection)])
        return np.asarray(self._vectors @ query)

    @cached
    def _folder(self) -> Path:
        return Path(self.chosen.value) if self.chosen.value else minilm(lambda line: self.report(line, 1, 1))

    @cached
    def _encoder(self) -> Encoder:
        return Encoder(self._folder, self.engine.model.device)

    @cached
    def _vectors(self) -> NDArray[np.float32]:
        """(N, H)."""

        def make() -> Arrays:
            texts, done = example_texts(self), list[NDArray[np.float32]]()
            for vectors in self._encoder(texts):
                done.append(vectors)
                self.report("embedding", sum(map(len, done)), len(texts))
            return {"vectors": np.concatenate(done)}

        encoder = sorted(file_sha256(path) for path in self._folder.glob("*.safetensors"))
        return self.fitted("embedding", make, encoder=encoder)["vectors"]


def hidden_states(model: LanguageModel, encoded: Encoded) -> NDArray[np.float32]:
    """The last layer's hidden states at every response token (G, H), of the final model."""
    ids = torch.from_numpy(encoded.ids).to(model.device)[None]
    with torch.no_grad():
        found = model.network(input_ids=ids, use_cache=False, logits_to_keep=1, output_hidden_states=True)
    states: NDArray[np.float32] = found.hidden_states[-1][0, encoded.positions].float().cpu().numpy()
    if not np.isfinite(states).all():
        raise NonFiniteError("a hidden state")
    return states


def said(model: LanguageModel, encoded: Encoded) -> slice:
    """The response tokens but for the end of the sequence, which an answer that was cut short hasn't."""
    length = encoded.response_length
    ends = length > 1 and int(encoded.ids[-1]) in model.stop_ids
    return slice(0, length - ends)


class _States(Method):
    """What both comparisons of hidden states share."""

    def _of(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """The states (tokens, H) of what is asked about."""
        self.refuse_contrasts(selection)
        span, model = span_of(selection), self.engine.speaker
        return hidden_states(model, answer.encoded)[slice(*span) if span else said(model, answer.encoded)]

    def _all(self) -> list[NDArray[np.float32]]:
        """The states of every training example's response."""
        examples, model, done = self.engine.store.examples, self.engine.model, list[NDArray[np.float32]]()
        for example in examples:
            with about(f"Row {len(done)} of the cache"):
                done.append(hidden_states(model, example.encoded)[said(model, example.encoded)])
            self.report("hidden states", len(done), len(examples))
        return done


class RepSim(_States):
    """Cosine of the hidden states at the last token."""

    def fit(self) -> None:
        """One forward pass over every training example."""
        _ = self._vectors

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """Cosines (N)."""
        query = self._of(answer, selection)[-1]
        sizes = np.linalg.norm(self._vectors, axis=1) * np.linalg.norm(query)
        return np.asarray(self._vectors @ query / np.maximum(sizes, 1e-12))

    @cached
    def _vectors(self) -> NDArray[np.float32]:
        """(N, H)."""
        return self.fitted("repsim", lambda: {"vectors": np.stack([states[-1] for states in self._all()])})["vectors"]


class Cka(_States):
    """Linear centred kernel alignment (Kornblith et al., 2019) of two sequences' hidden states.

    ‖XYᵀ‖² / (‖XXᵀ‖ ‖YYᵀ‖) for states X (tokens, H), centred over the H units,
    so that sequences of any two lengths can be compared.
    """

    def fit(self) -> None:
        """One forward pass over every training example."""
        _ = self._kept

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """Alignments (N), between 0 and 1."""
        query = _centred(self._of(answer, selection))
        all_states, offsets = self._kept["states"], self._kept["offsets"]
        found = []
        for start, stop in pairwise(offsets.tolist()):
            states = all_states[start:stop].astype(np.float32)
            size = float(np.linalg.norm(states @ states.T) * np.linalg.norm(query @ query.T))
            found.append(float(np.linalg.norm(states @ query.T)) ** 2 / max(size, 1e-12))
        return np.array(found, dtype=np.float32)

    @cached
    def _kept(self) -> Arrays:
        """The centred states of all response tokens (ΣG, H), float16, and where each example's begin (N + 1)."""

        def make() -> Arrays:
            states = [_centred(each) for each in self._all()]
            offsets = np.cumsum([0, *map(len, states)], dtype=np.int64)
            return {"states": np.concatenate(states).astype(np.float16), "offsets": offsets}

        return self.fitted("cka", make)


def _centred(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centred over the units, and of a size that half precision can hold; alignments don't change with size."""
    centred = states - states.mean(axis=1, keepdims=True)
    return np.asarray(centred / max(float(np.abs(centred).max()), 1e-12))
