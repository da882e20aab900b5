"""The names of what can be chosen: fields, code and links agree on them. And the field that several pages share."""

from collections.abc import Sequence

import streamlit as st

from explorer.app.widgets.glossary import meaning

PROPONENTS, OPPONENTS, BOTH = "Proponents", "Opponents", "Both"
"""Which end of the ranking is shown (session key `direction`)."""
LOSS, POSITION = "Own loss", "Position"
"""What a training token's colour means (`colours`)."""
NOTHING, CHANGE, PROBABILITY, EXAMPLE = "Nothing", "Fine-tuning", "Probability", "One example"
"""What the answer is coloured by (`answer_colours`)."""


def direction(key: str, sides: Sequence[str] = (PROPONENTS, OPPONENTS)) -> str:
    """Choose which end of the ranking is shown; the choice is kept under the key."""
    return str(
        st.segmented_control(
            "Direction",
            sides,
            default=PROPONENTS,
            required=True,
            key=key,
            label_visibility="collapsed",
            help=meaning("Proponent", "Opponent"),
        )
    )
