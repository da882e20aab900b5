"""One thread that owns the model, and the work that waits for it.

Work comes as generators that yield after every bounded step (one generated
token, one backward pass, one example made exact). Between steps the thread
turns to whatever is most urgent, and among equals to whoever has waited
longest, so that no browser blocks another longer than one step. Newer work
under the same key replaces older work: an outdated click is dropped.
It knows nothing of models.
"""

import atexit
import logging
import threading
from collections.abc import Generator, Hashable
from enum import IntEnum

from explorer.errors import ExplorerError

_LIMIT = 64
"""Pieces of work that may wait at once."""
_PATIENCE = 20.0
"""Seconds that a process which ends waits for the step at hand."""

Steps = Generator[None, None, None]


class Urgency(IntEnum):
    """What goes first."""

    ASKED = 0
    """A person is looking at an empty place."""
    REFINING = 1
    """A better value for something already shown."""
    AHEAD = 2
    """Something the person may ask for next."""
    BATCH = 3
    """Long work that nobody watches step by step."""


class Task:
    """A piece of work, to be watched from any thread."""

    def __init__(self, key: Hashable, urgency: Urgency, steps: Steps):
        """Made by `Worker.submit`."""
        self.key, self.urgency, self._steps = key, urgency, steps
        self.error: str | None = None
        """What went wrong, for the person who asked."""
        self.cancelled = False
        self._finished = threading.Event()

    @property
    def finished(self) -> bool:
        """True when nothing more will come, for whatever reason."""
        return self._finished.is_set()

    def cancel(self) -> None:
        """Stop after the step at hand."""
        self.cancelled = True

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether it is finished."""
        return self._finished.wait(seconds)

    def advance(self) -> bool:
        """Run one step; whether more are left. Only the worker calls this."""
        try:
            if not self.cancelled:
                next(self._steps)
                return True
            self._steps.close()
        except StopIteration:
            pass
        except ExplorerError as problem:
            self.error = str(problem)
        except Exception:
            logging.getLogger(__name__).exception("work failed")
            self.error = "Something went wrong inside the explorer; the terminal it was started from says more."
        self._finished.set()
        return False


class Worker:
    """Runs tasks one step at a time in a thread of its own."""

    def __init__(self) -> None:
        """Start the thread; it ends with the process, after the step at hand.

        A thread that torch computes in must not be cut off: the process would abort.
        """
        self._waiting: list[Task] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def submit(self, key: Hashable, urgency: Urgency, steps: Steps) -> Task:
        """Queue work, in the place of older work under the same key.

        Raises ExplorerError when too much is waiting already.
        """
        task = self.prepare(key, urgency, steps)
        self.start(task)
        return task

    def prepare(self, key: Hashable, urgency: Urgency, steps: Steps) -> Task:
        """A task that doesn't run before `start`, for steps that need to know their task."""
        return Task(key, urgency, steps)

    def start(self, task: Task) -> None:
        """Queue a prepared task; see `submit`."""
        with self._changed:
            if sum(not (waiting.cancelled or waiting.key == task.key) for waiting in self._waiting) >= _LIMIT:
                raise ExplorerError("The explorer is busy with many questions; try again in a moment.")
            self._cancel(task.key)
            self._waiting.append(task)
            self._changed.notify()

    def cancel(self, key: Hashable) -> None:
        """Drop the work under a key, if there is any."""
        with self._changed:
            self._cancel(key)

    @property
    def people(self) -> int:
        """How many wait for something now."""
        with self._changed:
            return len({str(task.key) for task in self._waiting if task.urgency is Urgency.ASKED})

    def close(self) -> None:
        """End all work after the step at hand, and wait for that."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def _cancel(self, key: Hashable) -> None:
        for waiting in self._waiting:
            if waiting.key == key:
                waiting.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    break
                task = min(self._waiting, key=lambda waiting: (not waiting.cancelled, waiting.urgency))
            more = task.advance()
            with self._changed:
                # Moved to the end: of equally urgent work, the next is what has waited longest.
                self._waiting.remove(task)
                if more:
                    self._waiting.append(task)
        for task in self._waiting:
            task.cancel()
            task.advance()
