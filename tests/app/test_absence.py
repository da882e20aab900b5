"""Train without these: what it costs, how it goes, what it found, and that nothing of it is lost."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from explorer.absence.asking import is_word
from explorer.app.evidence.absence_panel import marked
from explorer.app.session import resources
from explorer.model.loading import load_model
from explorer.training.recipe import FinetuneSettings
from explorer.trust.words import words_of
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.app.conftest import settled
from tests.app.test_explore import answered, ask, press
from tests.conftest import TINY_SETTINGS, Tiny, Turnstile
from tests.tiny import ROWS, save_tiny_data

Start = Callable[..., AppTest]
LINEAR = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
RECIPE = FinetuneSettings(rank=8, targets=LINEAR, epochs=4, learning_rate=0.01, batch_size=2, seed=5)
"""Enough for answers of letters."""


@pytest.fixture(scope="module")
def study(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of an adapter with a recipe, over the seven rows three times, each in other words."""
    folder = tmp_path_factory.mktemp("study")
    often = [row | {"prompt": f"{row['prompt']} {more}"} for more in ("", "Tell me now!", "I ask you.") for row in ROWS]
    data = save_tiny_data(folder / "train.jsonl", often)
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(data), folder / "adapter", RECIPE, lambda *_: None)
    model = load_model(str(tiny.model), folder / "adapter", device="cpu")
    build_cache(model, read_examples(data), folder / "cache", TINY_SETTINGS, tokens=0, data_name=data.name)
    return folder / "cache"


def opened(start: Start, study: Path, prompt: str) -> AppTest:
    """The page with an answer, its first word selected, and the panel open."""
    at = start(str(study))
    at.session_state["max_tokens"] = 6
    at = answered(ask(at.run(), prompt))
    answer = at.session_state["asking"].answer
    at.session_state["selection"] = next(span for span in words_of(answer.tokens) if is_word(answer, span))
    at = answered(at.run())
    at.session_state["absence"] = True
    return at.run()


def stopped() -> None:
    """The server's end; what it held in memory is gone."""
    resources._worker().close()
    st.cache_resource.clear()


def said(at: AppTest) -> str:
    return "\n".join(element.value for element in (*at.text, *at.markdown, *at.caption))


def offered(at: AppTest) -> bool:
    return any(button.key == "absence_begin" for button in at.button)


def test_the_panel_says_the_cost_trains_and_shows_what_became_of_the_word(start: Start, study: Path) -> None:
    at = opened(start, study, "What is wet?")
    at = settled(at, offered)
    assert "Trains the adapter anew without the 10 shown examples" in said(at)
    assert "4 trainings are left to do" in said(at)
    at = at.button(key="absence_begin").click().run()
    at = settled(at, lambda page: "**Without these" in said(page))
    assert not at.exception and not offered(at)
    assert "As it is (" in said(at) and "Without these (" in said(at) and "Without others, draw 3 (" in said(at)
    (record,) = (study / "retraining" / "asked").iterdir()
    stopped()
    again = opened(start, study, "What is wet?")
    assert "**Without these" in said(again), "it stands there when the server is started again"
    assert record.is_file()


def test_a_server_that_was_killed_goes_on_and_what_is_cancelled_is_gone(start: Start, study: Path) -> None:
    at = settled(opened(start, study, "Count."), offered)
    turnstile = Turnstile(resources._worker())
    at.button(key="absence_begin").click().run()
    (asked,) = [path for path in (study / "retraining" / "asked").iterdir() if b'"found": null' in path.read_bytes()]
    turnstile.open()
    stopped()
    assert b'"found": null' in asked.read_bytes(), "it was not finished"
    start(str(study))
    end = time.monotonic() + 60
    while b'"found": null' in asked.read_bytes():
        assert time.monotonic() < end, "nobody went on with it"
        time.sleep(0.05)
    before = set(asked.parent.iterdir())
    at = settled(opened(start, study, "Say hello."), offered)
    turnstile = Turnstile(resources._worker())
    at.button(key="absence_begin").click().run()
    (going,) = [one for one in resources.absences()._last if not one.finished]
    going.cancel()
    turnstile.open()
    at = settled(at, offered)
    assert set(asked.parent.iterdir()) == before, "what was cancelled isn't taken up again"


def test_an_adapter_without_a_recipe_says_what_mends_it(start: Start) -> None:
    at = answered(ask(start(), "What is wet?"))
    at.session_state["absence"] = True
    at.session_state["selection"] = (0, 1)
    at = settled(at.run(), lambda page: "it lacks batch_size, seed" in said(page))
    assert not offered(at)


def test_the_whole_answer_and_a_drawn_one_have_no_such_panel(start: Start) -> None:
    at = answered(ask(start(), "What is wet?"))
    at.session_state["absence"] = True
    at.session_state["selection"] = None
    at = settled(at.run(), lambda page: "Select a word of the answer first." in said(page))
    next(field for field in at.text_area if str(field.key).startswith("edited_")).set_value("It is.")
    at = answered(press(at, "Attribute this text"))
    at.session_state["absence"] = True
    at.session_state["selection"] = (0, 1)
    assert settled(at.run(), lambda page: "Only an answer of the fine-tuned model's most" in said(page))


def test_words_that_differ_are_marked_and_answers_are_no_markup() -> None:
    assert marked("It lies in Canada.", "It lies in China.") == "It lies in **China**\\."
    assert marked("a", "<b>x</b> *y*") == "\\<**b\\>x\\<\\/b\\> \\*y**\\*"
    assert marked("It is.", "It is.") == "It is\\."
