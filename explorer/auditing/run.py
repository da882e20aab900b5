"""Prompts × methods of one engine → what an audit records, one bounded step at a time."""

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from explorer.auditing.findings import TOP, Audited
from explorer.corpus import EVERYTHING, Corpus
from explorer.errors import ExplorerError, HistoryError
from explorer.history import Origin, SavedAnswer, saved_question
from explorer.methods.attributor import SPARE, Attributor
from explorer.methods.bench import Bench
from explorer.methods.method import Stage
from explorer.model.generation import GenerationSettings
from explorer.records import Answer, Can, Chosen, Conversation, Prompt, Ranking, Selection
from explorer.trust import verdict_of

Keep = Callable[[SavedAnswer], None]
"""Puts an answer into the history; raises HistoryError."""

EXACT_PASSES = TOP + SPARE
"""So many passes over a training example a question takes to be exact; an answer is asked about once or twice."""


@dataclass(frozen=True)
class AuditSettings:
    """How the prompts of an audit are answered and asked about."""

    generation: GenerationSettings
    exact: bool = False
    """Whether scores are without sketch noise; it takes `EXACT_PASSES` passes more an answer."""
    method: Chosen = field(kw_only=True)
    """What scores the examples; what it needs once is computed with the first answer."""


def audit(
    bench: Bench,
    corpus: Corpus,
    prompts: Sequence[Prompt],
    settings: AuditSettings,
    origin: Origin,
    keep: Keep,
    stage: Stage,
) -> Iterator[Audited | None]:
    """Yield None after every step on the way, and each prompt's record once it is complete, in order.

    A prompt that can't be answered is recorded with its error and stops no other. `corpus` are the cache's texts;
    words that examples share are named once it is ready. `stage` is told how far a slow method has come with what it
    is at.
    """
    for asked in map(Conversation.of, prompts):
        try:
            for step in _answered(bench, corpus, asked, settings, origin, stage):
                yield None if step is None else _kept(step, keep)
        except ExplorerError as problem:
            yield Audited(asked, error=str(problem))


def _answered(
    bench: Bench, corpus: Corpus, asked: Conversation, settings: AuditSettings, origin: Origin, stage: Stage
) -> Iterator[SavedAnswer | None]:
    engine, answer = bench.engine, None
    for grown in engine.answer(asked, settings.generation):
        answer = grown
        yield None
    assert answer is not None, "an engine yields at least the finished answer"
    word = None
    if settings.method.can(Can.NULLS):
        # Without unrelated prompts to compare with, a word tells no more than the whole response.
        yield None
        word = engine.raised_word(answer)
    name, now = uuid.uuid4().hex[:16], time.time()
    questions = []
    for selection in (None,) if word is None else (word, None):
        ranking = yield from _ranking(bench.of(settings.method), answer, selection, settings.exact, stage)
        shown = tuple((engine.store.examples[found.row], None) for found in ranking.influences)
        questions.append(saved_question(name, now, ranking, EVERYTHING, shown, verdict_of(ranking, corpus)))
    yield SavedAnswer(name, now, answer, asdict(settings.generation), origin, questions=tuple(questions))


def _ranking(
    asked: Attributor, answer: Answer, selection: Selection, exact: bool, stage: Stage
) -> Generator[None, None, Ranking]:
    found = None
    while found is None:
        # Asked again where others asked so much during a pause that it was forgotten; else it is free.
        yield from asked.ask_steps(answer, selection, stage)
        if exact and asked.known(answer, selection):
            yield from asked.refine_steps(answer, selection, asked.candidates(answer, selection, TOP), stage)
        if asked.known(answer, selection):
            found = asked.ranking(answer, selection, TOP)
    return found


def _kept(saved: SavedAnswer, keep: Keep) -> Audited:
    """The record of an answer, which goes into the history whole; a thousand times all scores would fill memory."""
    unsaved = ""
    try:
        keep(saved)
    except HistoryError as problem:
        unsaved = str(problem)
    light = tuple(replace(question, scores=None) for question in saved.questions)
    return Audited(saved.answer.asked, replace(saved, questions=light), unsaved=unsaved)
