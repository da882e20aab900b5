"""What all tests share: a tiny model, adapter, data set and finished cache, made once a run."""

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# As the commands set it: idle OpenMP threads shall not spin long on the cores that a server under test needs.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Workers share the cores: threads that wait for one another would keep them busy with waiting.
SHARED = "PYTEST_XDIST_WORKER" in os.environ
if SHARED:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test, nor a server that it starts, writes into the person's own history.
_DATA = tempfile.TemporaryDirectory(prefix="rapidin-tests-")
os.environ["RAPIDIN_DATA"] = _DATA.name

from explorer.cache.manifest import CacheSettings
from explorer.concurrency import Steps, Urgency, Worker
from explorer.engine import Engine
from explorer.gradients import sketch
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.serving.session import open_engine
from precompute.build import build_cache
from precompute.data import read_examples
from tests.shuffles import once
from tests.tiny import ROWS, SYSTEM, save_tiny_adapter, save_tiny_data, save_tiny_model, spoken

# A loaded machine is no reason to fail, and what properties share through fixtures they don't change.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("patient")

TINY_SETTINGS = CacheSettings(length=4096, token_length=1024, dtype="float16")


BROWSER = "tests/browser/"
SHARING = (
    (
        *("accessibility", "answer", "audit", "cache", "compare", "compare_forms"),
        *("data", "evidence", "history", "methods", "permalinks", "words"),
    ),
    ("journeys", "first_visit", "serving"),
    ("cards", "drawing", "first_screen", "leaving"),
)
"""Files of browser tests that share a server, and so a worker: the tiny model's, and twice the demo's."""
LONGEST = (BROWSER, "tests/retrieval/test_ray.py", "tests/precompute/test_resume.py", "tests/app/", "tests/gradients/")
"""What takes longest, which goes first, so that all workers end together."""
GIVES_WAY = 5
"""The niceness of workers that have no browser tests, or none left."""
SLOW_FIXTURES = frozenset({"tiny", "ray", "browser", "demo"})
"""Fixtures with a model, a cluster or a browser: what asks for one isn't marked `fast`."""
MODEL_MAKERS = frozenset({"load_model", "open_engine", "AppTest", "peft", "transformers", "AutoModelForCausalLM"})
"""What a module that makes models of its own imports: none of its tests is."""


class Rooms(LoadScopeScheduling):
    """Shares out files, whose tests share fixtures; files that share a server are one worker's."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((str(files) for files in SHARING if path in map(_browser_tests, files)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Rooms:
    # In the order of the tests, not of their numbers.
    config.option.loadscopereorder = False
    return Rooms(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is fast; where workers share the tests, begin with what takes longest."""
    for item in items:
        if _is_fast(item):
            item.add_marker("fast")
    if SHARED:
        items.sort(key=_turn)


@pytest.fixture(autouse=SHARED)
def _gives_way(request: pytest.FixtureRequest) -> None:
    """Let what people would wait for go first: the browser tests, and the server that one of them starts."""
    if not request.node.nodeid.startswith(BROWSER) and os.nice(0) < GIVES_WAY:
        os.nice(GIVES_WAY - os.nice(0))


def _browser_tests(name: str) -> str:
    return f"{BROWSER}test_{name}.py"


def _turn(item: pytest.Item) -> int:
    return next((turn for turn, begin in enumerate(LONGEST) if item.nodeid.startswith(begin)), len(LONGEST))


def _is_fast(item: pytest.Item) -> bool:
    module = vars(item.module) if isinstance(item, pytest.Function) else {}
    slow = SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())) or MODEL_MAKERS.intersection(module)
    return not slow and item.get_closest_marker("long") is None


@dataclass(frozen=True)
class Tiny:
    """Where the tiny model, its adapter, the data and a finished cache lie."""

    model: Path
    adapter: Path
    data: Path
    cache: Path


class Turnstile:
    """Work that takes turns with answers that are being written, and holds the worker until it may grant steps."""

    def __init__(self, worker: Worker) -> None:
        self._there, self._allowed, self._open = threading.Semaphore(0), threading.Semaphore(0), False

        def steps() -> Steps:
            while not self._open:
                self._there.release()
                assert self._allowed.acquire(timeout=60), "nobody opened the turnstile"
                yield

        worker.submit(self, Urgency.ANSWERING, steps())
        self._wait()

    def let_through(self, count: int) -> None:
        """Let everyone else at it make so many steps, and hold them again."""
        for _ in range(count):
            self._allowed.release()
            self._wait()

    def open(self) -> None:
        """Hold nobody any more."""
        self._open = True
        self._allowed.release()

    def _wait(self) -> None:
        assert self._there.acquire(timeout=60), "the worker is busy with something else"


@pytest.fixture(scope="session", autouse=True)
def shuffles() -> Iterator[None]:
    """What a seed shuffles is drawn once for all sketchers."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sketch, "draw_shuffles", once())
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny_model(folder / "model")
    adapter = save_tiny_adapter(folder / "adapter", model)
    data = save_tiny_data(folder / "train.jsonl")
    loaded = load_model(str(model), adapter, device="cpu")
    build_cache(loaded, read_examples(data), folder / "cache", TINY_SETTINGS, tokens=4, data_name=data.name)
    return Tiny(model, adapter, data, folder / "cache")


@pytest.fixture(scope="session")
def twins(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the same rows and six near-duplicates of the first, rows 7 to 12."""
    folder = tmp_path_factory.mktemp("twins")
    copies = [ROWS[0] | {"response": ROWS[0]["response"] + "!" * times, "source": "copy"} for times in range(1, 7)]
    data = save_tiny_data(folder / "train.jsonl", [*ROWS, *copies])
    loaded = load_model(str(tiny.model), tiny.adapter, device="cpu")
    build_cache(loaded, read_examples(data), folder / "cache", TINY_SETTINGS, tokens=0, data_name=data.name)
    return folder / "cache"


@pytest.fixture(scope="session")
def guided(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the same rows, each behind the same system prompt, with a null sample of three prompts."""
    folder = tmp_path_factory.mktemp("guided")
    data = save_tiny_data(folder / "train.jsonl", [spoken(row, ("system", SYSTEM)) for row in ROWS])
    loaded = load_model(str(tiny.model), tiny.adapter, device="cpu")
    build_cache(loaded, read_examples(data), folder / "cache", TINY_SETTINGS, 0, data.name, null_prompts=3)
    return folder / "cache"


@pytest.fixture
def tiny_model(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter, device="cpu")


@pytest.fixture
def tiny_engine(tiny: Tiny) -> Engine:
    return open_engine(tiny.cache, device="cpu")
