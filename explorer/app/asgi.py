"""The app as it is served: `main.py`'s pages behind the guard. Streamlit finds `app` by its name and class."""

from pathlib import Path

from starlette.middleware import Middleware
from streamlit.file_util import get_static_dir
from streamlit.starlette import App

from explorer.serving.access import access_settings
from explorer.serving.guard import Guard
from explorer.serving.policy import Policy, page_policy

_access = access_settings()
_page = page_policy(Path(get_static_dir()) / "index.html")

app = App(
    "main.py",
    middleware=[
        Middleware(Policy, page=_page, base_path=_access.path),
        Middleware(Guard, access=_access),
    ],
)
