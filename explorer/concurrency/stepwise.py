"""Work that calls back while it goes on, as work that is done a step at a time.

The work runs in a thread of its own, which is never awake at the same time as
whoever takes the steps: between two steps other work may use what this one
uses, as if one thread did both. It knows nothing of what is computed.
"""

import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Pause = Callable[[], None]


class _Ended(BaseException):
    """Raised in the work where nobody wants it any more; nothing that catches exceptions catches it."""


class _Work(threading.Thread, Generic[Result]):
    """One piece of work and its thread."""

    def __init__(self, work: Callable[[Pause], Result]):
        super().__init__(name="stepwise", daemon=True)
        self._work, self._goes, self._waits = work, threading.Semaphore(0), threading.Semaphore(0)
        self.done, self._wanted = False, True
        self.results: list[Result] = []
        self.problem: BaseException | None = None
        self.start()

    def run(self) -> None:
        self._goes.acquire()
        try:
            if self._wanted:
                self.results.append(self._work(self._pause))
        except BaseException as problem:
            self.problem = problem
        self.done = True
        self._waits.release()

    def step(self) -> None:
        """Let it go on to its next pause, or its end."""
        self._goes.release()
        self._waits.acquire()

    def end(self) -> None:
        """Leave it where it is: its next pause raises."""
        self._wanted = False
        while not self.done:
            self.step()

    def _pause(self) -> None:
        self._waits.release()
        self._goes.acquire()
        if not self._wanted:
            raise _Ended


def stepwise(work: Callable[[Pause], Result]) -> Generator[None, None, Result]:
    """Yield whenever the work calls the function that it is given; return what it returns, or raise what it raises.

    A generator that is closed ends the work at its next pause.
    """
    own = _Work(work)
    try:
        own.step()
        while not own.done:
            yield
            own.step()
    finally:
        own.end()
    if own.problem is not None:
        raise own.problem
    return own.results[0]


class cached(Generic[Result]):
    """As `functools.cached_property`, without the lock that all instances share before Python 3.12.

    Work that pauses in one would hold the lock, and whoever needs the same of another instance would wait for ever.
    """

    def __init__(self, make: Callable[[Any], Result]):
        self._make, self._name = make, make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Result:
        if instance is None:
            return self  # type: ignore[return-value]
        found = self._make(instance)
        instance.__dict__[self._name] = found
        return found
