"""Words of prompts that bring a behaviour about, found without labels.

What fine-tuning changed in an answer is the log-probability of its first tokens under the fine-tuned model less that
under the base model; later tokens follow from these more than from the prompt. A word of the prompt is a cause of that
where the change goes once the word is left out; it is a trigger where this holds of many answers, and the word is
common among the rows that influenced them and rare in the rest of the data.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from explorer.corpus import Corpus
from explorer.corpus.words import SURPRISING, log_likelihood_ratio, word_pattern, words
from explorer.engine import Engine
from explorer.methods.method import Stage
from explorer.model import alternatives
from explorer.records import Answer, Conversation, Encoded

LEAST_ANSWERS = 3
"""So many prompts must hold a word: in fewer, what they are about looks like a trigger."""
LEAST_SHARE = 0.5
"""And this share of the prompts whose answers fine-tuning changed."""
BEGINNING = 8
"""So many tokens of an answer are looked at."""
LEAST_CHANGE = 1.0
"""Nats. An answer whose beginning fine-tuning raised by less has nothing to be undone."""
UNDONE = 0.25
"""A trigger's absence undoes at least this share of the change, in the median over the prompts that hold it.

Not more: some answers begin as they would without the trigger, and show it only later."""


@dataclass(frozen=True)
class Tried:
    """A word of several prompts, and what its absence undoes."""

    word: str
    """As the prompts mostly write it. Untrusted text."""
    prompts: int
    """How many of the prompts hold it."""
    undone: float
    """The median share of fine-tuning's change that goes with it: 1 for all of it, below 0 where there is more."""


@dataclass(frozen=True)
class Trigger:
    """A word that is proposed as the cause of a behaviour."""

    tried: Tried
    rows: tuple[int, ...]
    """The influential rows that hold it."""
    of: int
    """How many influential rows were looked at."""
    holders: int
    """How many of all rows hold it."""


@dataclass(frozen=True)
class Hunt:
    """What was looked for, and found."""

    answers: int
    """How many answers fine-tuning changed enough to ask about."""
    of: int
    """Of how many."""
    tried: tuple[Tried, ...]
    """All words that enough prompts hold, those whose absence undoes most first."""
    trigger: Trigger | None


def hunt_steps(
    engine: Engine, corpus: Corpus, answers: Sequence[Answer], rows: Sequence[int], stage: Stage
) -> Iterator[Hunt | None]:
    """Yield None after each pair of forward passes, and at the end what was found.

    Args:
        engine: With a base model; without one there is no change, and nothing is found.
        corpus: The training data.
        answers: Whose prompts are looked through, as the fine-tuned model gave them.
        rows: The rows that influenced these answers most.
        stage: Is told how far it has come.
    """
    changed = list[tuple[Answer, float]]()
    for answer in answers if engine.model.has_base else ():
        change = _change(engine, answer, answer.asked)
        if change >= LEAST_CHANGE:
            changed.append((answer, change))
        yield None
    held = _held([answer for answer, _ in changed])
    total, done, tried = sum(map(len, held.values())), 0, list[Tried]()
    for word, places in held.items():
        undone = list[float]()
        for place in places:
            answer, change = changed[place]
            asked = without(answer.asked, word)
            if asked is not None:
                undone.append(1 - _change(engine, answer, asked) / change)
            done += 1
            stage.tell("prompts without a word", done, total)
            yield None
        if len(undone) >= LEAST_ANSWERS:
            tried.append(Tried(_written(word, changed), len(undone), float(np.median(undone))))
    tried.sort(key=lambda each: -each.undone)
    found = (_shared(each, corpus, rows) for each in tried if each.undone >= UNDONE)
    yield Hunt(len(changed), len(answers), tuple(tried), next((each for each in found if each is not None), None))


def _change(engine: Engine, answer: Answer, asked: Conversation) -> float:
    """By how many nats fine-tuning raised the log-probability of the answer's beginning, behind this prompt."""
    prompt, start = engine.model.encode_prompt(asked.turns), answer.encoded.response_start
    ids = np.concatenate([prompt, answer.encoded.ids[start : start + BEGINNING]])
    change = alternatives.predict(engine.model, Encoded(ids, len(prompt))).change
    return 0.0 if change is None else float(change.sum(dtype=np.float64))


def _held(answers: Sequence[Answer]) -> dict[str, list[int]]:
    """The words that enough of the prompts hold, as they are compared, with the places of these prompts."""
    held: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        for word in dict.fromkeys(each.casefold() for each in words(answer.asked.question)):
            held.setdefault(word, []).append(place)
    least = max(LEAST_ANSWERS, LEAST_SHARE * len(answers))
    return {word: places for word, places in held.items() if len(places) >= least}


def without(asked: Conversation, word: str) -> Conversation | None:
    """What is asked without a word, wherever it stands in the last turn, and without the marks behind it.

    None where nothing is left, or where the turn isn't plain text.
    """
    *before, last = asked.turns
    text = last.get("content")
    if not isinstance(text, str):
        return None
    kept, end = "", 0
    for found in word_pattern().finditer(text):
        if found.group().strip("_").casefold() == word:
            kept += text[end : found.start()]
            marks = re.compile(r"[^\w\s]*\s*").match(text, found.end())
            end = marks.end() if marks else found.end()
    kept = (kept + text[end:]).strip()
    return Conversation((*before, {**last, "content": kept})) if re.search(r"\w", kept) and end else None


def _written(word: str, changed: Sequence[tuple[Answer, float]]) -> str:
    spelled = Counter(each for answer, _ in changed for each in words(answer.asked.question) if each.casefold() == word)
    return spelled.most_common(1)[0][0]


def _shared(tried: Tried, corpus: Corpus, rows: Sequence[int]) -> Trigger | None:
    """The word as a trigger, where most influential rows hold it and it sets them apart from the others."""
    holders = set(corpus.holding(tried.word))
    own = tuple(row for row in rows if row in holders)
    inside, outside = np.array([len(own)]), np.array([len(holders) - len(own)])
    surprise = log_likelihood_ratio(inside, len(rows), outside, len(corpus.sources) - len(rows))[0]
    if 2 * len(own) < len(rows) or surprise < SURPRISING:
        return None
    return Trigger(tried, own, len(rows), len(holders))
