"""The Explore page's state as the parameters of an address, and back.

The saved question holds answer, selection, side and filter; the other parameters hold how they were looked at.
"""

import streamlit as st

from explorer.app.explore import conversation, matrix_panel, method_box
from explorer.app.session import caches, resources, state
from explorer.app.session.reopening import reopen
from explorer.app.widgets import filter_box, places
from explorer.app.widgets.choices import (
    BOTH,
    CHANGE,
    EXAMPLE,
    LOSS,
    NOTHING,
    OPPONENTS,
    POSITION,
    PROBABILITY,
    PROPONENTS,
)
from explorer.errors import ExplorerError
from explorer.history import SavedAnswer, SavedQuestion

_OPENED = "link_opened"
_CHOICES = {
    "side": ("direction", (PROPONENTS, OPPONENTS, BOTH)),
    "tokens": ("colours", (LOSS, POSITION)),
    "answer": ("answer_colours", (NOTHING, CHANGE, PROBABILITY, EXAMPLE)),
    "columns": (matrix_panel.KEY, (LOSS, POSITION)),
}
"""The parameters that hold the page's choices: the session key of each, and what may be chosen."""
_ROWS = {"example": "example", "card": "card"}
"""The same for training examples: by which one the answer is coloured, and on which card to look."""
_MATRIX = "matrix"
"""The parameter that names the open matrix."""


def parameters(name: str) -> dict[str, str]:
    """What reopens the page as it is, `name` being the saved question's.

    A card is added by its own link (cards.js).
    """
    keys = {parameter: key for parameter, (key, _) in _CHOICES.items()} | {"example": "example"}
    chosen = {parameter: st.session_state.get(key) for parameter, key in keys.items()}
    chosen[_MATRIX] = matrix_panel.link() or None
    if not method_box.chosen().by_gradients:
        # The field isn't drawn, and Streamlit forgets its value sooner or later.
        chosen["side"] = None
    return {places.SAVED: name} | {parameter: str(value) for parameter, value in chosen.items() if value is not None}


def show(link: dict[str, str]) -> None:
    """Name what is shown in the address bar, so that reload, Back and a copied address bring it again.

    Streamlit adds an entry to the browser's history whenever the address changes, so each question shown is one.
    """
    row = st.session_state.get("card")
    wanted = link | caches.link_parameters() | ({} if row is None else {"card": str(row)})
    if dict(st.query_params) != wanted:
        st.query_params.from_dict(wanted)
    st.session_state[_OPENED] = wanted


def leave() -> None:
    """Don't open what the address names now: something new was asked, and the address will name that."""
    st.session_state[_OPENED] = dict(st.query_params)


def follow() -> None:
    """Open what the address names, unless that has been done; what is wrong with it is shown where the answer would be.

    Call it before any of the page's fields are drawn.
    """
    asked, before, opened = dict(st.query_params), caches.chosen(), st.session_state.get(_OPENED)
    if not asked.get(places.SAVED) or opened == asked:
        if opened and "prompt" not in st.session_state:
            # Streamlit forgets what fields hold while another page is looked at.
            _restore_choices(opened)
        return
    try:
        kept, question = reopen(state.EXPLORE, asked[places.SAVED])
        _restore(kept, question, asked)
        st.session_state["refused"] = None
    except ExplorerError as problem:
        st.session_state["refused"] = str(problem)
    st.session_state[_OPENED] = asked
    if caches.chosen() != before:
        # The field that chooses caches is drawn already, and shows the one before.
        st.rerun()


def _restore_choices(asked: dict[str, str]) -> None:
    for parameter, (key, names) in _CHOICES.items():
        if asked.get(parameter) in names:
            st.session_state[key] = asked[parameter]


def _restore(kept: SavedAnswer, question: SavedQuestion | None, asked: dict[str, str]) -> None:
    st.session_state["prompt"] = kept.answer.asked.question
    conversation.restore(kept.answer.asked)
    for name, value in (kept.drawn or {}).items():
        st.session_state[name] = value
    if question is not None:
        st.session_state["direction"] = OPPONENTS if question.opponents else PROPONENTS
        method_box.restore(question.method)
        filter_box.fill_in(resources.desk().corpus, question.wanted)
        if asked.get("side") != BOTH:
            pages = -(-len(question.shown) // state.FIRST_COUNT)
            st.session_state["more"] = {question.opponents: max(pages - 1, 0)}
    _restore_choices(asked)
    for parameter, key in _ROWS.items():
        row = asked.get(parameter, "")
        inside = row.isdecimal() and len(row) < 12 and int(row) < resources.store().manifest.rows
        st.session_state[key] = int(row) if inside else None
    matrix_panel.follow(kept.answer, asked.get(_MATRIX, ""), resources.store().manifest.rows)
