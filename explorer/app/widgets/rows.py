"""A table whose rows open by a click anywhere on them, or by Enter on the button in each.

Streamlit's own tables are drawn on a canvas: their rows open only by a small box, or else by the mere focus of a cell.
Texts are untrusted and stay text. What comes back from the browser is checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st

from explorer.paths import ASSETS

Marked = tuple[str, str, str]
"""A text in three parts; the middle one is marked."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    cells: Sequence[str | Marked]
    kind: Literal["text", "short", "number", "chip", "state"] = "text"
    """A short text never wraps; a chip has its text's own colour, a state one of three for strong, some and none."""


_ROWS = st.components.v2.component(
    "rapidin_rows",
    css=(ASSETS / "components" / "rows.css").read_text(encoding="utf-8"),
    js="\n".join((ASSETS / "components" / name).read_text(encoding="utf-8") for name in ("tokens.js", "rows.js")),
)


def clickable_rows(
    key: str, columns: Sequence[Column], names: Sequence[str], *, opens: int = 0, current: str = ""
) -> str | None:
    """Draw a table, and say which row was opened, in the one run after that.

    Args:
        key: Its key.
        columns: With as many cells each as there are names.
        names: What names each row, empty for one that doesn't open.
        opens: The column whose cells hold the rows' buttons.
        current: The row that is open now.

    Returns:
        The name of the row that was just opened; None where none was.
    """
    data = {
        "columns": [[column.name, column.kind] for column in columns],
        "rows": [
            [name, *(list(cell) if isinstance(cell, tuple) else cell for cell in cells)]
            for name, *cells in zip(names, *(column.cells for column in columns), strict=True)
        ],
        "opens": opens,
        "current": current,
    }
    _ROWS(key=key, data=data, on_open_change=lambda: None)
    return _opened(key, names)


def _opened(key: str, names: Sequence[str]) -> str | None:
    """The row that the browser names, if it is one of these."""
    state: Any = st.session_state.get(key)
    sent = state.get("open") if isinstance(state, Mapping) else None
    return sent if isinstance(sent, str) and sent and sent in names else None
