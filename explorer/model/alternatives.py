"""What the model might have said instead: its own candidates at each place of an answer, and a word given by hand.

It knows nothing of gradients or influence.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.errors import NonFiniteError, PromptError
from explorer.model.language_model import LanguageModel
from explorer.model.reader import TokenReader
from explorer.records import Answer, Candidate, Contrast, Encoded, Prediction, Span

CANDIDATES = 5
"""So many of the most probable tokens are kept for each place."""


def predict(model: LanguageModel, encoded: Encoded) -> Prediction:
    """Log-probabilities and candidates at each response token: one forward pass with the adapter, one without it."""
    said, best, ids = _expectations(model, encoded)
    found = _candidates(model, encoded, best, ids)
    if not model.has_base:
        return Prediction(said, None, found)
    with model.without_adapter():
        base, best, ids = _expectations(model, encoded)
    return Prediction(said, base, found, _candidates(model, encoded, best, ids))


def _candidates(
    model: LanguageModel, encoded: Encoded, best: NDArray[np.float32], ids: NDArray[np.int64]
) -> tuple[tuple[Candidate, ...], ...]:
    """Each candidate (G × CANDIDATES) as it would stand there: behind the same tokens."""
    reader, candidates = TokenReader(model.tokenizer), []
    for place, token in enumerate(encoded.ids[encoded.response_start :]):
        candidates.append(
            tuple(
                Candidate(int(each), copy(reader)(each), float(np.exp(value)))
                for each, value in zip(ids[place], best[place], strict=True)
            )
        )
        reader(token)
    return tuple(candidates)


def _expectations(
    model: LanguageModel, encoded: Encoded
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Log p of what was said (G), and log p and ids of the candidates (G × CANDIDATES), at each response token."""
    ids = torch.from_numpy(encoded.ids).to(model.device)
    with torch.no_grad():
        kept = encoded.response_length + 1
        logits = model.network(input_ids=ids[None], use_cache=False, logits_to_keep=kept).logits[0, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    whole = logits.logsumexp(dim=-1)
    if not torch.isfinite(whole).all():
        raise NonFiniteError("a prediction", "This answer")
    said = logits.gather(1, ids[encoded.response_start :, None])[:, 0] - whole
    best = logits.topk(min(CANDIDATES, logits.shape[1]), dim=-1)
    values = (best.values - whole[:, None]).float().cpu().numpy()
    return said.float().cpu().numpy(), values, best.indices.cpu().numpy()


def contrast(model: LanguageModel, answer: Answer, span: Span, text: str) -> Contrast:
    """What was said in a span against a text in its place, tokenised as it would stand there.

    The text begins with the blanks that what was said begins with, unless it
    has some of its own. Raises PromptError when it is empty or too long.
    """
    if not text.strip():
        raise PromptError("The other word is empty; type what might have stood there.")
    start, stop = span
    said = "".join(token.text for token in answer.tokens[start:stop])
    if text == text.lstrip():
        text = said[: len(said) - len(said.lstrip())] + text
    ids = _continuation(model, answer, start, text)
    length = answer.encoded.response_start + start + len(ids)
    if length >= model.context:
        raise PromptError(f"With this in its place the answer has {length:,} tokens, too many for the model.")
    return Contrast(span, tuple(ids), text.strip())


def _continuation(model: LanguageModel, answer: Answer, start: int, text: str) -> Sequence[int]:
    """The token ids of a text behind the first `start` tokens of the answer.

    Tokenised together with what precedes it, where that leaves those tokens as
    they are; else behind a line break, with which no tokenizer joins a word.
    """

    def read(words: str) -> list[int]:
        found: list[int] = model.tokenizer(words, add_special_tokens=False)["input_ids"]
        return found

    first = answer.encoded.response_start
    before = "".join(token.text for token in answer.tokens[:start])
    for anchor, known in (
        (before, answer.encoded.ids[first : first + start].tolist()),
        ("\n", read("\n")),
    ):
        ids = read(anchor + text)
        if ids[: len(known)] == known and len(ids) > len(known):
            return ids[len(known) :]
    return read(text)
