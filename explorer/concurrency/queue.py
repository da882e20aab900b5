"""Who is next: the order of the work that waits for one worker, and what it tells whoever waits.

What a person waits for comes before all else, in two lines that share the time where both have work. What takes a few
steps (`ASKED`) is served in the order it was asked, so that the first need not wait for the last; nobody's second
piece goes before another's first. What is being written (`ANSWERING`) is served in turns. Of the rest, the most
urgent goes first, and of equals whoever was served longest ago. It knows nothing of threads.
"""

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import count

from explorer.concurrency.task import Task, Urgency

_TURN = 3.0
"""Seconds after which work in the line of short work goes to its end."""
_AT_ONCE = 24
"""Answers that are written at once; each keeps its keys and values in memory meanwhile."""
_LATELY = 8
"""Pieces of work that an average is about taken over."""


@dataclass(frozen=True)
class Place:
    """Where a task stands that a person waits for."""

    before: int
    """How many other people's work comes before it."""
    seconds: float | None
    """How long it will take until it is done, if work takes as long as lately; None where that isn't known."""


@dataclass
class _Entry:
    """A task in the queue."""

    number: int
    """Counts tasks as they came."""
    spent: float = 0.0
    """Seconds that were worked on it, since its urgency last changed."""
    turn: float = 0.0
    """Seconds of them since it last went to the end of its line."""
    served: int = 0
    """The number of its last step."""
    urgency: Urgency = Urgency.ASKED
    """Its task's, when it was looked at last."""


@dataclass
class Line:
    """All that waits. Guarded by whoever holds it."""

    waiting: list[Task] = field(default_factory=list)
    _entries: dict[Task, _Entry] = field(default_factory=dict)
    _served: dict[Hashable, int] = field(default_factory=dict)
    """When each owner of waiting work had its last step."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _shares: dict[Urgency, float] = field(default_factory=dict)
    """Seconds that either line of what people wait for had, while both had work."""
    _shared: bool = False
    """Whether both had work when the step at hand was chosen."""
    _usual: dict[Hashable, float] = field(default_factory=dict)
    """Seconds that work of a kind took lately."""
    _seen: Counter[Hashable] = field(default_factory=Counter)

    def add(self, task: Task) -> None:
        """Put a task at the end of its line."""
        self.waiting.append(task)
        self._entries[task] = _Entry(next(self._numbers), urgency=task.urgency)

    def next(self) -> Task:
        """Which task makes the next step. What was cancelled goes first, to be closed."""
        for task in self.waiting:
            if task.cancelled:
                return task
        lines = {urgency: self._in_order(urgency) for urgency in (Urgency.ASKED, Urgency.ANSWERING)}
        self._shared = all(lines.values())
        if not self._shared:
            self._shares.clear()
        for urgency in sorted(lines, key=lambda each: self._shares.get(each, 0.0)):
            if lines[urgency]:
                return lines[urgency][0]
        return min(self.waiting, key=lambda each: (each.urgency, self._turn(each)))

    def stepped(self, task: Task, seconds: float, more: bool) -> None:
        """Note a step that a task made, and whether more are left."""
        entry, urgency = self._entries[task], self._entries[task].urgency
        entry.spent, entry.turn = entry.spent + seconds, entry.turn + seconds
        entry.served = self._served[task.owner] = next(self._numbers)
        if self._shared and urgency.waited_for:
            self._shares[urgency] = self._shares.get(urgency, 0.0) + seconds
        if urgency is Urgency.ASKED and entry.turn > _TURN:
            entry.number, entry.turn = next(self._numbers), 0.0
        if not more or urgency != task.urgency:
            self._note(task, entry)
            entry.urgency, entry.spent, entry.turn = task.urgency, 0.0, 0.0
        if not more:
            self.waiting.remove(task)
            del self._entries[task]
            own = [other for other in self.waiting if other.owner == task.owner]
            if urgency is Urgency.ASKED and not task.cancelled:
                for other in sorted(own, key=lambda each: self._entries[each].number):
                    self._entries[other].number = next(self._numbers)
            if not own:
                self._served.pop(task.owner, None)

    def people(self) -> set[Hashable]:
        """Who waits for something."""
        return {task.owner for task in self.waiting if task.urgency.waited_for and not task.cancelled}

    def place(self, task: Task) -> Place | None:
        """Where a task stands; None where it isn't among what people wait for."""
        line = self._in_order(task.urgency) if task in self._entries and task.urgency.waited_for else []
        if task not in line:
            return None
        before = line[: line.index(task)]
        if task.urgency is Urgency.ANSWERING:
            # All of the first are written together: those behind them wait for as many to end.
            before = before[: max(0, len(before) + 1 - _AT_ONCE)]
        left = [self._left(each) for each in (*before, task)]
        shared = 2 if self._in_order(Urgency.ASKED) and self._in_order(Urgency.ANSWERING) else 1
        seconds = None if None in left else shared * sum(each for each in left if each is not None)
        return Place(len({each.owner for each in before} - {task.owner}), seconds)

    def _in_order(self, urgency: Urgency) -> list[Task]:
        """What waits in one of the lines that people wait in."""
        line = [task for task in self.waiting if task.urgency is urgency and not task.cancelled]
        earlier: Counter[Hashable] = Counter()
        ranks = dict[Task, tuple[int, int]]()
        for task in sorted(line, key=lambda each: self._entries[each].number):
            ranks[task] = earlier[task.owner], self._entries[task].number
            earlier[task.owner] += 1
        found = sorted(line, key=ranks.__getitem__)
        if urgency is Urgency.ASKED:
            return found
        return [*sorted(found[:_AT_ONCE], key=self._turn), *found[_AT_ONCE:]]

    def _turn(self, task: Task) -> tuple[int, int]:
        """The less, the longer ago it and its owner were served."""
        return self._served.get(task.owner, 0), self._entries[task].served

    def _left(self, task: Task) -> float | None:
        usual = self._usual.get(_kind(task, task.urgency))
        return None if usual is None else max(0.0, usual - self._entries[task].spent)

    def _note(self, task: Task, entry: _Entry) -> None:
        if task.cancelled or task.error:
            return
        kind = _kind(task, entry.urgency)
        self._seen[kind] += 1
        usual = self._usual.get(kind, entry.spent)
        self._usual[kind] = usual + (entry.spent - usual) / min(self._seen[kind], _LATELY)


def _kind(task: Task, urgency: Urgency) -> Hashable:
    """What is alike in how long it takes."""
    return urgency, task.key[-1] if isinstance(task.key, tuple) and isinstance(task.key[-1], str) else ""
