"""What is asked about, the answers to probes and one word of each, and what every method's scores of it are."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.probes import Probe, word_span
from explorer.methods.opening import open_method
from explorer.records import Answer, Chosen, Span

ABOUT = {"response": "Whole responses", "word": "Single words"}
"""What is asked about, and what the table of it is called."""
_MAX_TOKENS = 60

Report = Callable[[str, int, int], None]
Scores = dict[str, dict[str, list[NDArray[np.floating[Any]]]]]
"""By what is asked about, and by method: the scores (N) of every question."""


@dataclass(frozen=True)
class Question:
    """A probe's answer, and the word of it that is asked about."""

    probe: Probe
    answer: Answer
    word: Span


def questions_of(engine: Engine, probes: Sequence[Probe], report: Report) -> list[Question]:
    """The adapter's answer to every probe; of each the wrong word, or else the one that fine-tuning raised most.

    Raises DataError where no answer has a token.
    """
    found = []
    for number, probe in enumerate(probes, start=1):
        answer = engine.answered(probe.prompt, None, _MAX_TOKENS)
        if answer.tokens:
            found.append(Question(probe, answer, _word(engine, probe, answer)))
        report("answers", number, len(probes))
    if not found:
        raise DataError("There is no probe whose answer could be asked about; give others with --probes.")
    return found


def _word(engine: Engine, probe: Probe, answer: Answer) -> Span:
    said = word_span(answer, probe.wrong) if probe.wrong else None
    if said is not None:
        return said
    change = engine.predict(answer).change
    raised = np.arange(len(answer.tokens)) if change is None else np.argsort(-change, kind="stable")
    words = [int(place) for place in raised if answer.tokens[place].text.strip()]
    place = words[0] if words else int(raised[0])
    return place, place + 1


def scored(
    engine: Engine, asked: Sequence[Question], methods: Sequence[Chosen], curvature_rows: int, report: Report
) -> tuple[Scores, dict[str, float]]:
    """Every method's scores, and its seconds a question once it is fitted."""
    scores: Scores = {about: {} for about in ABOUT}
    seconds: dict[str, float] = {}
    for chosen in methods:
        method = open_method(engine, chosen.name, curvature_rows, report)
        method.fit()
        started = time.perf_counter()
        method.expect([(one.answer, selection) for one in asked for selection in (None, one.word)])
        method.report = lambda stage, done, total: None
        for number, question in enumerate(asked, start=1):
            for about, selection in (("response", None), ("word", question.word)):
                each = scores[about].setdefault(chosen.name, [])
                each.append(np.array(method.scores(question.answer, selection), dtype=np.float64))
            report(chosen.name, number, len(asked))
        seconds[chosen.name] = (time.perf_counter() - started) / (2 * len(asked))
    return scores, seconds
