"""The one thread that owns the model: what goes first, what is dropped, what a person hears."""

import logging
import subprocess
import sys
import threading
import time

import pytest

from explorer.concurrency import Steps, Task, Urgency, Worker, queue, worker
from explorer.errors import ExplorerError, PromptError

PATIENCE = 10.0
"""Seconds until a test gives up on a task; reached only when something is wrong."""


class Gate:
    """Work that holds the worker until it is opened, so that a test can queue more behind it."""

    def __init__(self, hired: Worker) -> None:
        self._open, entered = threading.Event(), threading.Event()

        def steps() -> Steps:
            entered.set()
            assert self._open.wait(PATIENCE)
            yield

        self.task = hired.submit("gate", Urgency.ASKED, steps())
        assert entered.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()
        finish(self.task)


@pytest.fixture
def hired() -> Worker:
    return Worker()


@pytest.fixture
def done() -> list[str]:
    """What was done, in order."""
    return []


def steps(done: list[str], name: str, count: int = 1) -> Steps:
    for step in range(count):
        done.append(f"{name}{step}" if count > 1 else name)
        yield


def finish(*tasks: Task) -> None:
    for task in tasks:
        assert task.wait(PATIENCE), f"{task.key} did not finish"


def test_work_is_done_step_by_step_to_its_end(hired: Worker, done: list[str]) -> None:
    task = hired.submit("a", Urgency.ASKED, steps(done, "a", 3))
    finish(task)
    assert done == ["a0", "a1", "a2"] and task.finished and task.error is None and not task.cancelled


def test_the_most_urgent_goes_first_whatever_came_first(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    tasks = [hired.submit(urgency, urgency, steps(done, urgency.name)) for urgency in reversed(Urgency)]
    gate.open()
    finish(*tasks)
    assert sorted(done[:2]) == ["ANSWERING", "ASKED"] and done[2:] == ["REFINING", "AHEAD", "BATCH"]


def test_equals_take_turns(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    tasks = [hired.submit(name, Urgency.REFINING, steps(done, name, 3)) for name in "abc"]
    gate.open()
    finish(*tasks)
    assert done == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_something_urgent_waits_no_longer_than_one_step(hired: Worker, done: list[str]) -> None:
    urgent: list[Task] = []

    def slow() -> Steps:
        done.append("slow 0")
        urgent.append(hired.submit("urgent", Urgency.ASKED, steps(done, "urgent")))
        yield
        done.append("slow 1")
        yield

    task = hired.submit("slow", Urgency.AHEAD, slow())
    finish(task)
    finish(*urgent)
    assert done == ["slow 0", "urgent", "slow 1"]


def test_newer_work_replaces_older_under_the_same_key(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    older = hired.submit("click", Urgency.ASKED, steps(done, "older"))
    newer = hired.submit("click", Urgency.ASKED, steps(done, "newer"))
    other = hired.submit("other", Urgency.ASKED, steps(done, "other"))
    gate.open()
    finish(older, newer, other)
    assert done == ["newer", "other"]
    assert older.cancelled and older.error is None and not newer.cancelled


def test_newer_work_replaces_older_that_is_running(hired: Worker, done: list[str]) -> None:
    newer: list[Task] = []

    def older_steps() -> Steps:
        try:
            done.append("older 0")
            newer.append(hired.submit("click", Urgency.ASKED, steps(done, "newer")))
            yield
            done.append("older 1")
            yield
        finally:
            done.append("older closed")

    older = hired.submit("click", Urgency.ASKED, older_steps())
    finish(older)
    finish(*newer)
    assert sorted(done) == ["newer", "older 0", "older closed"], "the replaced work went on, or was not closed"


def test_replaced_work_is_closed_before_anything_else_runs(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    older = hired.submit("a", Urgency.AHEAD, steps(done, "never"))
    urgent = hired.submit("b", Urgency.ASKED, steps(done, "urgent"))
    hired.cancel("a")
    gate.open()
    finish(urgent)
    assert older.finished and done == ["urgent"]


def test_work_under_another_key_is_not_cancelled(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    kept = hired.submit(("one", "answer"), Urgency.ASKED, steps(done, "kept"))
    hired.cancel(("two", "answer"))
    hired.cancel("nobody")
    gate.open()
    finish(kept)
    assert done == ["kept"]


def test_a_cancelled_task_stops_after_the_step_at_hand(hired: Worker, done: list[str]) -> None:
    def endless() -> Steps:
        while True:
            done.append("step")
            if len(done) == 3:
                hired.cancel("endless")
            yield

    task = hired.submit("endless", Urgency.ASKED, endless())
    finish(task)
    assert done == ["step"] * 3 and task.cancelled and task.error is None


def test_an_error_a_person_can_mend_reaches_the_task(hired: Worker, done: list[str]) -> None:
    def failing() -> Steps:
        yield
        raise PromptError("The prompt is empty; type a question first.")

    task = hired.submit("a", Urgency.ASKED, failing())
    finish(task)
    assert task.error == "The prompt is empty; type a question first."
    finish(hired.submit("b", Urgency.ASKED, steps(done, "next")))
    assert done == ["next"], "the worker did not survive an error"


def test_an_unexpected_error_gives_the_general_message_and_goes_to_the_log(
    hired: Worker, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> Steps:
        yield
        raise ZeroDivisionError("secret path /home/me")

    with caplog.at_level(logging.ERROR):
        task = hired.submit("a", Urgency.ASKED, failing())
        finish(task)
    assert task.error is not None and "terminal" in task.error and "secret" not in task.error
    assert "ZeroDivisionError" in caplog.text
    finish(hired.submit("b", Urgency.ASKED, steps(done, "next")))
    assert done == ["next"], "the worker did not survive an unexpected error"


def test_an_error_while_closing_cancelled_work_does_not_end_the_worker(hired: Worker, done: list[str]) -> None:
    def stubborn() -> Steps:
        try:
            hired.cancel("a")
            yield
        finally:
            raise PromptError("closing went wrong")

    finish(hired.submit("a", Urgency.ASKED, stubborn()))
    finish(hired.submit("b", Urgency.ASKED, steps(done, "next")))
    assert done == ["next"]


def test_one_session_cannot_fill_the_queue(hired: Worker, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_EACH", 2)
    gate = Gate(hired)
    tasks = [hired.submit(("me", name), Urgency.AHEAD, steps(done, name)) for name in "ab"]
    with pytest.raises(ExplorerError, match="You have 2 questions in the queue"):
        hired.submit(("me/A", "c"), Urgency.ASKED, steps(done, "c"))
    # Others aren't concerned, and what replaces an older click needs no place of its own.
    tasks.append(hired.submit(("you", "c"), Urgency.AHEAD, steps(done, "c")))
    tasks.append(hired.submit(("me", "b"), Urgency.AHEAD, steps(done, "b again")))
    gate.open()
    finish(*tasks)
    assert sorted(done) == ["a", "b again", "c"]


def test_too_many_people_are_refused_and_work_behind_what_is_shown_is_not(
    hired: Worker, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_PEOPLE", 3)
    gate = Gate(hired)
    tasks = [hired.submit((name, "answer"), Urgency.ANSWERING, steps(done, name)) for name in "ab"]
    with pytest.raises(ExplorerError, match="3 people wait for it already"):
        hired.submit(("c", "asked"), Urgency.ASKED, steps(done, "c"))
    tasks.append(hired.submit(("c", "refined"), Urgency.REFINING, steps(done, "c refined")))
    tasks.append(hired.submit(("a", "asked"), Urgency.ASKED, steps(done, "a asked")))
    gate.open()
    finish(*tasks)
    assert sorted(done) == ["a", "a asked", "b", "c refined"]


def test_short_work_is_done_in_the_order_it_was_asked(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    tasks = [hired.submit((name, "asked"), Urgency.ASKED, steps(done, name, 2)) for name in "abc"]
    gate.open()
    finish(*tasks)
    assert done == ["a0", "a1", "b0", "b1", "c0", "c1"]


def test_nobodys_second_question_goes_before_anothers_first(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    keys = [("hasty", "1"), ("hasty/A", "2"), ("hasty/B", "3"), ("calm", "4")]
    tasks = [hired.submit(key, Urgency.ASKED, steps(done, key[1])) for key in keys]
    gate.open()
    finish(*tasks)
    assert done == ["1", "4", "2", "3"]


def test_one_session_with_much_work_gets_no_more_turns_than_another(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    tasks = [hired.submit(("many", name), Urgency.REFINING, steps(done, name, 2)) for name in "abc"]
    tasks.append(hired.submit(("one", "z"), Urgency.REFINING, steps(done, "z", 2)))
    gate.open()
    finish(*tasks)
    assert done == ["a0", "z0", "b0", "z1", "c0", "a1", "b1", "c1"]


def test_short_work_and_answers_share_the_time(hired: Worker, done: list[str]) -> None:
    def slow(name: str, count: int, seconds: float) -> Steps:
        for step in range(count):
            time.sleep(seconds)
            done.append(f"{name}{step}")
            yield

    gate = Gate(hired)
    tasks = [
        hired.submit(("a", "answer"), Urgency.ANSWERING, slow("a", 30, 0.01)),
        hired.submit(("b", "asked"), Urgency.ASKED, slow("b", 2, 0.1)),
    ]
    gate.open()
    finish(*tasks)
    written = done.index("b1") - 1
    assert 5 <= written <= 20, "one of the lines starves the other"


# What is told to whoever waits


def test_whoever_waits_is_told_their_place(hired: Worker, done: list[str]) -> None:
    gate = Gate(hired)
    first, second = (hired.submit((name, "asked"), Urgency.ASKED, steps(done, name)) for name in "ab")
    again = hired.submit(("a", "contrasted"), Urgency.ASKED, steps(done, "a"))
    behind = hired.submit(("c", "refined"), Urgency.REFINING, steps(done, "c"))
    places = [hired.place(task) for task in (gate.task, first, second, again)]
    assert [place and place.before for place in places] == [0, 1, 2, 2], "of one's own nobody is told"
    assert hired.place(behind) is None, "nobody looks at an empty place"
    assert hired.people == 3
    gate.open()
    finish(first, second, again, behind)
    assert hired.place(first) is None and hired.people == 0


def test_how_long_it_takes_is_foretold_by_how_long_it_took(hired: Worker, done: list[str]) -> None:
    def slow() -> Steps:
        time.sleep(0.2)
        yield

    gate = Gate(hired)
    waiting = hired.submit(("a", "asked"), Urgency.ASKED, slow())
    place = hired.place(waiting)
    assert place is not None and place.seconds is None, "nothing is known before the first"
    gate.open()
    finish(waiting)
    gate = Gate(hired)
    tasks = [hired.submit((name, "asked"), Urgency.ASKED, slow()) for name in "abc"]
    found = [place for task in tasks if (place := hired.place(task)) is not None]
    taken = [place.seconds for place in found if place.seconds is not None]
    gate.open()
    finish(*tasks)
    assert len(taken) == 3 and taken == sorted(taken)
    assert 0.2 <= taken[0] and 0.6 <= taken[2] < 3


def test_answers_beyond_those_written_at_once_wait_their_turn(
    hired: Worker, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_AT_ONCE", 2)
    gate = Gate(hired)
    tasks = [hired.submit((name, "answer"), Urgency.ANSWERING, steps(done, name, 2)) for name in "abcd"]
    places = [place and place.before for place in map(hired.place, tasks)]
    gate.open()
    finish(*tasks)
    assert places == [0, 0, 1, 2]
    assert done == ["a0", "b0", "a1", "b1", "c0", "d0", "c1", "d1"]


def test_work_that_becomes_short_joins_the_line_where_it_was_asked(hired: Worker, done: list[str]) -> None:
    gate, tasks = Gate(hired), list[Task]()

    def growing() -> Steps:
        yield from steps(done, "word", 2)
        tasks[0].urgency = Urgency.ASKED
        yield from steps(done, "meaning", 2)

    tasks.append(hired.prepare(("a", "answer"), Urgency.ANSWERING, growing()))
    hired.start(tasks[0])
    gate.open()
    finish(*tasks)
    assert done == ["word0", "word1", "meaning0", "meaning1"]


def test_a_prepared_task_does_not_run_before_it_is_started(hired: Worker, done: list[str]) -> None:
    prepared = hired.prepare("a", Urgency.ASKED, steps(done, "a"))
    finish(hired.submit("b", Urgency.AHEAD, steps(done, "b")))
    assert done == ["b"] and not prepared.finished
    hired.start(prepared)
    finish(prepared)
    assert done == ["b", "a"]


def test_many_threads_may_submit_at_once(hired: Worker, done: list[str]) -> None:
    tasks: list[Task] = []

    def submit(name: str) -> None:
        for number in range(5):
            tasks.append(hired.submit((name, number), Urgency.ASKED, steps(done, name, 4)))

    threads = [threading.Thread(target=submit, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(*tasks)
    assert len(done) == 8 * 5 * 4


def test_all_work_runs_in_one_thread(hired: Worker) -> None:
    seen: set[int] = set()

    def note() -> Steps:
        seen.add(threading.get_ident())
        yield

    finish(*[hired.submit(number, Urgency.ASKED, note()) for number in range(5)])
    assert len(seen) == 1 and threading.get_ident() not in seen


COMPUTING = """
import torch
from explorer.concurrency.stepwise import stepwise
from explorer.concurrency import Urgency, Worker

torch.set_num_threads(2)
weights = torch.randn(1500, 1500, requires_grad=True)

def passes(pause):
    while True:
        torch.tanh(weights @ weights).sum().backward()
        pause()

Worker().submit("passes", Urgency.ASKED, stepwise(passes))
torch.tanh(weights @ weights).sum().backward()
print("leaving")
"""


def test_a_process_that_ends_while_torch_computes_ends_cleanly() -> None:
    for _ in range(3):
        left = subprocess.run([sys.executable, "-c", COMPUTING], capture_output=True, text=True, timeout=60)
        assert (left.returncode, left.stdout, left.stderr) == (0, "leaving\n", "")


def test_a_closed_worker_ends_what_waits(done: list[str]) -> None:
    closing, gate, ended = Worker(), threading.Event(), []

    def work() -> Steps:
        try:
            gate.set()
            while True:
                yield
        finally:
            ended.append("work")

    task = closing.submit("work", Urgency.ASKED, work())
    gate.wait(10)
    closing.close()
    assert task.finished and ended == ["work"]
