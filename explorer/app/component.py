"""The two browser components: the answer as clickable tokens, and the cards of training examples.

Turns records into data for the JavaScript under `assets/components` and checks what comes
back. Knows nothing of models, scores or pages. The page's fragment is rerun by the browser's
`poll` events while `streaming` or `pending`, and never otherwise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from explorer.paths import ASSETS
from explorer.records import Token

CHECKSUM_TOLERANCE = 1e-3
"""Relative difference up to which the mean of the tokens counts as equal to the score."""


@dataclass(frozen=True)
class StripEvent:
    """What a person chose on the answer."""

    selection: tuple[int, int] | None
    """Half-open range of token indices; None stands for the whole answer."""
    answer_id: str
    """The answer on which it was chosen."""


@dataclass(frozen=True)
class CardView:
    """One training example as its card shows it.

    Raises:
        ValueError: There are values, but not one for each token.
    """

    key: str
    """Stable for a training row; a card that keeps its key moves instead of being redrawn."""
    rank: int
    score: float
    exact: bool
    """True for an exact score, False for one from the sketches."""
    prompt: str
    """Empty where it is among the tokens."""
    tokens: tuple[Token, ...]
    """The tokens of the response, or of prompt and response."""
    source: str = ""
    percentile: float | None = None
    """Place among all examples by score, 0 (strongest opponent) to 100 (strongest proponent)."""
    values: tuple[float, ...] | None = None
    """Influence of each token; None while it isn't known."""
    values_exact: bool = False
    checksum: float | None = None
    """Relative difference between the mean (or sum) of the values and the score."""
    adds_up: bool = False
    """True when the values sum to the score, False when their mean is it."""

    def __post_init__(self) -> None:
        """Refuse values that don't match the tokens."""
        if self.values is not None and len(self.values) != len(self.tokens):
            raise ValueError(f"{len(self.values)} values for {len(self.tokens)} tokens; there must be one for each")


def _asset(*names: str) -> str:
    return "\n".join((ASSETS / "components" / name).read_text(encoding="utf-8") for name in names)


_STRIP = st.components.v2.component("rapidin_token_strip", css=_asset("strip.css"), js=_asset("tokens.js", "strip.js"))
_CARDS = st.components.v2.component(
    "rapidin_example_cards", css=_asset("cards.css"), js=_asset("tokens.js", "cards.js")
)


def token_strip(
    key: str,
    *,
    answer_id: str,
    tokens: Sequence[Token],
    selection: tuple[int, int] | None,
    streaming: bool,
    on_change: Callable[[], None],
    on_poll: Callable[[], None] | None = None,
    label: str = "Tokens of the answer",
) -> None:
    """Show an answer whose tokens can be selected.

    Args:
        key: The component's key; the page holds the selection under another one of its own.
        answer_id: Names this text; a selection made on another one never counts.
        tokens: What to show.
        selection: The selection the page holds (half-open), None for the whole answer.
        streaming: True while tokens still come: nothing can be selected and the browser polls.
        on_change: Called before the rerun when the person selected something; ask `strip_event` then.
        on_poll: Called before each rerun that polling caused.
        label: The strip's name for screen readers.
    """
    data = {
        "tick": _tick(key, streaming),
        "answer_id": answer_id,
        "label": label,
        "streaming": streaming,
        "tokens": [_wire(token) for token in tokens],
        "selection": None if selection is None else list(selection),
        "echo": _index(_sent(key).get("seq")) or 0,
    }
    _STRIP(key=key, data=data, on_selection_change=on_change, on_poll_change=on_poll or _nothing)


def strip_event(key: str, *, answer_id: str, count: int) -> StripEvent | None:
    """What the browser last said of the answer shown, checked.

    Args:
        key: The strip's key.
        answer_id: The answer now shown.
        count: How many tokens it has.

    Returns:
        The event, or None when there is none, it is about another answer, or it is
        malformed; then whatever is selected should stay so.
    """
    sent = _sent(key)
    if sent.get("answer_id") != answer_id or "start" not in sent or "stop" not in sent:
        return None
    if sent["start"] is None and sent["stop"] is None:
        return StripEvent(None, answer_id)
    start, stop = _index(sent["start"]), _index(sent["stop"])
    if start is None or stop is None or not start < stop <= count:
        return None
    return StripEvent((start, stop), answer_id)


def example_cards(
    key: str,
    *,
    view_id: str,
    cards: Sequence[CardView],
    scale: float,
    pending: bool,
    empty: str = "No examples to show.",
    more: bool = False,
    on_poll: Callable[[], None] | None = None,
    on_more: Callable[[], None] | None = None,
) -> None:
    """Show training examples in order, their tokens coloured by influence.

    Args:
        key: The component's key.
        view_id: Names the question these cards answer.
        cards: In the order to show them.
        scale: The |value| of full colour, the same for all cards.
        pending: True while better values are on their way; the browser polls.
        empty: What is said when there are no cards.
        more: Whether to offer "Show more".
        on_poll: Called before each rerun that polling caused.
        on_more: Called before the rerun when the person asked for more.
    """
    data = {
        "tick": _tick(key, pending),
        "view_id": view_id,
        "scale": _number(scale) or 0.0,
        "pending": pending,
        "more": more,
        "empty": empty,
        "cards": [_card(card) for card in cards],
    }
    _CARDS(key=key, data=data, on_poll_change=on_poll or _nothing, on_more_change=on_more or _nothing)


def _card(card: CardView) -> dict[str, Any]:
    checksum = _number(card.checksum)
    return {
        "key": card.key,
        "rank": card.rank,
        "score": _number(card.score),
        "exact": card.exact,
        "source": card.source,
        "percentile": _number(card.percentile),
        "prompt": card.prompt,
        "tokens": [_wire(token) for token in card.tokens],
        "values": None if card.values is None else [_number(value) for value in card.values],
        "values_exact": card.values_exact,
        "checksum": checksum,
        "adds_up": card.adds_up,
        "agrees": checksum is not None and abs(checksum) <= CHECKSUM_TOLERANCE,
    }


def _wire(token: Token) -> str | list[str | bool]:
    return [token.text, token.raw, token.special] if token.raw or token.special else token.text


def _number(value: float | None) -> float | None:
    """Six digits are more than is shown; JSON knows neither NaN nor infinity."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _tick(key: str, moving: bool) -> int:
    """A number that changes at each call while `moving`: unchanged data isn't drawn, and then nothing polls."""
    name = f"{key}:tick"
    tick = int(st.session_state.get(name, 0)) + int(moving)
    st.session_state[name] = tick
    return tick


def _sent(key: str) -> Mapping[str, Any]:
    """The selection as it came from the browser: untrusted."""
    state = st.session_state.get(key)
    value = state.get("selection") if isinstance(state, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _index(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _nothing() -> None:
    """Stands in for a callback: without one, Streamlit drops the event."""
