"""The app's entry: leads to the pages, each of which loads what it needs."""

# The entry's folder stands first on the import path; only absolute imports are used.
import streamlit as st

from explorer.app.session import caches
from explorer.app.widgets import messages, places
from explorer.app.widgets.help_sheet import help_sheet
from explorer.errors import ExplorerError
from explorer.paths import ASSETS
from explorer.serving.config import serve_settings

# One of Streamlit's own icons would be fetched from elsewhere.
st.set_page_config(page_title="RapidIn Explorer", page_icon=ASSETS / "icon.svg", layout="wide")
st.html(ASSETS / "page.css")
saved = st.Page(places.HISTORY, title="History", default=not serve_settings().caches)
served = (
    [
        st.Page(places.EXPLORE, title="Explore", default=True),
        st.Page(places.COMPARE, title="Compare"),
        st.Page(places.AUDIT, title="Audit"),
        st.Page(places.METHODS, title="Methods"),
        saved,
        st.Page(places.DATA, title="Data"),
        st.Page(places.CACHE, title="Cache"),
    ]
    if serve_settings().caches
    else [saved]
)
page = st.navigation(served, position="hidden")
caches.follow_link()
# Streamlit's own navigation hides behind a sign on narrow screens; this row stays, and wraps.
with st.container(horizontal=True, gap="small", vertical_alignment="center", key="navigation"):
    st.markdown("**RapidIn Explorer**", width="content")
    for other in served:
        st.page_link(other)
    caches.picker()
    help_sheet()
try:
    page.run()
except ExplorerError as problem:
    messages.failed(str(problem))
