"""What the page's verdict and its marks say of probes whose true cause is known, and of unrelated prompts.

Two questions are asked of every answer, as the page asks them: about the word that fine-tuning raised most, which it
selects by itself, and about the whole response; where no word was raised, both are the same. The state follows from the
scores of all examples. `judge_marks` counts the marks that the page gives to the words of the probes' answers.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from explorer.corpus.verbatim import VerbatimIndex, as_tokens
from explorer.evaluation.probes import Probe, is_attacked, word_span
from explorer.methods.attributor import Attributor
from explorer.model.generation import GenerationSettings
from explorer.records import NEAR, Answer, Selection, Span
from explorer.trust.marks import MARKS, Mark, marks
from explorer.trust.verdict import STATES, verdict

UNRELATED = "unrelated"
"""The kind of a prompt that has nothing to do with the training data."""
_MAX_TOKENS = GenerationSettings().max_tokens
"""As the page answers where nothing else is set."""
_QUESTIONS = ("raised word", "whole response")


Figures = dict[str, dict[str, float | int]]
"""Figures by row and column."""


Report = Callable[[int, int], None]


def judge_verdicts(asked: Attributor, probes: Sequence[Probe], report: Report) -> tuple[Figures, dict[str, list[int]]]:
    """How often the evidence is strong, some or none, and which probes show what is expected of them.

    Returns:
        By kind of probe and question, `strong`, `some` and `none` as shares of the probes, and `named`: the share whose
        verdict is strong or some and names the planted label as what the first ten examples share, of a kind of which
        some were planted. A question without a verdict, in a cache without a null sample, counts in no share. Then by
        kind the numbers, from 1, of the probes whose raised word has strong evidence that names the planted
        label, or no clear source where nothing was planted.
    """
    labels = [example.source for example in asked.engine.store.examples]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    as_expected: dict[str, list[int]] = {}
    for number, probe in enumerate(probes, start=1):
        answer = asked.engine.answered(probe.prompt, None, max_tokens=_MAX_TOKENS)
        for name, selection in zip(_QUESTIONS, (asked.engine.raised_word(answer), None), strict=True):
            figures = _figures(asked, answer, selection, labels, probe.planted)
            found.setdefault((probe.kind, name), []).append(figures)
            wanted = ("strong", "named") if probe.planted else ("none",)
            if name == _QUESTIONS[0] and all(figures.get(each) for each in wanted):
                as_expected.setdefault(probe.kind, []).append(number)
        report(number, len(probes))
    return {f"{kind}, {name}": _shares(rows) for (kind, name), rows in found.items()}, as_expected


def judge_marks(asked: Attributor, probes: Sequence[Probe], report: Report) -> Figures:
    """By what is known of words (`origin`): how many there are in the probes' answers, and the share of each mark."""
    index = VerbatimIndex([(example.prompt, example.response) for example in asked.engine.store.examples])
    deque(index.build(), maxlen=0)
    words = Counter[tuple[str, Mark]]()
    for number, probe in enumerate(probes, start=1):
        answer = asked.engine.answered(probe.prompt, None, max_tokens=_MAX_TOKENS)
        words.update((origin(probe, answer, word), mark) for word, mark in _marks(asked, answer, index).items())
        report(number, len(probes))
    return _mark_shares(words)


def origin(probe: Probe, answer: Answer, word: Span) -> str:
    """What is known of where a word of a probe's answer comes from."""
    wrong = word_span(answer, probe.wrong) if probe.wrong else None
    if wrong and word[0] < wrong[1] and wrong[0] < word[1]:
        return "a planted wrong word"
    if probe.kind == "triggered" and is_attacked(probe, answer.text):
        return "in an attacked answer"
    return "anywhere else"


def _marks(asked: Attributor, answer: Answer, index: VerbatimIndex) -> dict[Span, Mark]:
    """The marks of an answer's words once all is known."""
    expected = asked.engine.predict(answer)
    if expected.change is None:
        return {}
    deque(asked.ask_ahead(answer), maxlen=0)
    passages = [as_tokens(answer.tokens, each.start, each.stop) for each in index.passages(answer.text)]
    return marks(answer.tokens, expected.change, partial(asked.state, answer), passages)


def _mark_shares(words: Mapping[tuple[str, Mark], int]) -> Figures:
    counts = {
        name: {mark: words.get((name, mark), 0) for mark in MARKS} for name in sorted({name for name, _ in words})
    }
    return {
        name: {"words": (of := sum(each.values()))} | {mark: each[mark] / of for mark in MARKS}
        for name, each in counts.items()
    }


def _figures(
    asked: Attributor, answer: Answer, selection: Selection, labels: Sequence[str], planted: str
) -> dict[str, float]:
    """One question's verdict as numbers."""
    asked.ask(answer, selection)
    given = verdict(asked.ranking(answer, selection, NEAR), labels)
    if given is None:
        return {}
    named = given.state != "none" and given.shared is not None and given.shared.name == planted
    states = {state: float(given.state == state) for state in STATES}
    return states | ({"named": float(named)} if planted else {})


def _shares(rows: Sequence[dict[str, float]]) -> dict[str, float | int]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {"prompts": len(rows)} | {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
