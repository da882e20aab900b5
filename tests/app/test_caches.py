"""Several caches to choose from: each with its own model, one worker for all."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.commands.main import main
from explorer.history.history import History
from explorer.methods.description import described
from explorer.model.language_model import LanguageModel
from explorer.serving import session
from tests.app.conftest import component, field_of
from tests.app.test_explore import answered, ask, text_field
from tests.conftest import Tiny

Start = Callable[..., AppTest]


def rows(at: AppTest) -> int:
    found = component(at, "example_cards")
    assert found is not None
    return int(found["histogram"]["of"])


def pick(at: AppTest, name: str) -> AppTest:
    return field_of(at.selectbox, "cache_picked").set_value(name).run()


@pytest.fixture
def second(twins: Path) -> str:
    """A cache of thirteen rows; the tiny one has seven."""
    return str(twins)


@pytest.fixture
def first(tiny: Tiny) -> str:
    """The tiny cache under a name of its own, beside the adapter that it names from where it lies."""
    return str(shutil.copytree(tiny.cache, tiny.cache.parent / "seven", dirs_exist_ok=True))


def test_one_cache_needs_no_choice(start: Start) -> None:
    assert not [box for box in start().selectbox if str(box.key).startswith("cache_picked ")]


def test_each_cache_is_opened_when_it_is_chosen_and_its_examples_are_shown(
    start: Start, first: str, second: str
) -> None:
    at = answered(ask(start(cache=first, more=(second,)), "What is bright?"))
    box = field_of(at.selectbox, "cache_picked")
    assert box.value == "seven" and any("13 rows" in option for option in box.options)
    assert rows(at) == 7
    worker = resources.desk().worker
    text_field(at).set_value("river")
    at = pick(answered(at.run()), "cache")
    assert not at.exception and component(at, "example_cards") is None, "what was asked of the other one is left"
    at = answered(ask(at, "What is bright?"))
    assert rows(at) == 13 and text_field(at).value == "", "a filter is about one cache"
    at = answered(ask(pick(at, "seven"), "What is bright?"))
    assert rows(at) == 7 and resources.desk().worker is worker, "one thread computes, whatever the models"


def test_models_are_loaded_by_the_one_thread_that_computes(
    start: Start, first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, threads = session.model_for, list[str]()

    def noted(*args: Any) -> LanguageModel:
        threads.append(threading.current_thread().name)
        return usual(*args)

    monkeypatch.setattr(session, "model_for", noted)
    pick(start(cache=first, more=(second,)), "cache")
    assert threads == ["model", "model"], "transformers changes defaults of all threads while it loads"


def test_a_link_names_its_cache_and_one_that_is_not_served_is_said(start: Start, first: str, second: str) -> None:
    at = start(cache=first, more=(second,))
    at.query_params[places.CACHE_NAME] = "cache"
    at = answered(ask(at.run(), "What is bright?"))
    assert rows(at) == 13 and field_of(at.selectbox, "cache_picked").value == "cache"
    at.query_params[places.CACHE_NAME] = "gone"
    at = at.run()
    assert not at.exception and any("isn't served here" in warning.value for warning in at.warning)


def test_the_history_says_which_cache_was_asked(start: Start, first: str, second: str, tmp_path: Path) -> None:
    at = answered(ask(start(cache=first, more=(second,)), "What is bright?"))
    answered(ask(pick(at, "cache"), "What is bright?"))
    found, _ = History(tmp_path / "history.sqlite", described).find()
    assert [one.cache for one in found] == ["cache", "seven"]


def test_a_cache_that_cannot_be_opened_leaves_the_others_usable(start: Start, first: str, tmp_path: Path) -> None:
    at = start(cache=str(tmp_path / "nothing"), more=(first,))
    assert not at.exception and any("precompute" in text.value for text in at.text)
    assert rows(answered(ask(pick(at, "seven"), "What is bright?"))) == 7


def test_several_caches_with_one_model_given_by_hand_are_refused(
    first: str, second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", first, second, "--model", "other"]) == 2
    assert "go with one cache alone" in capsys.readouterr().err
