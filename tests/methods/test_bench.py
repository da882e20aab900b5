"""The methods of one engine: what they cost, their work in steps, and what is known of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.engine import Engine
from explorer.errors import MethodError
from explorer.methods.bench import Bench
from explorer.methods.description import choose
from explorer.methods.method import Cost, Stage
from explorer.records import Answer
from explorer.serving.session import open_engine
from tests.asking import by
from tests.conftest import Tiny


@pytest.fixture
def engine(tiny: Tiny, tmp_path: Path) -> Engine:
    """A cache for which nothing was fitted."""
    ignored = shutil.ignore_patterns("methods")
    return open_engine(shutil.copytree(tiny.cache, tiny.cache.parent / tmp_path.name, ignore=ignored), device="cpu")


@pytest.fixture
def answer(engine: Engine) -> Answer:
    return engine.given_answer("What shines?", "The moon and the sun.")


def test_what_a_method_costs_changes_once_it_is_fitted(engine: Engine, answer: Answer) -> None:
    bench = Bench(engine)
    assert bench.of(choose("bm25")).cost() is Cost.LITTLE and bench.of(choose("repsim")).cost() is Cost.ONCE
    stage = Stage()
    told = [(stage.name, stage.done, stage.total) for _ in bench.of(choose("repsim")).fit_steps(stage)]
    assert told == [("hidden states", row, 7) for row in range(1, 8)], "a pause after every example"
    assert bench.of(choose("repsim")).cost() is Cost.LITTLE
    assert Bench(engine).of(choose("repsim")).cost() is Cost.LITTLE, "it was kept"
    for _ in bench.of(choose("cg:2")).fit_steps(Stage()):
        pass
    assert bench.of(choose("cg:2")).cost() is Cost.EACH and bench.of(choose("lissa")).cost() is Cost.EACH, (
        "both need the same once"
    )


def test_a_folder_that_can_not_be_written_is_fitted_once_a_process(engine: Engine, answer: Answer) -> None:
    (engine.store.folder / "methods").write_bytes(b"a file in its place")
    bench = Bench(engine)
    for _ in bench.of(choose("repsim")).fit_steps(Stage()):
        pass
    assert bench.of(choose("repsim")).cost() is Cost.LITTLE and Bench(engine).of(choose("repsim")).cost() is Cost.ONCE


def test_what_is_found_in_steps_is_what_is_found_at_once(engine: Engine, answer: Answer) -> None:
    bench, stage = Bench(engine), Stage()
    assert bench.of(choose("trak:64")).scores(answer, None) is None
    for name in ("trak:64", "rapidin:1024"):
        for _ in bench.of(choose(name)).ask_steps(answer, (1, 3), stage):
            pass
        for _ in bench.of(choose(name)).refine_steps(answer, (1, 3), range(7), stage):
            pass
        found = bench.of(choose(name)).ranking(answer, (1, 3), 3, among=range(7))
        expected = by(engine, name).exact_ranking(answer, (1, 3), 3)
        assert found.method.name == name
        assert [each.row for each in found.influences] == [each.row for each in expected.influences]
        assert [each.exact for each in found.influences] == [each.exact for each in expected.influences]
        assert np.allclose(found.scores, expected.scores)
    assert bench.of(choose("rapidin:1024")).progress(answer, (1, 3), range(7)) == 7


def test_a_method_at_work_for_two_keeps_nobody_waiting(engine: Engine, answer: Answer) -> None:
    bench, mine, theirs = Bench(engine), Stage(), Stage()
    slow, quick = (
        bench.of(choose("repsim")).ask_steps(answer, None, mine),
        bench.of(choose("repsim")).ask_steps(answer, (1, 3), theirs),
    )
    next(slow)
    for _ in quick:
        pass
    assert (mine.done, theirs.done) == (1, 7), "each is told of its own work"
    for _ in slow:
        pass
    found = [bench.of(choose("repsim")).scores(answer, selection) for selection in (None, (1, 3))]
    assert found[0] is not None and found[1] is not None and not np.array_equal(found[0], found[1])


def test_work_that_is_left_leaves_the_method_to_others(engine: Engine, answer: Answer) -> None:
    bench = Bench(engine)
    left = bench.of(choose("repsim")).ask_steps(answer, None, Stage())
    next(left)
    left.close()
    for _ in bench.of(choose("repsim")).ask_steps(answer, None, Stage()):
        pass
    assert (
        bench.of(choose("repsim")).scores(answer, None) is not None and bench.of(choose("repsim")).cost() is Cost.LITTLE
    )


def test_what_can_not_be_asked_says_so_before_any_work(engine: Engine, answer: Answer) -> None:
    bench = Bench(engine)
    for name, said in (("voodoo", "no method voodoo"), ("trak:3", "powers of two"), ("cg:many", "iterations at most")):
        with pytest.raises(MethodError, match=said):
            bench.of(choose(name)).cost()


def test_a_desk_ranks_by_any_method_filters_folds_and_refines(twins: Path) -> None:
    desk = Desk(open_engine(twins, device="cpu"))
    answer = desk.engine.given_answer("What shines by day?", "It is the sun.")
    question = Question(answer, None, False, 3, method=choose("bm25"))
    explaining = desk.explain("me", question)
    assert explaining.refined.wait(60) and explaining.error is None and explaining.finished
    ranking = desk.ranking(question)
    assert ranking is not None and ranking.influences[0].row in {0, *range(7, 13)}
    assert len(desk.folds(question)[0].others) == 6, "near-duplicates share a card"
    assert desk.progress(question) == (len(desk.folds(question)),) * 2
    by_gradients = Question(answer, None, True, 3, method=choose("rapidin:1024"))
    explaining = desk.explain("me", by_gradients)
    assert explaining.refined.wait(60) and explaining.error is None
    found = desk.ranking(by_gradients)
    assert found is not None and found.exact and found.influences[0].values is not None
    scores = [each.score for each in found.influences]
    assert scores == sorted(scores)


def test_a_refused_question_is_an_error_of_its_work(tiny_engine: Engine) -> None:
    desk = Desk(tiny_engine)
    answer = desk.engine.given_answer("What is bright?", "It is the sun.")
    contrast = desk.engine.contrast(answer, (6, 7), "moon")
    explaining = desk.explain("me", Question(answer, contrast, False, 3, method=choose("bm25")))
    assert explaining.refined.wait(60)
    assert "ask without the other word" in (explaining.error or "")
