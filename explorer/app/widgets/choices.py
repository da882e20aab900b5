"""The names of what can be chosen: fields, code and links agree on them. And the field that several pages share."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from explorer.app.widgets.glossary import meaning

PROPONENTS, OPPONENTS, BOTH = "Proponents", "Opponents", "Both"
"""Which end of the ranking is shown (session key `direction`)."""
LOSS, POSITION = "Own loss", "Position"
"""What a training token's colour means (`colours`)."""
SHOWN = {
    PROPONENTS: "Raised it",
    OPPONENTS: "Lowered it",
    LOSS: "Loss of each token",
    POSITION: "Input positions, with prompt",
}
"""How the page says them, where it says them otherwise."""
NOTHING, CHANGE, PROBABILITY, EXAMPLE = "Nothing", "Fine-tuning", "Probability", "One example"
"""What the answer is coloured by (`answer_colours`)."""


def one_of(label: str, choices: Sequence[str], key: str, **settings: Any) -> str:
    """Choose one of some names, at first the first; the choice is kept under the key.

    A field that has lost its value, as one in a menu that is opened while its page is drawn sometimes does, gets it
    back. `settings` are those of `st.segmented_control`.
    """
    before = f"{key} before"
    if st.session_state.get(key) not in choices:
        st.session_state[key] = next(filter(choices.__contains__, [st.session_state.get(before), *choices]))
    # Nothing is chosen in a run that another one overtook.
    chosen = str(st.segmented_control(label, choices, required=True, key=key, **settings) or st.session_state[key])
    st.session_state[before] = chosen
    return chosen


def direction(key: str, sides: Sequence[str] = (PROPONENTS, OPPONENTS)) -> str:
    """Choose which end of the ranking is shown; the choice is kept under the key."""
    about = meaning("Raised it, proponent", "Lowered it, opponent")
    return one_of("Direction", sides, key, format_func=_shown, label_visibility="collapsed", help=about)


def direction_box(key: str, sides: Sequence[str]) -> str:
    """The same choice behind a button that says what is chosen, where there is little room for buttons."""
    chosen = str(st.session_state.get(key) or PROPONENTS)
    with st.popover(_shown(chosen), key=f"{key}_menu"):
        return direction(key, sides)


def token_colours(key: str, label: str = "Colours of training tokens") -> str:
    """Choose what a training token's colour means; the choice is kept under the key."""
    about = meaning("Loss of each token", "Input positions")
    return one_of(label, [LOSS, POSITION], key, format_func=_shown, help=about)


def _shown(choice: str) -> str:
    return SHOWN.get(choice, choice)
