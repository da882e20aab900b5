"""Which of the served caches a browser session looks at. Loads neither caches nor models."""

from collections import Counter
from pathlib import Path

import streamlit as st

from explorer.app.widgets import fields, places
from explorer.cache.files import file_sha256
from explorer.cache.manifest import MANIFEST
from explorer.cache.store import load
from explorer.errors import CacheError
from explorer.serving.config import serve_settings
from explorer.visible import one_line

_KEY, _PICKED = "cache", "cache_picked"
_OUTLIVE = ("session", _KEY, "history_", "audit_of ")
"""How the session keys begin that aren't about one cache."""


def served() -> dict[str, str]:
    """The folders of all served caches, by the names that links and people call them: as short as tells them apart."""
    folders = [Path(folder) for folder in serve_settings().caches]
    names = Counter(folder.name for folder in folders)
    short = [folder.name if names[folder.name] == 1 else f"{folder.parent.name}/{folder.name}" for folder in folders]
    alike = Counter(short)
    return {name if alike[name] == 1 else str(folder): str(folder) for name, folder in zip(short, folders, strict=True)}


def chosen() -> str:
    """The name of the cache that this session looks at: the one that was chosen, else the first."""
    names = list(served())
    name = st.session_state.get(_KEY)
    return str(name) if name in names else names[0]


def folder() -> str:
    """Where the chosen cache lies."""
    return served()[chosen()]


def choose(name: str) -> None:
    """Look at another cache. What was asked of the last one is left: it is in the history."""
    if name not in served() or name == chosen():
        return
    cleared = int(st.session_state.get("filters_cleared", 0)) + 1
    for key in [str(key) for key in st.session_state]:
        if not key.startswith(_OUTLIVE):
            del st.session_state[key]
    st.session_state[_KEY] = name
    st.session_state["filters_cleared"] = cleared


def choose_made_as(manifest_sha256: str) -> None:
    """Look at the cache whose manifest this is, if it is served."""
    for name, where in served().items():
        path = Path(where) / MANIFEST
        if path.is_file() and file_sha256(path) == manifest_sha256:
            choose(name)
            return


def follow_link() -> None:
    """Choose the cache that a link names, or say that it isn't served here."""
    name = st.query_params.get(places.CACHE_NAME)
    if name in served():
        choose(name)
    elif name:
        st.warning("This link names a cache that isn't served here; what follows is about another one.")
        st.text(one_line(name, 120))


def link_parameters() -> dict[str, str]:
    """What a link needs to name the chosen cache: nothing where there is one alone."""
    return {places.CACHE_NAME: chosen()} if len(served()) > 1 else {}


def picker() -> None:
    """Say which model and data are looked at; of several caches, in a field that chooses."""
    names = list(served())
    if len(names) < 2:
        if names and (said := _about(folder())):
            st.text(one_line(said, 120), width="content")
        return
    st.selectbox(
        "Cache and model",
        names,
        format_func=_described,
        label_visibility="collapsed",
        help="Each cache has its own model, which is loaded when it is first chosen, and kept",
        **fields.showing(_PICKED, chosen(), _take),
    )


def _take(name: str) -> None:
    choose(name)
    # A link's parameters are about the cache it names.
    st.query_params.clear()


def _described(name: str) -> str:
    said = _about(served()[name])
    return one_line(f"{name}: {said}" if said else name, 120)


def _about(folder: str) -> str:
    """Model and size of a cache, from its manifest; empty where that can't be read, which opening it will explain."""
    try:
        return _about_manifest(folder, (Path(folder) / MANIFEST).stat().st_mtime_ns)
    except OSError:
        return ""


@st.cache_resource(show_spinner=False, max_entries=64)
def _about_manifest(folder: str, written: int) -> str:
    try:
        made = load(Path(folder))
    except CacheError:
        return ""
    kept = made.manifest
    adapter = f" + {Path(kept.adapter).name}" if kept.adapter else ""
    of = "" if made.complete else f"{made.read:,} of "
    return f"{Path(kept.model).name}{adapter}, {of}{kept.rows:,} rows{'' if made.complete else ' read'}"
