"""The help sheet on every page: all keys and all words, opened by its button or by `?`.

It lives in the browser alone and never asks the server for anything.
"""

import streamlit as st

from explorer.app.widgets.glossary import WORDS
from explorer.paths import ASSETS

KEYS = (
    ("?", "Open this sheet, on any page; Escape closes it"),
    ("Tab, Shift Tab", "To the next and the previous part of the page"),
    ("← → ↑ ↓", "In the answer: along its tokens. On a card: along its tokens, or with ↑ ↓ from card to card"),
    ("Enter", "Ask about the word; on a pin of the histogram, go to its card"),
    ("Alt Enter", "Ask about the single token, as Alt click does"),
    ("Shift ← →", "Select several words; Shift click and dragging do the same, with Alt by tokens"),
    ("Home, End", "To the first and the last token"),
    ("Escape", "Ask about the whole response again"),
)
"""(keys, what they do)."""

_SHEET = st.components.v2.component(
    "rapidin_help_sheet",
    css=(ASSETS / "components" / "help.css").read_text(encoding="utf-8"),
    js="\n".join((ASSETS / "components" / name).read_text(encoding="utf-8") for name in ("tokens.js", "help.js")),
)


def help_sheet() -> None:
    """The button that opens the sheet."""
    data = {"keys": [list(key) for key in KEYS], "words": [list(word) for word in WORDS.items()]}
    _SHEET(key="help_sheet", data=data, width="content", height="content")
