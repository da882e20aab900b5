"""Long lists a page at a time, so that the browser gets no more than it shows."""

import streamlit as st


def current_page(key: str, pages: int) -> int:
    """The page that is looked at, counted from 1; the last one where there are fewer by now."""
    page = min(int(st.session_state.get(key, 1)), max(pages, 1))
    st.session_state[key] = page
    return page


def pager(key: str, pages: int) -> None:
    """The field that turns pages, where there are several."""
    if pages > 1:
        st.number_input(f"Page, of {pages:,}", 1, pages, key=key, width=160)
