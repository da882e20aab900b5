"""The browser components: the answer as clickable tokens, the cards of training examples, and a pulse.

Turns records into data for the JavaScript under `assets/components` and checks what comes
back. Knows nothing of models, scores or pages. The page's fragment is rerun by the browser's
`poll` events while `streaming` or `pending`, and never otherwise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import streamlit as st

from explorer.corpus.histogram import Histogram
from explorer.corpus.words import Word
from explorer.paths import ASSETS
from explorer.records import Span, Token
from explorer.trust.marks import Mark
from explorer.trust.words import words_of

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
class DuplicateView:
    """One near-duplicate of the example on a card."""

    row: int
    score: float
    """From the sketches."""
    source: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Colouring:
    """One number for each token of a strip, and how it is painted."""

    values: tuple[float, ...] | None
    """None while they are on their way."""
    unit: Literal["nats", "probability", "influence"]
    low: str
    """What the scale's lower end means, in a word or two."""
    high: str
    scale: float = 1.0
    """The |value| of full colour."""
    signed: bool = True
    """Whether the scale runs from −scale (blue) to scale (orange), not from 0 (violet at its end)."""
    faint: float = 0.0
    """Tokens whose |value| is less are greyed."""


@dataclass(frozen=True)
class Choice:
    """A token that might have stood in the place of the selected one."""

    id: int
    token: Token
    probability: float
    said: bool
    chosen: bool


@dataclass(frozen=True)
class CardView:
    """One training example as its card shows it.

    Raises:
        ValueError: There are values, but not one for each token.
    """

    row: int
    """The training row; a card that keeps it moves instead of being redrawn."""
    rank: int
    score: float
    exact: bool
    """True for an exact score, False for one from the sketches."""
    prompt: str
    """Empty where it is among the tokens."""
    tokens: tuple[Token, ...]
    """The tokens of the response, or of prompt and response."""
    source: str = ""
    passage: str = ""
    """Where in which document it stands, for a passage of raw text."""
    place: str = ""
    """Its rank among all examples by score, in words."""
    unusual: str = ""
    """How unusual the score is for this very example, beside its scores on unrelated prompts."""
    often: str = ""
    """Said of an example that is near the top of many unrelated prompts."""
    values: tuple[float, ...] | None = None
    """Influence of each token; None while it isn't known."""
    values_exact: bool = False
    checksum: float | None = None
    """Relative difference between the mean (or sum) of the values and the score."""
    adds_up: bool = False
    """True when the values sum to the score, False when their mean is it."""
    duplicates: tuple[DuplicateView, ...] = ()
    """What was folded into this card."""
    steadiness: str = ""
    """How firmly the example holds its place."""
    beside: str = ""
    """What the same example has to do with another answer."""
    by_gradients: bool = True
    """Whether the score comes from gradients: exact or sketched, and with a sign that means something."""
    without_values: str = ""
    """What is said where there are no values of tokens, and none will come."""

    def __post_init__(self) -> None:
        """Refuse values that don't match the tokens."""
        if self.values is not None and len(self.values) != len(self.tokens):
            raise ValueError(f"{len(self.values)} values for {len(self.tokens)} tokens; there must be one for each")


@dataclass(frozen=True)
class CardGroup:
    """Cards under one heading: proponents or opponents."""

    title: str
    cards: tuple[CardView, ...]
    """In the order to show them."""
    words: tuple[Word, ...] = ()
    """What sets these examples apart."""
    more: bool = False
    """Whether to offer "Show more"."""


def _asset(*names: str) -> str:
    return "\n".join((ASSETS / "components" / name).read_text(encoding="utf-8") for name in names)


_STRIP = st.components.v2.component(
    "rapidin_token_strip", css=_asset("strip.css"), js=_asset("tokens.js", "poller.js", "beneath.js", "strip.js")
)
_CARDS = st.components.v2.component(
    "rapidin_example_cards",
    css=_asset("cards.css", "findings.css"),
    js=_asset("tokens.js", "poller.js", "histogram.js", "words.js", "cards.js", "column.js"),
)
_VERDICT = st.components.v2.component(
    "rapidin_verdict", css=_asset("verdict.css"), js=_asset("tokens.js", "verdict.js")
)
_PULSE = st.components.v2.component("rapidin_pulse", js=_asset("poller.js", "pulse.js"))


def token_strip(
    key: str,
    *,
    answer_id: str,
    tokens: Sequence[Token],
    selection: tuple[int, int] | None,
    streaming: bool,
    on_change: Callable[[], None],
    pending: bool = False,
    colouring: Colouring | None = None,
    choices: Sequence[Choice] | None = None,
    choices_note: str = "",
    on_instead: Callable[[], None] | None = None,
    on_poll: Callable[[], None] | None = None,
    label: str = "Tokens of the answer",
    differs: Sequence[bool] = (),
    verbatim: Sequence[Span] = (),
    marks: Mapping[Span, Mark] | None = None,
) -> None:
    """Show an answer whose words can be selected, and with Alt its tokens.

    Args:
        key: The component's key; the page holds the selection under another one of its own.
        answer_id: Names this text; a selection made on another one never counts.
        tokens: What to show.
        selection: The selection the page holds (half-open), None for the whole answer.
        streaming: True while tokens still come: nothing can be selected and the browser polls.
        on_change: Called before the rerun when the person selected something; ask `strip_event` then.
        pending: True while numbers or choices are on their way; the browser polls.
        colouring: A number for each token; None for a strip without colours.
        choices: What the model might have said at the selected token.
        choices_note: Stands before them, or in their place.
        on_instead: Called before the rerun when the person chose one; ask `instead_event` then.
        on_poll: Called before each rerun that polling caused.
        label: The strip's name for screen readers.
        differs: For each token whether it is marked as unlike another answer's; empty for no such marks.
        verbatim: Runs of tokens that stand word for word in the training data; they are underlined.
        marks: Where words come from, as far as that is known.
    """
    data = {
        "tick": _tick(key, streaming or pending),
        "answer_id": answer_id,
        "label": label,
        "streaming": streaming,
        "tokens": [_wire(token) for token in tokens],
        "words": [list(word) for word in words_of(tokens)],
        "selection": None if selection is None else list(selection),
        "echo": _index(_sent(key).get("seq")) or 0,
        "pending": pending,
        "colouring": None if colouring is None else _colouring(colouring),
        "choices": None if choices is None else [_choice(choice) for choice in choices],
        "choices_note": choices_note,
        "differs": list(differs),
        "verbatim": [list(span) for span in verbatim],
        "marks": [[*word, mark] for word, mark in (marks or {}).items()],
    }
    _STRIP(
        key=key,
        data=data,
        on_selection_change=on_change,
        on_instead_change=on_instead or _nothing,
        on_poll_change=on_poll or _nothing,
    )


def instead_event(key: str, *, answer_id: str) -> tuple[int, int] | None:
    """Of a click on a choice: the place of the token and the id of the other one. Untrusted beyond being numbers."""
    sent = _sent(key, "instead")
    place, token = _index(sent.get("start")), _index(sent.get("token"))
    if sent.get("answer_id") != answer_id or place is None or token is None:
        return None
    return place, token


def _colouring(colouring: Colouring) -> dict[str, Any]:
    values = colouring.values
    return asdict(colouring) | {"values": None if values is None else [_number(value) for value in values]}


def _choice(choice: Choice) -> dict[str, Any]:
    return {**vars(choice), "token": _wire(choice.token), "probability": _number(choice.probability)}


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
    groups: Sequence[CardGroup],
    scale: float,
    pending: bool,
    histogram: Histogram | None = None,
    empty: str = "No examples to show.",
    marked: str = "",
    on_poll: Callable[[], None] | None = None,
    on_more: Callable[[int], None] | None = None,
    on_act: Callable[[], None] | None = None,
    link: str = "",
    focus: str = "",
    folded: str = "",
    overview: bool | None = None,
) -> None:
    """Show training examples in order, their tokens coloured by influence.

    Args:
        key: The component's key.
        view_id: Names the question these cards answer.
        groups: One group of cards, or two side by side.
        scale: The |value| of full colour, the same for all cards.
        pending: True while better values are on their way; the browser polls.
        histogram: The spread of all scores; the cards' own are marked in it.
        empty: What is said where a group has no cards.
        on_poll: Called before each rerun that polling caused.
        marked: The key of the card by which the answer is coloured.
        on_more: Called before the rerun with the number of the group of which the person asked for more.
        on_act: Called before the rerun when the person asked something of one card; ask `card_event` then. Without it
            nothing can be asked of a card.
        link: The parameters of the address that opens these cards again, to be copied with a card's own; or nothing.
        focus: The key of the card to look at first.
        folded: What the button says behind which all of it waits; empty where it is shown at once.
        overview: Whether the histogram and the typical words are shown; None for a button that shows them.
    """

    def more_asked() -> None:
        index = _index(_sent(key, "more").get("group"))
        if on_more is not None and index is not None and index < len(groups):
            on_more(index)

    strongest = max((abs(card.score) for group in groups for card in group.cards), default=0.0)
    data = {
        "tick": _tick(key, pending),
        "view_id": view_id,
        "scale": _number(scale) or 0.0,
        "pending": pending,
        "marked": marked,
        "link": link,
        "focus": focus,
        "acts": on_act is not None,
        "folded": folded,
        "overview": overview,
        "empty": empty,
        "histogram": None if histogram is None else _histogram(histogram),
        "groups": [
            {"title": group.title, "more": group.more, "words": [_word(word) for word in group.words]}
            for group in groups
        ],
        "cards": [_card(card, index, strongest) for index, group in enumerate(groups) for card in group.cards],
    }
    _CARDS(
        key=key,
        data=data,
        on_poll_change=on_poll or _nothing,
        on_more_change=more_asked,
        on_act_change=on_act or _nothing,
    )


def verdict_box(
    key: str, *, asked: str, state: str, headline: str, sentence: str, progress: str, sure: Sequence[str]
) -> None:
    """Say in plain words what was found behind a question, with the reasons one click away.

    Args:
        key: The component's key.
        asked: What was asked.
        state: `strong`, `some` or `none`; empty where evidence isn't judged, or not yet.
        headline: The state in words.
        sentence: What was found.
        progress: What is still on its way; empty where nothing is.
        sure: The lines behind "How sure is this?"; no such button where there are none.
    """
    said = {"asked": asked, "state": state, "headline": headline, "sentence": sentence}
    _VERDICT(key=key, data={**said, "progress": progress, "sure": list(sure)})


def pulse(key: str, *, moving: bool, every: float) -> None:
    """Draw nothing, and have the browser rerun the fragment `every` so many seconds while `moving`.

    Unlike `run_every`, it is silent while the person leaves the page (`poller.js`).
    """
    data = {"tick": _tick(key, moving), "moving": moving, "every": 1000 * every}
    _PULSE(key=key, data=data, on_poll_change=_nothing)


def card_event(key: str) -> tuple[str, str] | None:
    """What was asked of which card: `colour` or `matrix`, and the card's key. Untrusted."""
    sent = _sent(key, "act")
    action, card = sent.get("action"), sent.get("key")
    return (action, card) if action in ("colour", "matrix") and isinstance(card, str) else None


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {
        "low": _number(histogram.low),
        "high": _number(histogram.high),
        "counts": list(histogram.counts),
        "rows": histogram.rows,
        "of": histogram.of,
    }


def _word(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "rows": list(word.rows),
        "shown": word.shown,
        "holders": word.holders,
        "of": word.of,
    }


def _card(card: CardView, group: int, strongest: float) -> dict[str, Any]:
    checksum = _number(card.checksum)
    return {
        "key": f"row-{card.row}",
        "row": card.row,
        "group": group,
        "rank": card.rank,
        "score": _number(card.score),
        "share": _number(abs(card.score) / strongest) if strongest else 0.0,
        "exact": card.exact,
        "source": card.source,
        "passage": card.passage,
        "place": card.place,
        "unusual": card.unusual,
        "often": card.often,
        "prompt": card.prompt,
        "tokens": [_wire(token) for token in card.tokens],
        "values": None if card.values is None else [_number(value) for value in card.values],
        "values_exact": card.values_exact,
        "checksum": checksum,
        "adds_up": card.adds_up,
        "agrees": checksum is not None and abs(checksum) <= CHECKSUM_TOLERANCE,
        "steadiness": card.steadiness,
        "beside": card.beside,
        "by_gradients": card.by_gradients,
        "without_values": card.without_values,
        "duplicates": [
            {
                "row": duplicate.row,
                "score": _number(duplicate.score),
                "source": duplicate.source,
                "prompt": duplicate.prompt,
                "response": duplicate.response,
            }
            for duplicate in card.duplicates
        ],
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


def _sent(key: str, name: str = "selection") -> Mapping[str, Any]:
    """What came from the browser under a name: untrusted."""
    state = st.session_state.get(key)
    value = state.get(name) if isinstance(state, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _index(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _nothing() -> None:
    """Stands in for a callback: without one, Streamlit drops the event."""
