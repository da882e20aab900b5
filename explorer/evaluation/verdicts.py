"""What the page's verdict says of probes whose true cause is known, and of unrelated prompts.

Two questions are asked of every answer, as the page asks them: about the word that fine-tuning raised most, which it
selects by itself, and about the whole response; where no word was raised, both are the same. The state follows from the
scores of all examples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from explorer.evaluation.probes import Probe
from explorer.methods.attributor import Attributor
from explorer.records import NEAR, Answer, Selection
from explorer.trust.verdict import STATES, verdict

UNRELATED = "unrelated"
"""The kind of a prompt that has nothing to do with the training data."""
_MAX_TOKENS = 80
"""As the page answers where nothing else is set."""
_QUESTIONS = ("raised word", "whole response")


def judge_verdicts(
    asked: Attributor, probes: Sequence[Probe], report: Callable[[int, int], None]
) -> tuple[dict[str, dict[str, float | int]], dict[str, list[int]]]:
    """How often the evidence is strong, some or none, and which probes show what is expected of them.

    Returns:
        By kind of probe and question, `strong`, `some` and `none` as shares of the probes, and `named`: the share whose
        verdict is strong or some and names the planted label as what the first ten examples share, of a kind of which
        some were planted. A question without a verdict, in a cache without a null sample, counts in no share. Then by
        kind the numbers, from 1, of the probes whose raised word has strong evidence that names the planted label, or
        no clear source where nothing was planted.
    """
    labels = [example.source for example in asked.engine.store.examples]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    as_expected: dict[str, list[int]] = {}
    for number, probe in enumerate(probes, start=1):
        answer = asked.engine.answered(probe.prompt, None, max_tokens=_MAX_TOKENS)
        asked.engine.predict(answer)
        for name, selection in zip(_QUESTIONS, (asked.engine.raised(answer), None), strict=True):
            figures = _figures(asked, answer, selection, labels, probe.planted)
            found.setdefault((probe.kind, name), []).append(figures)
            wanted = ("strong", "named") if probe.planted else ("none",)
            if name == _QUESTIONS[0] and all(figures.get(each) for each in wanted):
                as_expected.setdefault(probe.kind, []).append(number)
        report(number, len(probes))
    return {f"{kind}, {name}": _shares(rows) for (kind, name), rows in found.items()}, as_expected


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
