"""The names of what can be chosen: fields, code and links agree on them. And the field that several pages share."""

from collections.abc import Sequence

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


def direction(key: str, sides: Sequence[str] = (PROPONENTS, OPPONENTS)) -> str:
    """Choose which end of the ranking is shown; the choice is kept under the key."""
    if st.session_state.get(key) is None:
        st.session_state[key] = PROPONENTS
    # Nothing is chosen in a run that another one overtook.
    return str(
        st.segmented_control(
            "Direction",
            sides,
            required=True,
            key=key,
            format_func=_shown,
            label_visibility="collapsed",
            help=meaning("Raised it, proponent", "Lowered it, opponent"),
        )
        or PROPONENTS
    )


def token_colours(key: str) -> str:
    """Choose what a training token's colour means; the choice is kept under the key."""
    if st.session_state.get(key) is None:
        st.session_state[key] = LOSS
    return str(
        st.segmented_control(
            "Colours of training tokens",
            [LOSS, POSITION],
            required=True,
            key=key,
            format_func=_shown,
            help=meaning("Loss of each token", "Input positions"),
        )
        or LOSS
    )


def _shown(choice: str) -> str:
    return SHOWN.get(choice, choice)
