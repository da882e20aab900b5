"""The filter of the examples column: the user's own labels, and a text. Their names and values are untrusted."""

import re

import streamlit as st

from explorer.corpus import Corpus, Filter

MOST_LABELS = 6
"""Columns that are offered; more would fill the screen."""


def filter_box(corpus: Corpus) -> Filter:
    """Show the filter's fields behind a button, and return what they say."""
    with st.popover("Filter", icon=":material/filter_alt:", help="Rank only some of the training examples"):
        return filter_fields(corpus)


def filter_fields(corpus: Corpus) -> Filter:
    """Show the filter's fields, and return what they say."""
    text = st.text_input(
        "Text in prompt or response",
        key=_key("text"),
        max_chars=200,
        placeholder="Any text, in any case",
        help="Rank only the examples whose prompt or response holds this text",
    )
    chosen = [
        (column, tuple(st.multiselect(plain(column), values, key=_key(f"label {column}"), placeholder="All")))
        for column, values in list(corpus.labels.items())[:MOST_LABELS]
    ]
    return Filter(tuple(pair for pair in chosen if pair[1]), text)


def fill_in(corpus: Corpus, wanted: Filter) -> None:
    """Make the fields say this, before they are drawn; labels that the data doesn't have are left out."""
    clear()
    st.session_state[_key("text")] = wanted.text
    for column, values in wanted.where:
        known = corpus.labels.get(column, ())
        st.session_state[_key(f"label {column}")] = [value for value in values if value in known]


def clear() -> None:
    """Let all examples through again."""
    st.session_state["filters_cleared"] = _cleared() + 1


def plain(label: str) -> str:
    """A label as Streamlit's Markdown shows it unchanged."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(label.split()))


def _key(field: str) -> str:
    # A closed popover isn't drawn, and its fields go on sending what they hold: only new ones are empty.
    return f"filter {_cleared()} {field}"


def _cleared() -> int:
    return int(st.session_state.get("filters_cleared", 0))
