"""Prompts × engine → what an audit records, one bounded step at a time."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from explorer.audit import TOP, Audited
from explorer.engine import SPARE, Engine
from explorer.errors import ExplorerError, HistoryError
from explorer.filters import EVERYTHING
from explorer.generation import GenerationSettings
from explorer.records import Answer
from explorer.saved import Origin, SavedAnswer, saved_question

Keep = Callable[[SavedAnswer], None]
"""Puts an answer into the history; raises HistoryError."""

EXACT_PASSES = TOP + SPARE
"""So many passes over a training example an answer takes to be exact."""


@dataclass(frozen=True)
class AuditSettings:
    """How the prompts of an audit are answered and asked about."""

    generation: GenerationSettings
    exact: bool = False
    """Whether scores are without sketch noise; it takes `EXACT_PASSES` passes more an answer."""


def audit(
    engine: Engine, prompts: Sequence[str], settings: AuditSettings, origin: Origin, keep: Keep
) -> Iterator[Audited | None]:
    """Yield None after every step on the way, and each prompt's record once it is complete, in order.

    A prompt that can't be answered is recorded with its error and stops no other.
    """
    for prompt in prompts:
        try:
            for step in _answered(engine, prompt, settings, origin):
                yield None if step is None else _kept(prompt, step, keep)
        except ExplorerError as problem:
            yield Audited(prompt, error=str(problem))


def _answered(engine: Engine, prompt: str, settings: AuditSettings, origin: Origin) -> Iterator[SavedAnswer | None]:
    answer: Answer | None = None
    for grown in engine.answer(prompt, settings.generation):
        answer = grown
        yield None
    assert answer is not None, "an engine yields at least the finished answer"
    # Asked again after every pause, in which others may have asked so much that the engine forgot; else it is free.
    engine.ask(answer, None)
    yield None
    engine.ask(answer, None)
    if settings.exact:
        for row in engine.candidates(answer, None, TOP):
            engine.refine(answer, None, row)
            yield None
            engine.ask(answer, None)
    ranking = engine.ranking(answer, None, TOP)
    name, now = uuid.uuid4().hex[:16], time.time()
    shown = tuple((engine.store.examples[found.row], None) for found in ranking.influences)
    question = saved_question(name, now, ranking, EVERYTHING, shown)
    yield SavedAnswer(name, now, answer, asdict(settings.generation), origin, questions=(question,))


def _kept(prompt: str, saved: SavedAnswer, keep: Keep) -> Audited:
    """The record of an answer, which goes into the history whole; a thousand times all scores would fill memory."""
    unsaved = ""
    try:
        keep(saved)
    except HistoryError as problem:
        unsaved = str(problem)
    light = tuple(replace(question, scores=None) for question in saved.questions)
    return Audited(prompt, replace(saved, questions=light), unsaved=unsaved)
