"""The app's entry: leads to the pages, each of which loads what it needs."""

# The entry's folder stands first on the import path; only absolute imports are used.
import streamlit as st

from explorer.app.session import caches, growing
from explorer.app.widgets import fields, messages, places
from explorer.app.widgets.help_sheet import help_sheet
from explorer.errors import ExplorerError
from explorer.paths import ASSETS
from explorer.serving.config import serve_settings

SEEN = 3
"""So many pages, those on which questions are asked, stand in the row; the others behind "More"."""
PAGE, MENU = "page_seen", "pages"
"""Session key of the page that was last looked at; the name of the menu of the others."""

# One of Streamlit's own icons would be fetched from elsewhere.
st.set_page_config(page_title="RapidIn Explorer", page_icon=ASSETS / "icon.svg", layout="wide")
st.html(ASSETS / "page.css")
saved = st.Page(places.HISTORY, title="History", default=not serve_settings().caches)
served = (
    [
        st.Page(places.EXPLORE, title="Explore", default=True),
        st.Page(places.COMPARE, title="Compare"),
        st.Page(places.AUDIT, title="Audit"),
        saved,
        st.Page(places.DATA, title="Data"),
        st.Page(places.METHODS, title="Methods"),
        st.Page(places.CACHE, title="Cache"),
    ]
    if serve_settings().caches
    else [saved]
)
page = st.navigation(served, position="hidden")
folded = [other for other in served[SEEN:] if len(served) > SEEN]
if st.session_state.get(PAGE) != page.title:
    # A link in the menu has led here.
    st.session_state[PAGE] = page.title
    fields.close(MENU)
caches.follow_link()
# Streamlit's own navigation hides behind a sign on narrow screens; this row stays, and wraps.
with st.container(horizontal=True, gap="small", vertical_alignment="center", key="navigation"):
    st.markdown("**RapidIn Explorer**", width="content")
    for other in served[:SEEN]:
        st.page_link(other)
    if folded:
        here = f"More: {page.title}" if page in folded else "More pages"
        with fields.menu(MENU, here, type="tertiary"):
            for other in folded:
                st.page_link(other)
    caches.picker()
    help_sheet()
if serve_settings().caches:
    growing.line(caches.folder())
try:
    page.run()
except ExplorerError as problem:
    messages.failed(str(problem))
