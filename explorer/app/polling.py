"""A part of a page that follows some work in the background."""

from collections.abc import Callable

import streamlit as st

EVERY = 1.0
"""Seconds between two looks at it."""


def follow(show: Callable[[], None], running: Callable[[], bool]) -> None:
    """Draw a part, again and again by itself while the work runs, and at its end the whole page once more."""
    moving = running()

    def part() -> None:
        show()
        if moving and not running():
            st.rerun()

    st.fragment(part, run_every=EVERY if moving else None)()


def duration(seconds: float) -> str:
    """A time in minutes, or in seconds where it is short."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
