"""Who asks in this browser session."""

from urllib.parse import unquote

import streamlit as st

from explorer.serving.entrance.access import PERSON


def person() -> str:
    """The name that the guard knows the person by; empty where it knows none."""
    return unquote(st.context.headers.get(PERSON, ""))
