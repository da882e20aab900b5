"""The app as it is served: `main.py`'s pages behind the guard. Streamlit finds `app` by its name and class."""

from pathlib import Path

from starlette.middleware import Middleware
from streamlit.file_util import get_static_dir
from streamlit.starlette import App

from explorer.app.session.resources import condition
from explorer.serving.entrance.access import access_settings
from explorer.serving.entrance.guard import Guard
from explorer.serving.entrance.policy import Policy, page_policy
from explorer.serving.watching import Watch

_access, _watch = access_settings(), Watch()
_page = page_policy(Path(get_static_dir()) / "index.html")

app = App(
    "main.py",
    routes=_watch.routes(_access.path, condition),
    middleware=[
        Middleware(_watch.counting),
        Middleware(Policy, page=_page, base_path=_access.path),
        Middleware(Guard, access=_access),
    ],
)
