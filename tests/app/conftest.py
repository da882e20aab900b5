"""The app over the tiny model, under Streamlit's AppTest: no browser, no JavaScript."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from explorer import paths
from explorer.app.session import resources
from explorer.concurrency import Worker
from explorer.serving.config import ServeSettings
from tests.conftest import Tiny

POLL = 0.3
"""Seconds between two looks of a page at the work behind it, as in `poller.js`."""
ENTRY = paths.PAGES.parent / "explorer" / "app" / "main.py"


@pytest.fixture(scope="session", autouse=True)
def components() -> Iterator[None]:
    """What is installed is looked through for Streamlit components once, not for every app that is started."""
    found = manifest_scanner.scan_component_manifests()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest_scanner, "scan_component_manifests", lambda: found)
        yield


@pytest.fixture
def start(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., AppTest]]:
    """Start the app with the tiny cache, or with other settings."""
    st.cache_resource.clear()

    def started(cache: str | None = None, more: tuple[str, ...] = (), **settings: Any) -> AppTest:
        first = str(tiny.cache) if cache is None else cache
        served = ServeSettings(
            tuple(folder for folder in (first, *more) if folder),
            **({"device": "cpu", "history": str(tmp_path / "history.sqlite")} | settings),
        )
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        return AppTest.from_file(str(ENTRY), default_timeout=60).run()

    yield started
    # Nothing goes on computing beside the next test.
    resources._worker().close()
    st.cache_resource.clear()


def component(at: AppTest, key: str) -> dict[str, Any] | None:
    """What Python last sent to a component, or None while it isn't on the page."""
    for element in at.get("bidi_component"):
        if key in element.proto.id:
            return json.loads(element.proto.json)
    return None


def table(at: AppTest, key: str) -> dict[str, list[str]]:
    """What a table whose rows open says, by its columns."""
    data = component(at, key)
    assert data is not None, f"no table {key} is on the page"
    cells = [row[1:] for row in data["rows"]]
    text = [["".join(cell) if isinstance(cell, list) else cell for cell in row] for row in cells]
    return {name: [row[place] for row in text] for place, (name, _) in enumerate(data["columns"])}


def field_of(shown: Iterable[Any], name: str) -> Any:
    """The one of these elements whose key is by `fields.showing`, by the name that it was given."""
    (found,) = (element for element in shown if str(element.key).startswith(f"{name} "))
    return found


def settled(at: AppTest, ready: Callable[[AppTest], bool]) -> AppTest:
    """Rerun, as the browser's polling would, until the worker has got so far."""
    end = time.monotonic() + 60
    while not ready(at):
        assert time.monotonic() < end, f"the page never got there; it shows {at.main}"
        rest(resources._worker(), POLL)
        at.run()
    return at


def rest(worker: Worker, seconds: float) -> None:
    """Wait until the worker has nothing left to do, at most so long."""
    end = time.monotonic() + seconds
    while not worker.idle and time.monotonic() < end:
        time.sleep(0.005)


@pytest.fixture
def fresh(tiny: Tiny, tmp_path: Path) -> Path:
    """A cache for which nothing was fitted, beside the other: it names its model from its own place."""
    return Path(
        shutil.copytree(tiny.cache, tiny.cache.parent / tmp_path.name, ignore=shutil.ignore_patterns("methods"))
    )
