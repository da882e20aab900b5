"""Work that calls back, done a step at a time."""

import threading
from collections.abc import Callable

import pytest

from explorer.concurrency.stepwise import Pause, cached, stepwise


def counting(seen: list[str], count: int = 3) -> Callable[[Pause], str]:
    def work(pause: Pause) -> str:
        try:
            for number in range(count):
                seen.append(f"step {number}")
                pause()
            return "found"
        finally:
            seen.append("left")

    return work


def test_it_goes_on_only_when_the_next_step_is_taken_and_returns_what_it_found() -> None:
    seen: list[str] = []
    steps = stepwise(counting(seen))
    assert seen == [], "nothing begins before the first step"
    for number in range(3):
        next(steps)
        assert seen == [f"step {each}" for each in range(number + 1)]
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == "found" and seen[-1] == "left"


def test_closing_it_ends_the_work_at_its_pause_and_leaves_no_thread() -> None:
    seen: list[str] = []
    before = threading.active_count()
    steps = stepwise(counting(seen))
    next(steps)
    steps.close()
    assert seen == ["step 0", "left"]
    end = threading.Event()
    while threading.active_count() > before:
        assert not end.wait(0.01)


def test_work_that_never_began_never_does() -> None:
    seen: list[str] = []
    stepwise(counting(seen)).close()
    assert seen == []


def test_what_it_raises_is_raised_by_the_step() -> None:
    def work(pause: Pause) -> None:
        pause()
        raise ValueError("no")

    steps = stepwise(work)
    next(steps)
    with pytest.raises(ValueError, match="no"):
        next(steps)


def test_work_that_catches_everything_still_ends() -> None:
    def work(pause: Pause) -> None:
        for _ in range(3):
            try:
                pause()
            except Exception:
                raise AssertionError("the end isn't an ordinary exception") from None

    steps = stepwise(work)
    next(steps)
    steps.close()


class Pausing:
    def __init__(self, pause: Pause) -> None:
        self.pause, self.made = pause, 0

    @cached
    def value(self) -> int:
        """Takes two steps."""
        self.made += 1
        self.pause()
        return self.made


def test_what_pauses_while_it_is_remembered_holds_up_no_other_instance() -> None:
    first = stepwise(lambda pause: Pausing(pause).value)
    next(first)
    other = Pausing(lambda: None)
    assert other.value == other.value == other.made == 1, "made once; with a lock this would never end"
    with pytest.raises(StopIteration):
        next(first)
    assert Pausing.value.__doc__ == "Takes two steps."
