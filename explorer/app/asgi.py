"""The app as it is served: `main.py`'s pages behind the guard. Streamlit finds `app` by its name and class."""

from starlette.middleware import Middleware
from streamlit.starlette import App

from explorer.serving.access import access_settings
from explorer.serving.guard import Guard

app = App("main.py", middleware=[Middleware(Guard, access=access_settings())])
