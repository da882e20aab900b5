"""One thread that owns the model, and the work that waits for it.

Work comes as generators that yield after every bounded step (one generated
token, one backward pass, one example made exact). Between steps the thread
turns to what `queue` puts first, so that no browser blocks another longer than
one step. Newer work under the same key replaces older work: an outdated click
is dropped. It knows nothing of models.
"""

import atexit
import threading
import time
from collections.abc import Hashable

from explorer.concurrency.queue import Line, Place
from explorer.concurrency.task import Steps, Task, Urgency
from explorer.errors import ExplorerError

_PEOPLE = 64
"""So many may wait for something at once; each of them waits no longer than a few minutes."""
_EACH = 32
"""Pieces of work that one of them may have in the queue: each place on a page has one of a kind."""
_PATIENCE = 20.0
"""Seconds that a process which ends waits for the step at hand."""


class Worker:
    """Runs tasks one step at a time in a thread of its own."""

    def __init__(self) -> None:
        """Start the thread; it ends with the process, after the step at hand.

        A thread that torch computes in must not be cut off: the process would abort.
        """
        self._line = Line()
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
            self._refuse(task)
            self._cancel(task.key)
            self._line.add(task)
            self._changed.notify()

    def cancel(self, key: Hashable) -> None:
        """Drop the work under a key, if there is any."""
        with self._changed:
            self._cancel(key)

    def place(self, task: Task) -> Place | None:
        """Where a task that a person waits for stands; None once it is finished. May be called from any thread."""
        with self._changed:
            return self._line.place(task)

    @property
    def people(self) -> int:
        """How many wait for something now."""
        with self._changed:
            return len(self._line.people())

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        with self._changed:
            return not self._line.waiting

    def close(self) -> None:
        """End all work after the step at hand, and wait for that."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def _refuse(self, task: Task) -> None:
        """Refuse what is too much of one session, or of all together."""
        others = [one for one in self._line.waiting if not (one.cancelled or one.key == task.key)]
        if sum(one.owner == task.owner for one in others) >= _EACH:
            raise ExplorerError(
                f"You have {_EACH} questions in the queue, as many as one browser may; wait for one, or stop it."
            )
        people = {one.owner for one in others if one.urgency.waited_for}
        if task.urgency.waited_for and len(people - {task.owner}) >= _PEOPLE:
            raise ExplorerError(
                f"The explorer is busy: {_PEOPLE} people wait for it already, as many as it takes at once. "
                "Try again in a minute."
            )

    def _cancel(self, key: Hashable) -> None:
        for waiting in self._line.waiting:
            if waiting.key == key:
                waiting.cancel()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line.waiting or self._closed)
                if self._closed:
                    break
                task = self._line.next()
            begun = time.monotonic()
            more = task.advance()
            with self._changed:
                self._line.stepped(task, time.monotonic() - begun, more)
        for task in self._line.waiting:
            task.cancel()
            task.advance()
