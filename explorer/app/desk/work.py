"""What is on its way: records of the work that a browser asked for, to be read from any thread."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from explorer.auditing.findings import Audited
from explorer.auditing.run import AuditSettings
from explorer.concurrency import Task
from explorer.corpus import EVERYTHING, Filter
from explorer.methods.method import Stage
from explorer.model.generation import GenerationSettings
from explorer.records import Answer, Chosen, Conversation, Prompt, Selection, Span

Found = TypeVar("Found")


@dataclass
class Asking:
    """An answer on its way; read it from any thread."""

    task: Task
    asked: Conversation
    settings: GenerationSettings | None
    """How it is drawn; None for a response from elsewhere."""
    answer: Answer | None = None
    stopped: bool = False
    """True once the person has read enough of it."""
    raised: Span | None = None
    """The word of the complete answer that fine-tuning raised most; None where there is none."""
    settled: bool = False
    """Whether `raised` is known, or nobody asked for it."""

    def stop(self) -> None:
        """End the answer with the token at hand; what there is can be asked about."""
        self.stopped = True

    def give_up(self) -> None:
        """Want nothing more: neither the rest of the answer, nor what is computed ahead of its first question."""
        self.task.cancel()
        self.settled = True

    @property
    def error(self) -> str | None:
        """What went wrong, if anything did."""
        return self.task.error


@dataclass(frozen=True)
class Question:
    """What the page shows training examples for."""

    answer: Answer
    selection: Selection
    opponents: bool
    count: int
    wanted: Filter = EVERYTHING
    """Which examples are looked at."""
    positions: bool = False
    """Whether tokens are coloured by what passes through their position, not by their own loss."""
    method: Chosen = field(kw_only=True)
    """By which method examples are scored."""


@dataclass
class Pace:
    """How fast work goes, by what of it was done when it was first looked at."""

    first: tuple[float, int] | None = None

    def seconds_left(self, done: int, total: int) -> float | None:
        """How long the rest will take, if it goes on as it went; None before anything was seen to be done."""
        now = time.monotonic()
        if self.first is None:
            self.first = now, done
        begun, before = self.first
        return (now - begun) * (total - done) / (done - before) if done > before else None


@dataclass(frozen=True)
class Explaining:
    """The work behind the shown examples."""

    questions: tuple[Question, ...]
    """Of one selection: its proponents, its opponents, or both."""
    asked: Task | None
    """None when the question's gradient was known already."""
    refined: Task
    checked: Task
    stage: Stage = field(default_factory=Stage)
    """How far the work of a slow method has come."""
    pace: Pace = field(default_factory=Pace)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of what is shown."""
        return self.refined.finished and self.checked.finished

    def cancel(self) -> None:
        """Leave what is on its way."""
        for task in (self.asked, self.refined, self.checked):
            if task is not None:
                task.cancel()

    @property
    def abandoned(self) -> bool:
        """True once its work was cancelled; it goes on where it was when it is asked for again."""
        return self.refined.cancelled or self.checked.cancelled

    @property
    def error(self) -> str | None:
        """What went wrong, if anything did."""
        failed = [task.error for task in (self.asked, self.refined, self.checked) if task is not None and task.error]
        return failed[0] if failed else None


@dataclass(frozen=True)
class Fitting:
    """What a method needs once, on its way; read it from any thread."""

    task: Task
    method: Chosen
    stage: Stage


@dataclass
class Finding(Generic[Found]):
    """Something on its way that is of use once it is complete; read it from any thread."""

    task: Task
    found: Found | None = None
    done: int = 0
    """Steps made so far."""
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self, steps: int) -> float | None:
        """How long the rest of so many steps will take, if it goes on as it went; None before the first."""
        return _seconds_left(self.started, self.done, steps)


@dataclass
class Auditing:
    """An audit on its way; read it from any thread."""

    task: Task
    prompts: Sequence[Prompt]
    settings: AuditSettings
    done: list[Audited] = field(default_factory=list)
    """One a prompt, in their order, as far as it has come."""
    stage: Stage = field(default_factory=Stage)
    """How far a slow method has come with what it is at."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, if it goes on as it went; None before the first answer."""
        return _seconds_left(self.started, len(self.done), len(self.prompts))


def _seconds_left(started: float, done: int, total: int) -> float | None:
    return (time.monotonic() - started) * (total - done) / done if done else None
