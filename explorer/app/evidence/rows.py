"""A list of rows of the training data, with what they say marked.

Training text is untrusted: it is shown letter by letter.
"""

from collections.abc import Sequence

import streamlit as st

from explorer.app.session import caches, resources
from explorer.app.widgets import places
from explorer.app.widgets.filter_box import plain
from explorer.corpus.verbatim import where
from explorer.records import ExampleRow
from explorer.visible import one_line

ROWS = 5
"""So many rows are listed of each passage and word."""
AROUND = 60
"""So many characters of a row stand on each side of what is marked in it."""


def counted(rows: Sequence[int]) -> str:
    """How many rows, in words."""
    return ("no row", "1 row")[len(rows)] if len(rows) < 2 else f"{len(rows):,} rows"


def show(rows: Sequence[int], words: Sequence[str]) -> None:
    """The first of these rows, with what they say marked."""
    examples = resources.store().examples
    for example in (examples[row] for row in rows[:ROWS]):
        label = f" · {plain(one_line(example.source, 40))}" if example.source else ""
        st.page_link(
            places.DATA,
            label=f"Row {example.row}{label} · {plain(one_line(example.title, 60))}",
            query_params={"row": str(example.row)} | caches.link_parameters(),
        )
        st.caption(_marked(example, words))
    if len(rows) > ROWS:
        st.caption(f"and {len(rows) - ROWS:,} more")


def _marked(example: ExampleRow, words: Sequence[str]) -> str:
    """What a row says around a run of words, these in bold; its response, where that has them."""
    for text in (example.response, example.prompt):
        if found := where(text, words):
            start, stop = found
            before, after = text[max(0, start - AROUND) : start], text[stop : stop + AROUND]
            cut = "…" if start > AROUND else "", "…" if len(text) > stop + AROUND else ""
            return f"{cut[0]}{spaced(before)}**{plain(one_line(text[start:stop], 300))}**{spaced(after)}{cut[1]}"
    return plain(one_line(example.response, 2 * AROUND))


def spaced(text: str) -> str:
    """A text as Markdown shows it unchanged, its outer blanks kept as one each."""
    shown = plain(one_line(text, len(text) + 1)) if text.strip() else ""
    return f"{' ' * text[:1].isspace()}{shown}{' ' * text[-1:].isspace()}"
