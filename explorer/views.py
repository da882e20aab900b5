"""Records → words and numbers a page shows. No tensors, no Streamlit."""

import numpy as np
from numpy.typing import NDArray

from explorer.records import Answer, Influence, Ranking, Selection

LONGEST_PROMPT = 2_000
"""Characters of a training prompt that a card carries."""


def selected_text(answer: Answer, selection: Selection) -> str:
    """The selected text in quotation marks, or what stands for the whole response."""
    if selection is None:
        return "the whole response"
    tokens = answer.tokens[selection[0] : selection[1]]
    text = "".join(token.text for token in tokens).strip()
    return f"“{shortened(text, 60)}”" if text else " ".join(shown_name(token.text, token.special) for token in tokens)


def shown_name(text: str, special: bool) -> str:
    """A name for a token without visible text."""
    if special:
        return "the end of the response"
    return "a line break" if "\n" in text else "a space" if text else "part of a character"


def shortened(text: str, length: int) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def question_kind(selection: Selection, positions: bool = False) -> tuple[str, str]:
    """Which of the four influences the scores and the colours show (paper, Eq. 5 to 8)."""
    if selection is None:
        asked, example, token = "whole response", "Eq. 5", "Eq. 6"
    else:
        one = selection[1] - selection[0] == 1
        asked, example, token = "output token" if one else "selected span, mean over its tokens,", "Eq. 7", "Eq. 8"
    coloured = "position in the training example, adding up to the score" if positions else f"training token ({token})"
    return f"{asked} → training example ({example})", f"{asked} → {coloured}"


def percentile(ranking: Ranking, score: float) -> float:
    """Share of all training examples with a lower score, in percent; the example itself is never below itself."""
    others = len(ranking.scores) - 1
    return 100 * min(int((ranking.scores < score).sum()), others) / len(ranking.scores)


def token_values(found: Influence, positions: bool) -> NDArray[np.float32] | None:
    """What an example's tokens are coloured by, in one of its two meanings; None while it isn't known."""
    return found.positions if positions else found.values


def token_checksum(found: Influence, positions: bool) -> float | None:
    """How far the token values are from adding up (positions) or averaging (losses) to the score, relative to it."""
    if not positions:
        return found.checksum
    if found.positions is None:
        return None
    return abs(float(found.positions.sum(dtype=np.float64)) - found.score) / max(abs(found.score), 1e-12)


def full_colour(ranking: Ranking, positions: bool = False) -> float:
    """The |token value| of full colour: the 98th percentile of what is shown."""
    shown = [token_values(influence, positions) for influence in ranking.influences]
    known = [values for values in shown if values is not None]
    return float(np.quantile(np.abs(np.concatenate(known)), 0.98)) if known else 0.0
