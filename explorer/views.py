"""Records → words and numbers a page shows. No tensors, no Streamlit."""

import numpy as np

from explorer.records import Answer, Ranking, Selection

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


def question_kind(selection: Selection) -> tuple[str, str]:
    """Which of the four influences the scores and the colours show (paper, Eq. 5 to 8)."""
    if selection is None:
        return "whole response → training example (Eq. 5)", "whole response → training token (Eq. 6)"
    asked = "output token" if selection[1] - selection[0] == 1 else "selected span, mean over its tokens,"
    return f"{asked} → training example (Eq. 7)", f"{asked} → training token (Eq. 8)"


def percentile(ranking: Ranking, score: float) -> float:
    """Share of all training examples with a lower score, in percent; the example itself is never below itself."""
    others = len(ranking.scores) - 1
    return 100 * min(int((ranking.scores < score).sum()), others) / len(ranking.scores)


def full_colour(ranking: Ranking) -> float:
    """The |token value| of full colour: the 98th percentile of what is shown."""
    known = [influence.values for influence in ranking.influences if influence.values is not None]
    return float(np.quantile(np.abs(np.concatenate(known)), 0.98)) if known else 0.0
