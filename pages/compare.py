"""Two answers side by side: what influenced both of them, and what only one."""

import streamlit as st

from explorer.app.compare import form
from explorer.app.compare.examples import show_comparison
from explorer.app.compare.form import KIND, SAVED, A, B, open_saved
from explorer.app.compare.sides import show_sides
from explorer.app.session import caches
from explorer.app.widgets import fields, places

KEPT = tuple(f"compare_{field}" for field in ("kind", "prompt", "heat", "seed", "longest", "direction", "by", "exact"))
"""How the keys of fields begin that outlive a visit to another page."""
OPENED = "compare_opened"


def open_named() -> None:
    """Open the two saved answers that the address names, unless that has been done."""
    named = tuple(st.query_params.get(side, "") for side in places.SIDES)
    if not any(named) or st.session_state.get(OPENED) == named:
        return
    before = caches.chosen()
    for study, name in zip((A, B), named, strict=True):
        if name:
            open_saved(study, name)
    # Choosing another cache, as the first may have done, forgets what came before.
    st.session_state[OPENED], st.session_state[KIND] = named, SAVED
    if caches.chosen() != before:
        # The field that chooses caches is drawn already, and shows the one before.
        st.rerun()


@st.fragment
def sides() -> None:
    """Both answers, and the examples behind them; polling and clicks rerun this alone."""
    if not any(study.asking() or st.session_state.get(study.key("refused")) for study in (A, B)):
        st.info(
            "Choose what to compare. Both answers appear here side by side with the training examples that influenced "
            "both of them, and those that influenced only one.",
            icon=":material/compare_arrows:",
        )
        return
    if show_sides():
        show_comparison()


st.markdown("### Compare")
fields.restore("compare")
open_named()
form.show_form()
fields.remember("compare", KEPT)
sides()
