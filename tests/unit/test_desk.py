"""Where browsers hand in their questions: answers given and generated, stopped, and asked about."""

import numpy as np
import pytest

from explorer.app.desk import Asking, Desk, Explaining, Question
from explorer.engine import Engine
from explorer.generation import GenerationSettings
from explorer.records import Answer
from explorer.worker import Task
from tests.conftest import Turnstile
from tests.tiny import ROWS

LONG = GenerationSettings(max_tokens=40, temperature=1.0, seed=3)
"""An answer that doesn't end by itself within ten tokens."""


@pytest.fixture
def desk(tiny_engine: Engine) -> Desk:
    return Desk(tiny_engine)


def finish(*tasks: Task | None) -> None:
    for task in tasks:
        assert task is None or task.wait(60), f"{task.key} did not finish"


def finished(asking: Asking) -> Answer:
    finish(asking.task)
    assert asking.error is None and asking.answer is not None and asking.answer.finished
    return asking.answer


def explained(desk: Desk, question: Question) -> Explaining:
    explaining = desk.explain("me", question)
    finish(explaining.asked, explaining.refined, explaining.ahead)
    assert explaining.error is None
    return explaining


# Answers from elsewhere


def test_an_answer_from_elsewhere_is_attributed_as_if_the_model_had_said_it(desk: Desk) -> None:
    asking = desk.attribute("me", ROWS[1]["prompt"], ROWS[1]["response"])
    answer = finished(asking)
    assert (answer.prompt, answer.text) == (ROWS[1]["prompt"], ROWS[1]["response"])
    assert asking.settings is None, "nothing was drawn"
    assert desk.engine.known(answer, None), "the gradient of the whole response is begun with it"
    question = Question(answer, None, False, count=3)
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and ranking.exact and ranking.influences[0].row == 1


@pytest.mark.parametrize(
    ("prompt", "response", "said"),
    [
        ("Why?", "", "The response is empty"),
        ("Why?", " \n", "The response is empty"),
        ("", "So.", "The prompt is empty"),
        ("Why?", "y" * 500, "shorten it"),
    ],
)
def test_a_text_that_cannot_be_attributed_is_an_error_of_its_task(
    desk: Desk, prompt: str, response: str, said: str
) -> None:
    asking = desk.attribute("me", prompt, response)
    finish(asking.task)
    assert asking.error is not None and said in asking.error
    assert asking.answer is None
    finished(desk.attribute("me", "Why?", "So."))


def test_an_answer_from_elsewhere_replaces_the_one_on_its_way(desk: Desk) -> None:
    turnstile = Turnstile(desk.worker)
    older = desk.ask("me", "Why?", LONG)
    turnstile.let_through(2)
    newer = desk.attribute("me", "Why?", "So.")
    turnstile.open()
    assert finished(newer).text == "So."
    finish(older.task)
    assert older.task.cancelled and older.answer is not None and not older.answer.finished


# An answer that was read far enough


def test_a_stopped_answer_ends_with_the_token_at_hand(desk: Desk) -> None:
    *_, whole = desk.engine.answer("Why?", LONG)
    assert len(whole.tokens) > 10
    turnstile = Turnstile(desk.worker)
    asking = desk.ask("me", "Why?", LONG)
    turnstile.let_through(3)
    assert asking.answer is not None and len(asking.answer.tokens) == 3 and not asking.answer.finished
    asking.stop()
    turnstile.open()
    answer = finished(asking)
    assert len(answer.tokens) == 4 and answer.tokens == whole.tokens[:4]
    assert np.array_equal(answer.encoded.ids, whole.encoded.ids[: len(answer.encoded.ids)])


def test_a_stopped_answer_can_be_asked_about(desk: Desk) -> None:
    turnstile = Turnstile(desk.worker)
    asking = desk.ask("me", "Why?", LONG)
    turnstile.let_through(5)
    asking.stop()
    turnstile.open()
    answer = finished(asking)
    assert desk.engine.known(answer, None)
    for selection in (None, (1, 3)):
        question = Question(answer, selection, False, count=len(ROWS))
        explained(desk, question)
        ranking = desk.ranking(question)
        assert ranking is not None and ranking.exact and len(ranking.influences) == len(ROWS)
        for found in ranking.influences:
            assert found.values is not None and found.checksum is not None
            assert found.checksum * abs(found.score) < 1e-4 * float(np.abs(found.values).mean())


def test_an_answer_stopped_before_its_first_token_has_that_one(desk: Desk) -> None:
    turnstile = Turnstile(desk.worker)
    asking = desk.ask("me", "Why?", LONG)
    asking.stop()
    assert asking.answer is None
    turnstile.open()
    assert len(finished(asking).tokens) == 1


def test_stopping_a_complete_answer_changes_nothing(desk: Desk) -> None:
    asking = desk.ask("me", "Why?", LONG)
    answer = finished(asking)
    asking.stop()
    assert asking.answer is answer and len(answer.tokens) > 10


def test_stopping_one_answer_leaves_those_of_others_alone(desk: Desk) -> None:
    turnstile = Turnstile(desk.worker)
    mine, theirs = desk.ask("me", "Why?", LONG), desk.ask("them", "Why?", LONG)
    turnstile.let_through(2)
    mine.stop()
    turnstile.open()
    assert len(finished(mine).tokens) == 3 < 10 < len(finished(theirs).tokens)


# Positions


@pytest.mark.parametrize("selection", [None, (1, 4)])
def test_a_question_about_positions_finds_them_for_what_is_shown(desk: Desk, selection: tuple[int, int] | None) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    question = Question(answer, selection, False, count=3, positions=True)
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and ranking.exact and len(ranking.influences) == 3
    for found in ranking.influences:
        assert found.positions is not None and found.checksum is not None, "one was lost to the other"
        assert len(found.positions) == len(desk.engine.sequence(found.row))
        size = float(np.abs(found.positions).sum())
        assert found.positions.sum() == pytest.approx(found.score, abs=1e-4 * size)


def test_a_question_about_losses_finds_no_positions(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    question = Question(answer, None, False, count=3)
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and all(found.positions is None for found in ranking.influences)
