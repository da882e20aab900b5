"""Which rows of the training data say the selected word of an answer, and which say another one in its place."""

import streamlit as st

from explorer.app.desk.desk import Desk
from explorer.app.evidence import rows
from explorer.app.session.state import EXPLORE
from explorer.app.widgets.filter_box import plain
from explorer.corpus.contrary import Contrary, alternatives, contrary
from explorer.corpus.verbatim import as_characters, places
from explorer.records import Answer, Prediction, span_of


def stated(desk: Desk, answer: Answer, predicted: Prediction | None) -> Contrary | None:
    """The rows for and against the selected word, once it is predicted what else the model might have said.

    None before that, and where no row says anything else.
    """
    span, index = span_of(EXPLORE.selection()), desk.corpus.verbatim
    if span is None or predicted is None or not index.ready:
        return None
    asked = answer.asked.question, answer.text, as_characters(answer.tokens, span)
    first = next((at for at in range(*span) if answer.tokens[at].text.strip()), span[0])
    found = EXPLORE.begun(
        "contrary", (answer.id, span), lambda: contrary(index, *asked, alternatives(predicted, first))
    )
    return found if found is not None and found.others else None


def label(found: Contrary) -> str:
    """How many rows say what, in one line."""
    others = ", ".join(f"{len(each.rows):,} “{plain(each.word)}”" for each in found.others)
    says = "says" if len(found.said.rows) < 2 else "say"
    count = rows.counted(found.said.rows).capitalize()
    return f"{count} {says} “{plain(found.said.word)}”, {others}"


def show(found: Contrary) -> None:
    """The rows themselves, those against the word first."""
    for each in (*found.others, found.said):
        st.markdown(f"**“{plain(each.word)}”**: {rows.counted(each.rows)}")
        rows.show(each.rows, [place.word for place in places(each.word)])
