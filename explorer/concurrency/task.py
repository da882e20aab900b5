"""A piece of work that is done one bounded step at a time, and how urgent it is."""

import logging
import threading
from collections.abc import Generator, Hashable
from enum import IntEnum

from explorer.errors import ExplorerError

Steps = Generator[None, None, None]


class Urgency(IntEnum):
    """What goes first; the first two share the time."""

    ASKED = 0
    """A person is looking at an empty place, and it takes a few steps to fill it."""
    ANSWERING = 1
    """A person reads along while it is being written."""
    REFINING = 2
    """A better value for something already shown."""
    AHEAD = 3
    """Something the person may ask for next."""
    BATCH = 4
    """Long work that nobody watches step by step."""

    @property
    def waited_for(self) -> bool:
        """Whether somebody sits and waits for it."""
        return self <= Urgency.ANSWERING


class Task:
    """A piece of work, to be watched from any thread."""

    def __init__(self, key: Hashable, urgency: Urgency, steps: Steps):
        """Made by `Worker.submit`."""
        self.key, self.urgency, self._steps = key, urgency, steps
        self.owner = owner_of(key)
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


def owner_of(key: Hashable) -> Hashable:
    """Who asked: the key's first part, up to a slash, behind which stands where on their pages they did."""
    first = key[0] if isinstance(key, tuple) and key else key
    return first.partition("/")[0] if isinstance(first, str) else first
