"""Where browsers hand in their questions: answers given and generated, stopped, and asked about."""

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from explorer import gradients
from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Asking, Explaining, Finding, Found, Question
from explorer.concurrency import Steps, Task
from explorer.corpus.duplicates import Fold
from explorer.corpus.filters import Filter
from explorer.engine import Engine
from explorer.methods.description import choose
from explorer.model import alternatives
from explorer.model.generation import GenerationSettings
from explorer.model.language_model import LanguageModel
from explorer.records import Answer, Contrast, Encoded, Prediction, Selection
from explorer.serving.session import open_engine
from explorer.trust.words import most_raised
from explorer.views import HARDLY_MOVED
from tests.asking import OWN
from tests.conftest import Turnstile
from tests.tiny import ROWS

LONG = GenerationSettings(max_tokens=40, temperature=1.0, seed=3)
"""An answer that doesn't end by itself within ten tokens."""


@pytest.fixture
def desk(tiny_engine: Engine) -> Iterator[Desk]:
    made = Desk(tiny_engine)
    yield made
    made.worker.close()


def finish(*tasks: Task | None) -> None:
    for task in tasks:
        assert task is None or task.wait(60), f"{task.key} did not finish"


def found(finding: Finding[Found]) -> Found:
    finish(finding.task)
    assert finding.task.error is None and finding.found is not None
    return finding.found


def finished(asking: Asking) -> Answer:
    finish(asking.task)
    assert asking.error is None and asking.answer is not None and asking.answer.finished
    return asking.answer


def explained(desk: Desk, *questions: Question) -> Explaining:
    explaining = desk.explain("me", *questions)
    finish(explaining.asked, explaining.refined, explaining.checked)
    assert explaining.error is None
    return explaining


# The word that fine-tuning raised most


def test_the_word_that_fine_tuning_raised_most_is_known_and_asked_about_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Selection] = []
    usual = desk.engine.ask

    def watched(answer: Answer, selection: Selection) -> None:
        begun.append(selection)
        usual(answer, selection)

    monkeypatch.setattr(desk.engine, "ask", watched)
    asking = desk.attribute("me", "What is bright?", "It is the sun.")
    answer = finished(asking)
    change = desk.engine.predict(answer).change
    assert change is not None and asking.settled
    assert asking.raised == most_raised(answer.tokens, change, HARDLY_MOVED) is not None
    assert begun == [asking.raised, None]
    # What was kept with a selection is looked at with that.
    begun.clear()
    kept = desk.reopen("me", answer, None, (1, 3))
    finished(kept)
    assert kept.settled and kept.raised is None and begun == [(1, 3), None]


def test_without_a_base_or_a_raised_word_the_whole_response_is_asked_about(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = alternatives.predict

    def without(model: LanguageModel, encoded: Encoded) -> Prediction:
        return replace(usual(model, encoded), base=None)

    def nowhere(model: LanguageModel, encoded: Encoded) -> Prediction:
        found = usual(model, encoded)
        return replace(found, base=found.said + 1)

    for predicted, text in ((without, "It has no base."), (nowhere, "It was likelier before.")):
        monkeypatch.setattr(alternatives, "predict", predicted)
        asking = desk.attribute("me", "What is bright?", text)
        answer = finished(asking)
        assert asking.settled and asking.raised is None and desk.engine.known(answer, None)
    quiet = desk.attribute("me", "What is bright?", "It is the moon.", choose=False)
    assert quiet.settled, "nobody waits for what wasn't asked for"
    finished(quiet)


# Answers from elsewhere


def test_an_answer_from_elsewhere_is_attributed_as_if_the_model_had_said_it(desk: Desk) -> None:
    asking = desk.attribute("me", ROWS[1]["prompt"], ROWS[1]["response"])
    answer = finished(asking)
    assert (answer.prompt, answer.text) == (ROWS[1]["prompt"], ROWS[1]["response"])
    assert asking.settings is None, "nothing was drawn"
    assert desk.engine.known(answer, None), "the gradient of the whole response is begun with it"
    question = Question(answer, None, False, count=3, method=OWN)
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
        question = Question(answer, selection, False, count=len(ROWS), method=OWN)
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
    question = Question(answer, selection, False, count=3, positions=True, method=OWN)
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
    question = Question(answer, None, False, count=3, method=OWN)
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and all(found.positions is None for found in ranking.influences)


# Both sides, filters, near-duplicates


def test_tokens_are_foreseen_while_what_is_shown_becomes_exact_and_once_an_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    usual = desk.own.ask_ahead

    def watched(answer: Answer) -> Steps:
        begun.append(answer.id)
        yield from usual(answer)

    monkeypatch.setattr(desk.own, "ask_ahead", watched)
    answer = finished(desk.ask("me", "Count.", LONG))
    finish(desk.explain("me", Question(answer, None, False, 3, method=OWN)).refined)
    assert desk.engine.known(answer, (0, 1)), "the first of them doesn't wait for all that is shown"
    explained(desk, Question(answer, (0, 1), False, 3, method=OWN))
    end = time.monotonic() + 60
    while not all(desk.engine.known(answer, (j, j + 1)) for j in range(len(answer.tokens))):
        assert time.monotonic() < end, "not every token was foreseen"
        time.sleep(0.02)
    assert begun == [answer.id]


def test_what_a_method_needs_once_does_not_wait_for_what_nobody_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(answer: Answer) -> Steps:
        while True:
            yield

    monkeypatch.setattr(desk.own, "ask_ahead", endless)
    finished(desk.ask("me", "Count.", LONG))
    fitted = desk.fit("me", choose("rapidin:1024")).task
    end = time.monotonic() + 60
    while not fitted.wait(0.1):
        desk.attend("me")
        assert time.monotonic() < end, "it waits for gradients that nobody asked for"


def test_both_sides_are_one_work_that_does_nothing_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    one_pass, passed = gradients.directional_steps, list[Encoded]()

    def counted(
        model: LanguageModel, encoded: Encoded, direction: gradients.Gradient
    ) -> Generator[None, None, NDArray[np.float32]]:
        passed.append(encoded)
        return one_pass(model, encoded, direction)

    monkeypatch.setattr(gradients, "directional_steps", counted)
    towards = Question(answer, (1, 3), False, count=2, method=OWN)
    away = replace(towards, opponents=True)
    explained(desk, towards, away)
    assert len(passed) == len(ROWS), "one pass an example, whichever side it is on"
    above, below = desk.ranking(towards), desk.ranking(away)
    assert above is not None and below is not None and above.exact and below.exact
    everything = desk.ranking(replace(towards, count=len(ROWS)))
    assert everything is not None
    order = [found.row for found in everything.influences]
    assert [found.row for found in above.influences] == order[:2]
    assert [found.row for found in below.influences] == order[::-1][:2]
    assert all(found.checksum is not None for found in (*above.influences, *below.influences))


def test_only_rows_that_pass_the_filter_are_candidates(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    question = Question(
        answer, None, False, count=5, wanted=Filter((("source", ("sky", "water")),), "river"), method=OWN
    )
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and sorted(found.row for found in ranking.influences) == [2, 5]
    assert desk.progress(question) == (2, 2)
    nothing = replace(question, wanted=Filter(text="nowhere to be found"))
    explained(desk, nothing)
    empty = desk.ranking(nothing)
    assert empty is not None and empty.influences == () and desk.progress(nothing) == (0, 0)


def test_near_duplicates_stand_behind_one_and_the_list_is_refilled(
    twins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.methods.attributor.SPARE", 0)
    desk = Desk(open_engine(twins, device="cpu"))
    answer = finished(desk.attribute("me", ROWS[0]["prompt"], ROWS[0]["response"]))
    desk.own.ask(answer, None)
    family = {0, *range(7, 13)}
    assert set(desk.own.candidates(answer, None, 3)) <= family, "the best three are one text"
    question = Question(answer, None, False, count=3, method=OWN)
    explained(desk, question)
    folds = desk.folds(question)
    assert len(folds) == 3 and {folds[0].row, *folds[0].others} == family
    assert folds[1:] == [Fold(fold.row) for fold in folds[1:]]
    ranking = desk.ranking(question)
    assert ranking is not None and ranking.exact
    assert sorted(found.row for found in ranking.influences) == sorted(fold.row for fold in folds)


def test_where_fewer_differ_than_are_asked_for_all_that_differ_come(twins: Path) -> None:
    desk = Desk(open_engine(twins, device="cpu"))
    answer = finished(desk.attribute("me", ROWS[0]["prompt"], ROWS[0]["response"]))
    question = Question(answer, None, True, count=10, method=OWN)
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and len(ranking.influences) == len(ROWS)


def test_the_words_of_the_training_data_are_known_without_asking(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    explained(desk, Question(answer, None, False, count=3, method=OWN))
    assert desk.corpus.ready


def test_work_behind_a_closed_tab_ends_and_is_taken_up_where_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    question = Question(answer, None, False, count=3, method=OWN)
    with monkeypatch.context() as closed:
        closed.setattr("explorer.app.desk.desk.ABSENT", -1.0)
        left = desk.explain("me", question)
        finish(left.refined, left.checked)
        assert left.abandoned and left.error is None
    done, of = desk.progress(question)
    assert done < of
    again = explained(desk, question)
    assert not again.abandoned and desk.progress(question) == (of, of)


# Why this and not that, colours, the matrix


def test_a_contrast_is_asked_ranked_refined_and_checked_like_any_question(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    contrast = found(desk.contrast("me", answer, (6, 7), "moon"))
    assert isinstance(contrast, Contrast) and contrast.span == (6, 7)
    question = Question(answer, contrast, False, count=3, method=OWN)
    explained(desk, question)
    ranking = desk.ranking(question)
    assert ranking is not None and ranking.exact and ranking.selection == contrast
    assert all(each.checksum is not None for each in ranking.influences)


def test_a_word_that_was_said_is_an_error_of_its_task(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    finding = desk.contrast("me", answer, (6, 7), "sun")
    finish(finding.task)
    assert finding.found is None and "what the answer says" in (finding.task.error or "")


def test_the_matrix_comes_step_by_step_and_gives_way_to_another(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is."))
    turnstile = Turnstile(desk.worker)
    older = desk.tabulate("me", answer, None, 0, positions=False)
    theirs = desk.tabulate("them", answer, None, 1, positions=True)
    assert older.seconds_left(4) is None
    newer = desk.tabulate("me", answer, (0, 2), 0, positions=False)
    turnstile.open()
    assert found(newer).values.shape == (2, 9) and newer.done == 3, "two passes, then the score"
    assert newer.seconds_left(5) is not None
    assert found(theirs).positions
    finish(older.task)
    assert older.task.cancelled and older.found is None


def test_what_one_example_did_is_found_with_its_score(desk: Desk) -> None:
    answer = finished(desk.attribute("me", "What is bright?", "It is the sun."))
    values = found(desk.output_values("me", answer, 1))
    assert values.values.mean() == pytest.approx(values.score, rel=1e-3) and values.checksum < 1e-3
    assert found(desk.predict("me", answer)).base is not None
