"""The words of an answer, each a run of its tokens, and the one that fine-tuning made likelier than any other.

Of use where a whole word is selected: by a click, or by itself once an answer is complete. Which word fine-tuning
raised says nothing of which training examples did it, so selecting it doesn't favour any.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from explorer.corpus.words import UNSPACED
from explorer.records import Span, Token
from explorer.views import HARDLY_MOVED

_ACCENTS = "\u0300-\u036f"
_LETTER = f"(?:[^\\W_{UNSPACED}]|[{_ACCENTS}])"
_ENDS = re.compile(f"{_LETTER}$")
_GOES_ON = re.compile(f"['’]?{_LETTER}")
_WORDLIKE = re.compile(r"[^\W_]")


def words_of(tokens: Sequence[Token]) -> tuple[Span, ...]:
    """The words of an answer as half-open runs of its tokens, which together are all of them, in order.

    A token belongs to the word before it where both meet at letters or digits, or at an apostrophe with a letter
    behind it, or where either is part of a character. Blanks, punctuation and control tokens stand alone, and so
    does each token of a script that sets no blanks.
    """
    starts = [j for j in range(len(tokens)) if j == 0 or not _joined(tokens[j - 1], tokens[j])]
    return tuple(zip(starts, [*starts[1:], len(tokens)], strict=False))


def _joined(before: Token, token: Token) -> bool:
    if before.special or token.special:
        return False
    if before.text == "":
        # The bytes of one character: what completes it has its text.
        return True
    return _ENDS.search(before.text) is not None and (token.text == "" or _GOES_ON.match(token.text) is not None)


def raises(tokens: Sequence[Token], change: NDArray[np.float32]) -> dict[Span, float]:
    """By how much fine-tuning raised every word with a letter or a digit, in order.

    Args:
        tokens: The answer's (J).
        change: Each token's log-probability under the fine-tuned model minus that under the base model (J), in nats.

    Returns:
        The sum over each word's tokens, in nats; below 0 for a word that was made less likely.
    """
    text = {
        span: "".join(token.text for token in tokens[slice(*span)] if not token.special) for span in words_of(tokens)
    }
    named = [span for span, said in text.items() if _WORDLIKE.search(said)]
    return {span: float(change[slice(*span)].sum(dtype=np.float64)) for span in named}


def most_raised(tokens: Sequence[Token], change: NDArray[np.float32], least: float) -> Span | None:
    """The word whose log-probability fine-tuning raised most, if by `least` nats or more; see `raises`."""
    raised = raises(tokens, change)
    best = max(raised, key=raised.__getitem__, default=None)
    return best if best is not None and raised[best] >= least else None


def raised_word(tokens: Sequence[Token], change: NDArray[np.float32] | None) -> Span | None:
    """The word that a page selects by itself; None without a base model, or where fine-tuning raised hardly any."""
    return None if change is None else most_raised(tokens, change, HARDLY_MOVED)
