"""What a page tells whoever waits for others, and how they take their question back."""

import threading
from collections.abc import Callable, Iterator

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.session import resources
from explorer.app.widgets.polling import queued
from explorer.concurrency import Place, Steps, Urgency
from tests.app.conftest import component
from tests.app.test_explore import answered, ask, press

Start = Callable[..., AppTest]


@pytest.fixture
def crowd() -> Iterator[Callable[[], threading.Event]]:
    """Two others whose short work holds the worker until the event is set."""
    gate = threading.Event()

    def gathered() -> threading.Event:
        entered = threading.Event()

        def steps() -> Steps:
            entered.set()
            assert gate.wait(60)
            yield

        for name in ("one", "other"):
            resources.desk().worker.submit((name, "asked"), Urgency.ASKED, steps())
        assert entered.wait(60)
        return gate

    yield gathered
    gate.set()


def verdict(at: AppTest) -> str:
    return str((component(at, "verdict_box") or {}).get("sentence"))


def test_a_click_behind_others_says_how_many_and_can_be_taken_back(
    start: Start, crowd: Callable[[], threading.Event]
) -> None:
    at = answered(ask(start(), "What is bright?"))
    gate = crowd()
    at.session_state["selection"] = (1, 4)
    at.run()
    assert "2 people are before you in the queue" in verdict(at)
    at = press(at, "Cancel")
    assert component(at, "example_cards") is None
    assert any("Cancelled" in text.value for text in at.text)
    # A word whose gradient is known waits for nobody.
    at.session_state["selection"] = (1, 2)
    at.run()
    cards = component(at, "example_cards")
    assert cards is not None and len(cards["cards"]) == 7
    at.session_state["selection"] = (1, 4)
    at.run()
    assert component(at, "example_cards") is None, "what was taken back isn't begun by looking at it"
    at = press(at, "Look for them")
    gate.set()
    assert len(component(answered(at), "example_cards")["cards"]) == 7  # type: ignore[index]


def test_a_question_without_an_answer_can_be_taken_back(start: Start, crowd: Callable[[], threading.Event]) -> None:
    at = start()
    gate = crowd()
    at = ask(at, "What is bright?")
    task = at.session_state["asking"].task
    at = press(at, "Cancel")
    assert any("Ask the model something" in text.value for text in at.text)
    gate.set()
    assert task.wait(60) and task.cancelled
    assert len(component(answered(ask(at, "What is wet?")), "example_cards")["cards"]) == 7  # type: ignore[index]


def test_the_place_in_the_queue_is_said_in_words() -> None:
    assert queued(None) == queued(Place(0, 5.0)) == ""
    assert queued(Place(1, None)) == "1 person is before you in the queue."
    assert queued(Place(3, 12.4)) == "3 people are before you in the queue; about 12 seconds left."
