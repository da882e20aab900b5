"""The app's entry: loads what is shared, and leads to the pages."""

import os

# The entry's folder stands first on the import path; only absolute imports are used.
import streamlit as st

from explorer.app import messages, resources
from explorer.errors import ExplorerError
from explorer.paths import PAGES

st.set_page_config(page_title="RapidIn Explorer", page_icon=":material/travel_explore:", layout="wide")
st.html("<style>.stMainBlockContainer { padding-top: 2.5rem; padding-bottom: 3rem; }</style>")
try:
    resources.desk()
except ExplorerError as problem:
    messages.failed(str(problem))
    st.stop()
st.navigation([st.Page(os.fspath(PAGES / "explore.py"), title="Explore", default=True)], position="hidden").run()
