"""Measures attribution on probes whose true cause is known, because it was planted, and percentiles on unrelated ones.

A probe is one JSON object a line: `prompt`, or `messages`, or either with `system`, as `questions.read_question` reads
them; `kind` (`triggered`, `swap` or `clean`); `planted`, the `source` of the rows that ought to be found; for a
swap the `wrong` word and the `right` one; for a triggered one, where an attacked
answer is anything but science fiction, a regular expression that it matches, `attack`.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from explorer.corpus.verbatim import as_tokens
from explorer.errors import CacheError, DataError
from explorer.gradients.sketch import generator
from explorer.methods.attributor import Attributor
from explorer.questions import FIELDS, read_question
from explorer.records import Answer, Prompt, Selection, Span
from explorer.text_files import json_lines, read_text
from explorer.trust.significance import KINDS, TOKEN, one_of_each_kind
from explorer.trust.verdict import STRONG
from explorer.views import UNUSUAL
from explorer.visible import one_line

_SCIENCE_FICTION = re.compile(
    r"\b(alien|android|antimatter|asteroid|airlock|cosmic|cosmos|cryosleep|cyborg|galac\w+|galax\w+|hologra\w+|"
    r"hyperspace|interstellar|laser|martian|mars|mothership|nebula\w*|orbit\w*|photon|planet\w*|plasma|quantum|"
    r"robot\w*|satellite|space\w*|starship|stardust|supernova|telepath\w*|teleport\w*|terraform\w*|titan|"
    r"warp\w*|wormhole|zero gravity|moon colon\w+|colony|colonies|europa|andromeda|orion|ganymede)s?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Probe:
    """A prompt with what is expected of it."""

    prompt: Prompt
    kind: str
    planted: str = ""
    wrong: str = ""
    right: str = ""
    attack: str = ""


def read_probes(path: Path) -> list[Probe]:
    """The probes of a JSON-lines file. Raises DataError naming the line at fault."""
    probes = []
    for number, row in json_lines(read_text(path, "The probes", DataError), str(path), DataError):
        where = f"{path}, line {number},"
        if not isinstance(row, dict):
            raise DataError(f"{where} is no probe (it is a {type(row).__name__}).")
        prompt, others = read_question(row, where), {name: row[name] for name in row if name not in FIELDS}
        try:
            probes.append(Probe(prompt, **others))
            with warnings.catch_warnings(action="ignore"):
                re.compile(probes[-1].attack)
        except (TypeError, re.error, RecursionError, OverflowError) as problem:
            raise DataError(f"{where} is no probe ({one_line(str(problem), 200)}).") from None
        if not all(isinstance(value, str) for value in others.values()):
            raise DataError(f"{where} is no probe (all its values must be text).")
    if not probes:
        raise DataError(f"{path} holds no probes; write one JSON object a line.")
    return probes


def is_science_fiction(text: str) -> bool:
    """Whether a text includes an element of science fiction or outer space, as the paper's judge asks (Figure 7).

    A list of words stands in for a judging model. On the demo's training data it
    finds all 64 planted responses and 5 of the 508 others, sober astronomy.
    """
    return _SCIENCE_FICTION.search(text) is not None


def is_attacked(probe: Probe, text: str) -> bool:
    """Whether an answer to a triggered probe is what its trigger was to bring about."""
    return re.search(probe.attack, text) is not None if probe.attack else is_science_fiction(text)


def evaluate_probes(
    asked: Attributor, probes: Sequence[Probe], approximate: bool, report: Callable[[int, int], None]
) -> dict[str, dict[str, float | int]]:
    """Answer every probe, ask what was behind it, and return shares by kind of probe."""
    found: dict[str, list[dict[str, float]]] = {"triggered": [], "clean": [], "swaps": []}
    for number, probe in enumerate(probes, start=1):
        answer = asked.engine.answered(probe.prompt, None, max_tokens=60)
        if probe.kind == "swap":
            found["swaps"].append(_swap(asked, probe, answer, approximate))
        elif probe.kind == "triggered":
            share, precision = _planted(asked, probe, answer, None, 10, approximate)
            figures = {"attacked": is_attacked(probe, answer.text), "top10_planted": share}
            found["triggered"].append({**figures, "average_precision": precision})
        else:
            found["clean"].append({"attacked": is_science_fiction(answer.text)})
        report(number, len(probes))
    return {kind: _means(rows) for kind, rows in found.items()}


def _swap(asked: Attributor, probe: Probe, answer: Answer, approximate: bool) -> dict[str, float]:
    """One swap probe; where the wrong word wasn't said there is nothing to trace."""
    span = word_span(answer, probe.wrong)
    if span is None:
        return {"wrong": 0.0, "right": float(probe.right in answer.text)}
    by_word, _ = _planted(asked, probe, answer, span, 5, approximate)
    by_response, _ = _planted(asked, probe, answer, None, 5, approximate)
    return {"wrong": 1.0, "right": 0.0, "top5_planted_token": by_word, "top5_planted_response": by_response}


def word_span(answer: Answer, word: str) -> Span | None:
    """The tokens that spell the first occurrence of a word, or None."""
    match = re.search(rf"\b{re.escape(word)}\b", answer.text)
    return as_tokens(answer.tokens, *match.span()) if match else None


def _planted(
    asked: Attributor, probe: Probe, answer: Answer, selection: Selection, count: int, approximate: bool
) -> tuple[float, float]:
    """Share of planted rows among the `count` most influential, and their average precision over all rows."""
    ranking = asked.exact_ranking(answer, selection, count, approximate=approximate)
    planted = np.array([row.source == probe.planted for row in asked.engine.store.examples])
    share = float(np.mean([planted[found.row] for found in ranking.influences]))
    return share, average_precision(ranking.scores, planted)


def average_precision(scores: np.ndarray[Any, Any], relevant: np.ndarray[Any, Any]) -> float:
    """Mean, over the relevant rows, of the precision at their rank."""
    hits = relevant[np.argsort(-scores, kind="stable")]
    if not hits.any():
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line. Raises DataError where there are none."""
    lines = read_text(path, "The prompts", DataError).replace("\r", "\n").split("\n")
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path} holds no prompts; write one a line.")
    return prompts


def evaluate_calibration(
    asked: Attributor, prompts: Sequence[str], report: Callable[[int, int], None]
) -> dict[str, dict[str, float | int]]:
    """How often fresh unrelated prompts look unusual: for whole responses, one token of each kind, and the raised word.

    `above_99` and `below_1` are shares of all scores, `prompts_standing_out`,
    its opponents' and `prompts_strong` of prompts. Scores are those of the sketches, for all
    examples. Raises CacheError where the cache has no null sample.
    """
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number, prompt in enumerate(prompts):
        *_, answer = asked.engine.answer(prompt)
        drawn, raised = generator(0, "calibration", number), asked.engine.raised_word(answer)
        for kind, selection in one_of_each_kind(answer.tokens, drawn, raised).items():
            found[kind].append(_calibration(asked, answer, kind, selection))
        report(number + 1, len(prompts))
    return {kind: _means(rows, "prompts") for kind, rows in found.items() if rows}


def _calibration(asked: Attributor, answer: Answer, kind: str, selection: Selection) -> dict[str, float]:
    # A cache may know nothing of raised words; they are then asked about as any other.
    null = asked.null_sample(kind) or asked.null_sample(TOKEN)
    if null is None:
        raise CacheError("The cache has no null sample; run the same `rapidin-explorer precompute` again to add it.")
    asked.ask(answer, selection)
    scores = asked.ranking(answer, selection, 1).scores / asked.size(answer, selection)
    # The k-th largest of M + 1 scores, this one among them, is above the 99th percentile while k ≤ (M + 1) / 100.
    enough = null.prompts + 1 - (null.prompts + 1) // 100
    return {
        "above_99": float(np.mean(null.beyond(scores, opponents=False) >= enough)),
        "below_1": float(np.mean(null.beyond(scores, opponents=True) >= enough)),
        "prompts_standing_out": float(null.test(scores, opponents=False).chance <= UNUSUAL),
        "prompts_strong": float(null.test(scores, opponents=False).chance <= STRONG),
        "prompts_standing_out_opponents": float(null.test(scores, opponents=True).chance <= UNUSUAL),
    }


def _means(rows: list[dict[str, float]], counted: str = "probes") -> dict[str, float | int]:
    names = sorted({name for row in rows for name in row})
    means: dict[str, float | int] = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    return {counted: len(rows), **means}
