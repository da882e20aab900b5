"""Repairs of a cache: the command that makes one, and what those that were made have found, from records alone."""

import shlex
from collections.abc import Sequence

import streamlit as st

from explorer.cache import Store
from explorer.repair.kept import reports
from explorer.repair.words import as_text, sentence
from explorer.visible import one_line, visible


def command(cache: str, column: str, values: Sequence[str]) -> str:
    """The command line that trains a cache's adapter without the rows that have one of these values in a column."""
    rows = [part for value in values for part in ("--label", f"{column}={value}")] or ["--rows", "suspects.csv"]
    return shlex.join(
        ["rapidin-explorer", "repair", cache, "repaired", *rows, "--probes", "probes.jsonl", "--estimate"]
    )


def show(store: Store, cache: str, column: str, values: Sequence[str]) -> None:
    """What a repair would do, its command to copy, and the reports of those that were made."""
    kept = reports(store)
    with st.expander("Train without these rows", icon=":material/build:", key="repairs"):
        which = "the rows that count as planted" if values else "rows that you name in a file, one number a line"
        st.text(
            f"Drops {which}, trains the adapter anew by its own recipe, caches it, and lets both models answer your "
            "probes. It takes long and writes to a folder of its own, so it is a command, run where the cache lies; "
            "with --estimate it only says what it will cost."
        )
        st.code(visible(command(cache, column, values)), language=None, wrap_lines=True)
        for report in kept:
            st.text(one_line(sentence(report), 600))
            st.code(as_text(report), language=None)
