"""What all browser sessions share: every `st.cache_resource` of the app stands here."""

import gc
import json
from pathlib import Path

import streamlit as st

from explorer.app.desk import Desk
from explorer.config import serve_settings
from explorer.session import open_engine


@st.cache_resource(show_spinner="Loading the model and the cache (some seconds, once) …")
def desk() -> Desk:
    """The engine and its worker. Raises ExplorerError when they can't be opened."""
    settings = serve_settings()
    opened = Desk(open_engine(settings.cache, settings.model, settings.adapter, settings.template, settings.device))
    _ = opened.engine.store.examples
    # Everything imported and loaded so far stays for good: keep the garbage
    # collector from walking it after each click.
    gc.collect()
    gc.freeze()
    return opened


@st.cache_resource(show_spinner=False)
def ready_prompts() -> tuple[tuple[str, str], ...]:
    """(kind, prompt) of the ready examples; none when the server has no probes file."""
    path = serve_settings().probes
    if not path or not Path(path).is_file():
        return ()
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple((str(row.get("kind", "")), str(row["prompt"])) for row in rows)
