"""Where each word of an answer comes from, as far as the evidence tells: one mark a word. Numpy and records only."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from explorer.records import Span, Token
from explorer.trust.verdict import State
from explorer.trust.words import raises
from explorer.views import HARDLY_MOVED

Mark = Literal["strong", "some", "verbatim", "base", "none"]
MARKS: tuple[Mark, ...] = ("strong", "some", "verbatim", "base", "none")
"""Training examples stand out for the word, strongly or somewhat; it stands word for word in the training data; the
base model says it, too; there is no clear source."""


def marks(
    tokens: Sequence[Token],
    change: NDArray[np.float32],
    state: Callable[[Span], State | None],
    passages: Sequence[Span],
) -> dict[Span, Mark]:
    """One mark for every word with a letter or a digit, as far as it is known.

    Args:
        tokens: The answer's (J).
        change: Each token's log-probability under the fine-tuned model minus that under the base model (J), in nats.
        state: How strong the evidence for a word is that fine-tuning raised; None while that isn't known. Only such
            words are asked about: no training example is needed to explain what the base model would have said.
        passages: Runs of tokens that stand word for word in the training data.

    Returns:
        Marks by the word's run of tokens; a raised word that nothing is known of yet has none.
    """
    found: dict[Span, Mark] = {}
    for word, raised in raises(tokens, change).items():
        evidence = state(word) if raised >= HARDLY_MOVED else "none"
        if evidence == "none" and any(start <= word[0] and word[1] <= stop for start, stop in passages):
            found[word] = "verbatim"
        elif evidence == "none" and raised < HARDLY_MOVED:
            found[word] = "base"
        elif evidence is not None:
            found[word] = evidence
    return found
