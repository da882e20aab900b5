"""What all charts share: colours that fit the theme, labels shown letter by letter, a frame that scrolls."""

from html import escape
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

BLUE, ORANGE, VIOLET = (
    {False: "#4c93e6", True: "#3f8ae6"},
    {False: "#f08a1d", True: "#c96f12"},
    {False: "#6c4fd8", True: "#8f7cf0"},
)
"""In light and in dark: below and above zero, and how much of one thing."""
PAPER = {False: "#ffffff", True: "#161616"}
"""Where a scale begins."""


def is_dark() -> bool:
    """Whether the reader's theme is dark."""
    return bool(st.context.theme.type == "dark")


def font(dark: bool, size: int = 12) -> dict[str, Any]:
    """The letters of a chart."""
    return {"size": size, "color": "#fafafa" if dark else "#31333f"}


def plain(text: str) -> str:
    """The text as plotly shows it letter by letter: it would read tags, entities and formulas."""
    return escape(text).replace("$", "&#36;")


def scrolling(key: str, width: int) -> DeltaGenerator:
    """A frame in which a chart is never narrower than `width` pixels; where there is less room, it scrolls.

    What else it holds, such as a table in an expander, makes it reachable by keyboard, and stays in place.
    """
    st.html(
        f"<style>.st-key-{key} {{ overflow-x: auto; }}"
        f".st-key-{key} > div:has(.stPlotlyChart) {{ min-width: {width}px; }}"
        f".st-key-{key} > div:has(.stExpander) {{ position: sticky; left: 0; }}</style>"
    )
    return st.container(key=key)
