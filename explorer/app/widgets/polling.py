"""A part of a page that follows some work in the background."""

from collections.abc import Callable

import streamlit as st

from explorer.app.widgets.component import pulse
from explorer.concurrency import Place

EVERY = 1.0
"""Seconds between two looks at it."""


def follow(key: str, show: Callable[[], None], running: Callable[[], bool], every: float = EVERY) -> None:
    """Draw a part, again and again by itself while the work runs, and at its end the whole page once more.

    Args:
        key: Names the part on its page.
        show: Draws it.
        running: Whether the work still runs.
        every: Seconds between two looks.
    """
    begun = running()

    @st.fragment
    def part() -> None:
        show()
        moving = running()
        if begun and not moving:
            st.rerun()
        pulse(f"pulse_{key}", moving=begun and moving, every=every)

    part()


def duration(seconds: float) -> str:
    """A time in hours, in minutes, or in seconds where it is short."""
    if seconds >= 5400:
        return f"{seconds / 3600:.0f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def queued(place: Place | None) -> str:
    """How many come before whoever waits, and how long that takes; empty where nobody does."""
    if place is None or not place.before:
        return ""
    people = "1 person is" if place.before == 1 else f"{place.before} people are"
    left = f"; about {duration(place.seconds)} left" if place.seconds and place.seconds >= 1 else ""
    return f"{people} before you in the queue{left}."
