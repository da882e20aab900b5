"""Links that open what a page shows once more, to be copied or followed."""

from urllib.parse import urlencode

import streamlit as st

from explorer.app.session import caches


def query(parameters: dict[str, str]) -> str:
    """The part of an address that holds the parameters; the cache is named with them."""
    return f"?{urlencode(parameters | caches.link_parameters())}"


def link_box(page: str, parameters: dict[str, str], what: str) -> None:
    """A button that opens to the link of what is shown.

    Args:
        page: Where the page stands (`places`); the one that is open.
        parameters: What it takes to show the same again; the cache is named here.
        what: What the link opens, in words.
    """
    with st.popover("Link", icon=":material/link:", help="An address that opens this again"):
        st.text(f"Opens {what}, wherever this server and its history are reached.")
        st.code(f"{st.context.url or ''}{query(parameters)}", language=None, wrap_lines=True)
        st.page_link(
            page, label="Open it", icon=":material/open_in_new:", query_params=parameters | caches.link_parameters()
        )
