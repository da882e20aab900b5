"""What the training data say themselves: rows for and against the selected word, and passages word for word."""

import streamlit as st

from explorer.app.desk.desk import Desk
from explorer.app.evidence import against_panel, verbatim_panel
from explorer.records import Answer, Prediction

OPEN = "data_says"
"""Session key of the panel, which is drawn when it is open."""


def show(desk: Desk, answer: Answer, passages: verbatim_panel.Found | None, predicted: Prediction | None) -> None:
    """Both in one panel, closed to one line; nothing where the data say nothing of it."""
    stated = against_panel.stated(desk, answer, predicted)
    told = against_panel.label(stated) if stated else "", verbatim_panel.label(passages) if passages else ""
    if not any(told):
        return
    panel = st.expander("; ".join(filter(None, told)), key=OPEN, on_change="rerun")
    if not panel.open:
        return
    with panel:
        if stated:
            against_panel.show(stated)
        if passages:
            verbatim_panel.show(answer, passages)
