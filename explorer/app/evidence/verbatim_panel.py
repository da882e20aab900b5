"""Which passages of an answer and its prompt stand word for word in the training data, and in which rows."""

import streamlit as st

from explorer.app.desk.desk import Desk
from explorer.app.evidence import rows
from explorer.app.session.state import EXPLORE
from explorer.app.widgets.filter_box import plain
from explorer.corpus.verbatim import Passage, as_tokens
from explorer.records import Answer, Span
from explorer.visible import one_line

Found = tuple[tuple[Passage, ...], tuple[Passage, ...]]
"""The passages of an answer, and of its prompt."""


def passages(desk: Desk, answer: Answer) -> Found | None:
    """What stands word for word in the training data; None until all of them are indexed."""
    index = desk.corpus.verbatim
    if not index.ready:
        return None
    return EXPLORE.begun(
        "verbatim", answer.id, lambda: (index.passages(answer.text), index.passages(answer.asked.question))
    )


def underlined(answer: Answer, found: Found | None) -> list[Span]:
    """The answer's passages as runs of its tokens."""
    return [as_tokens(answer.tokens, each.start, each.stop) for each in found[0]] if found else []


def label(found: Found) -> str:
    """How many passages there are, in one line; empty where there are none."""
    count = sum(map(len, found))
    stand = "1 passage stands" if count == 1 else f"{count} passages stand"
    return f"{stand} word for word in the training data" if count else ""


def show(answer: Answer, found: Found) -> None:
    """The passages, rarest first, each with its rows."""
    for text, whose, of in (
        (answer.text, "", found[0]),
        (answer.asked.question, " of the prompt", found[1]),
    ):
        for each in of:
            said = plain(one_line(text[each.start : each.stop], 200))
            st.markdown(f"**“{said}”**{whose}: {rows.counted(each.rows)}")
            rows.show(each.rows, each.words)
