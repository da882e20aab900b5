"""What all browser sessions share: every `st.cache_resource` of the app that holds data or models stands here.

Of each served cache there is one store, model and desk, made when a session first needs it, and kept. All desks
share one worker: whatever the models, one thread loads them and computes.
"""

import gc
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from explorer.app.session import asker, caches, growing
from explorer.cache import Store
from explorer.concurrency import Steps, Urgency, Worker
from explorer.corpus import browse
from explorer.errors import CacheError, ExplorerError
from explorer.history import History, Origin, Reader, SavedAnswer, origin_of
from explorer.methods.description import described
from explorer.paths import EXAMPLE, data_home
from explorer.records import Prompt
from explorer.serving import prompts
from explorer.serving.config import serve_settings
from explorer.serving.watching import Condition

if TYPE_CHECKING:
    from explorer.app.desk.absences import Absences
    from explorer.app.desk.desk import Desk
    from explorer.engine import FineTuned
    from explorer.model.language_model import LanguageModel

Made = TypeVar("Made")

_LOADED: set[str] = set()
"""Folders of the caches whose models are loaded."""
_WORKERS: list["weakref.ref[Worker]"] = []
"""The worker, once there is one; after it a later one of a test."""
SWITCH = 0.0002
"""Seconds after which a thread that draws a page gives way; 0.005 is usual.

The worker asks for Python's lock at every one of a pass's many operations, and each time waits so long where pages are
being drawn.
"""

LOADING = "Loading the model (some seconds, once) …"
"""What pages say while they wait for it; the thread that loads it ahead has no page to say so on."""


NEEDS_ALL = (
    "This needs all training examples, and the cache is still being made. Wait until it is finished; the line at the "
    "top of the page says how far it is."
)


def store() -> Store:
    """The chosen cache with its examples, as far as this session looks at it. Raises CacheError as `Parts` does."""
    return _store(*_looked_at())


def in_the_making() -> bool:
    """Whether what this session looks at isn't all that the chosen cache will be."""
    return growing.in_the_making(caches.folder())


def take_up() -> None:
    """Look at all that is there of the chosen cache by now; older parts that few look at are forgotten."""
    folder = caches.folder()
    growing.take_up(folder)
    for number in growing.parts(folder).outdated():
        for of_part in (_store, _desk, _absences, _origin, _searchable_examples, _self_influences):
            of_part.clear(folder, number)


def _looked_at() -> tuple[str, int]:
    return caches.folder(), growing.looked_at(caches.folder())


def model() -> "LanguageModel":
    """The model of the chosen cache. Raises ExplorerError when it can't be loaded."""
    return _model(caches.folder())


def desk() -> "Desk":
    """Its engine and the worker. Raises ExplorerError when they can't be opened or don't fit each other."""
    # With its trainings, where all data is there for them: those that a server left undone go on.
    return _desk(*_looked_at()) if in_the_making() else absences().desk


def absences() -> "Absences":
    """The trainings without some rows that were asked for over it. Raises ExplorerError as `desk` does.

    Raises CacheError, too, while the cache is being made.
    """
    if in_the_making():
        raise CacheError(NEEDS_ALL)
    return _absences(*_looked_at())


def condition() -> Condition:
    """How the server is; from any thread, and without opening anything."""
    names = {name: folder in _LOADED for name, folder in caches.served().items()}
    worker = _WORKERS[-1]() if _WORKERS else None
    return Condition(names, worker.people if worker else 0)


def loading() -> threading.Thread:
    """The model on its way, once for all sessions; what needs no model can be looked at meanwhile."""
    return _loading(*_looked_at())


def origin() -> Origin:
    """What answers come from that are asked of the chosen cache."""
    return _origin(*_looked_at())


def history() -> History:
    """The saved questions that whoever asks may see. Raises HistoryError when the file can't be used."""
    return _history().of(Reader(asker.person(), serve_settings().shared_history))


def searchable_examples() -> tuple[str, ...]:
    """The text of every training example as it is searched."""
    return _searchable_examples(*_looked_at())


def self_influences() -> NDArray[np.float32]:
    """The self-influence of every training example (N)."""
    return _self_influences(*_looked_at())


@st.cache_resource(show_spinner="Reading the training examples …")
def _store(folder: str, number: int) -> Store:
    found = growing.parts(folder).of(number) or growing.parts(folder).newest
    _ = found.examples
    return found


@st.cache_resource(show_spinner=False)
def _model(folder: str) -> "LanguageModel":
    from explorer.serving.session import model_for

    settings, opened = serve_settings(), growing.parts(folder).newest

    def load() -> "LanguageModel":
        return model_for(opened, settings.model, settings.adapter, settings.template, settings.device)

    return _by_the_worker(("load", folder), load)


@st.cache_resource(show_spinner=False)
def _fine_tuned(folder: str) -> "FineTuned | None":
    from explorer.serving.session import model_for
    from explorer.serving.stages import fine_tuned

    opened, base, device = growing.parts(folder).newest, _model(folder), serve_settings().device

    def load() -> "FineTuned | None":
        return fine_tuned(opened, base, lambda later: model_for(later, device=device))

    return _by_the_worker(("fine-tuned", folder), load)


@st.cache_resource(show_spinner=False)
def _desk(folder: str, number: int) -> "Desk":
    from explorer.app.desk.desk import Desk
    from explorer.engine import Engine

    if (before := _last_desks().get(folder)) is not None:
        opened = _last_desks()[folder] = before.over(_store(folder, number))
        return opened
    opened = Desk(Engine(_model(folder), _store(folder, number), _fine_tuned(folder)), _worker())
    _LOADED.add(folder)
    _last_desks()[folder] = opened
    # Everything imported and loaded so far stays for good: keep the garbage
    # collector from walking it after each click.
    gc.collect()
    gc.freeze()
    return opened


@st.cache_resource(show_spinner=False)
def _last_desks() -> "dict[str, Desk]":
    """The last desk over each cache: what it knows of a cache in the making goes on to the next."""
    return {}


@st.cache_resource(show_spinner=False)
def _absences(folder: str, number: int) -> "Absences":
    from explorer.app.desk.absences import Absences
    from explorer.serving.session import base_for

    settings, opened = serve_settings(), _store(folder, number)

    def load(adapter: Path | None) -> "LanguageModel":
        return base_for(opened, settings.model, settings.template, settings.device, adapter=adapter)

    return Absences(_desk(folder, number), load)


@st.cache_resource(show_spinner=False)
def _worker() -> Worker:
    sys.setswitchinterval(SWITCH)
    worker = Worker()
    _WORKERS.append(weakref.ref(worker))
    return worker


def _by_the_worker(key: Hashable, work: Callable[[], Made]) -> Made:
    """What some work of one step returns, or raises.

    Models are loaded so: meanwhile transformers changes what tensors are made by default, and where, for all threads.
    Two models loaded at once would break each other, and any question that is being computed could become wrong.
    """
    made: Future[Made] = Future()

    def steps() -> Steps:
        try:
            made.set_result(work())
        except Exception as problem:
            made.set_exception(problem)
        yield

    _worker().submit(key, Urgency.ASKED, steps())
    return made.result()


@st.cache_resource(show_spinner=False)
def _origin(folder: str, number: int) -> Origin:
    return origin_of(_store(folder, number))


@st.cache_resource(show_spinner=False)
def _searchable_examples(folder: str, number: int) -> tuple[str, ...]:
    return browse.searchable(_store(folder, number))


@st.cache_resource(show_spinner=False)
def _self_influences(folder: str, number: int) -> NDArray[np.float32]:
    return browse.self_influence(_store(folder, number))


@st.cache_resource(show_spinner=False)
def _history() -> History:
    return History(Path(serve_settings().history or data_home() / "history.sqlite"), described)


@st.cache_resource(show_spinner=False)
def _loading(folder: str, number: int) -> threading.Thread:
    making = growing.in_the_making(folder)

    def load() -> None:
        # Whoever needs it next is told what is wrong.
        with suppress(ExplorerError):
            (_desk if making else _absences)(folder, number)

    thread = threading.Thread(target=load, name="loading", daemon=True)
    thread.start()
    return thread


@st.cache_resource(show_spinner=False)
def example() -> SavedAnswer | None:
    """The saved answer that can be looked at without the model, where one lies beside the ready prompts."""
    shipped = Path(serve_settings().probes).with_name("example.sqlite") if serve_settings().probes else None
    if shipped is None or not shipped.is_file():
        return None
    with tempfile.TemporaryDirectory() as work:
        # Opening a history may write to it.
        copy = shutil.copy(shipped, Path(work) / shipped.name)
        return History(Path(copy), described).answer(EXAMPLE)


@st.cache_resource(show_spinner=False)
def ready_prompts() -> tuple[tuple[str, Prompt], ...]:
    """(kind, prompt) of the ready examples; none when the server has no probes file. Raises DataError."""
    path = serve_settings().probes
    return prompts.ready_prompts(path) if path else ()
