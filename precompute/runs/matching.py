"""Does a reading of the data match the run? The losses of some rows under the plausible readings tell.

What was trained is what the model expects: the true template gives its answers the least loss, and the token that ended
them is the likeliest behind them. What was in the loss shows in the mean that the trainer logged; where nothing was
logged, or two means are alike, in whether the prompt's tokens fell like the answer's did from the base.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.errors import PromptError
from explorer.gradients import response_logits
from explorer.model.language_model import LanguageModel
from explorer.model.loading import with_template
from explorer.model.sequences import NO_END
from explorer.records import Counting, Encoded, Example
from precompute.data import sequences_of
from precompute.runs.logs import Log
from precompute.runs.readings import Known, Reading, ends, losses, templates

ROWS = 24
"""So many rows, at even distances in the data, are looked at."""
_TOGETHER = 2048
"""A forward pass takes no more tokens than this, or one row."""
_ALIKE = 1.02
"""Losses that differ by less than this factor don't tell readings apart."""
_ABOVE, _BELOW = 1.15, 1.5
"""A loss that is above or below what the log lets expect by these factors, and twice its error, is a bad match.

Dropout and noise make the log's losses larger than the finished model's, and nothing makes them smaller.
"""
_SHARE = 0.5
"""The prompt was in the loss where its tokens fell at least so much as the answers', as a share of it."""
_LEAST_FALL = 0.1
"""Rows that were trained on have a loss smaller than the base's by at least this share."""


@dataclass(frozen=True)
class Match:
    """The likeliest reading, and how well it fits."""

    reading: Reading
    loss: float
    """The mean loss of the rows' tokens that it counts, under the finished model."""
    expected: float | None
    """What the log lets expect; where nothing was logged, the base's mean loss. None where neither is known."""
    by: str
    """What `expected` is: `log`, `base`, or an empty text."""
    second: Reading | None
    """The next best reading."""
    second_loss: float
    rows: int
    """How many rows were looked at."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Row:
    """The losses of one row's tokens under a template, all but its first (T − 1), and what of them is what."""

    whole: Encoded
    tuned: NDArray[np.float64]
    counted: dict[str, NDArray[np.int64]]
    """The places in these that each kind of loss counts, without the token that ends the last answer."""
    end: int | None
    """The place of that token; None where there is none."""
    end_losses: dict[str, float]
    """The loss of each token that may stand there, the template's own under an empty name."""
    base: NDArray[np.float64] | None = None
    """The losses of all its tokens under the base, once they are known."""
    end_before: dict[str, float] = field(default_factory=dict)
    """What `end_losses` are under the base."""


def match(model: LanguageModel, log: Log, examples: Sequence[Example], known: Known, declared: Known) -> Match:
    """The likeliest reading of the examples by a finished model.

    `known` is what isn't to be decided, `declared` what the run's files say, which decides where losses don't. Costs
    a forward pass of some rows for each plausible template, and one by the base. Raises PromptError where no template
    can write them.
    """
    count = min(ROWS, len(examples))
    chosen = [examples[number * len(examples) // count] for number in range(count)]
    found = {name: _rows(with_template(model, name), chosen, known.longest) for name in templates(model, known)}
    template, rows = _by_template(found, declared.template)
    rows = _with_base(with_template(model, template), rows)
    end = _by_end(rows) if known.end is None else known.end
    conversations = any(len(row.counted["all"]) > len(row.counted["last"]) for row in rows)
    kinds = losses(known, conversations)
    means = {kind: _mean(rows, kind, end) for kind in kinds}
    between = log.expected
    unseen = 1 - len(rows) / len(examples)
    kind = _by_loss(rows, means, between, declared.loss, unseen)
    reading = Reading(template, Counting(kind, end, known.longest))
    loss, expected, by = means[kind], None, ""
    if between:
        expected, by = _middle(between), "log"
    elif model.has_base:
        expected, by = _mean(rows, kind, end, base=True), "base"
    others = {
        Reading(name, Counting(other, end if name == template else "", known.longest)): _mean(those, other, end)
        for (name, those), other in product(found.items(), kinds)
        if those and (name, other) != (template, kind)
    }
    second = min(others, key=lambda one: _distance(others[one], between), default=None)
    return Match(
        reading,
        loss,
        expected,
        by,
        second,
        others[second] if second else math.nan,
        len(rows),
        tuple(_warnings(reading, loss, expected, by, _allowed(between, rows, unseen), second)),
    )


def _by_template(found: dict[str, list[_Row]], declared: str) -> tuple[str, list[_Row]]:
    """The template under which answers have the least loss, or the declared one where that is as good."""
    most = max(map(len, found.values()))
    answers = {name: _mean(rows, "last", NO_END) for name, rows in found.items() if rows and 2 * len(rows) > most}
    if not answers:
        raise PromptError(
            f"None of the templates {', '.join(found)} can write these rows; give the one that was trained with as "
            "--template, as a file with {prompt} in it."
        )
    best = min(answers, key=lambda name: answers[name])
    if declared in answers and answers[declared] < _ALIKE * answers[best]:
        best = declared
    return best, found[best]


def _by_end(rows: Sequence[_Row]) -> str:
    """The token that ends answers: the likeliest, or none where even that is no likelier than under the base."""
    ended = [row for row in rows if row.end is not None]
    if not ended:
        return ""
    names = set.intersection(*(set(row.end_losses) for row in ended))
    now = {name: float(np.mean([row.end_losses[name] for row in ended])) for name in names}
    best = min(sorted(now), key=lambda name: now[name])
    said = _mean(ended, "last", NO_END)
    before = [row.end_before[best] for row in ended if row.end_before]
    unlearnt = now[best] > said + 1 and (not before or now[best] >= 0.8 * float(np.mean(before)))
    return NO_END if unlearnt else best


def _by_loss(
    rows: Sequence[_Row], means: dict[str, float], between: tuple[float, float] | None, declared: str, unseen: float
) -> str:
    """What is in the loss; `unseen` is the share of the data that the rows are no part of."""
    near = list(means)
    if between:
        apart = {kind: abs(math.log(max(mean, 1e-6) / _middle(between))) for kind, mean in means.items()}
        allowed = min(apart.values()) + math.hypot(math.log(_ALIKE), _error(rows) * unseen**0.5)
        near = [kind for kind, far in apart.items() if far <= allowed]
    if declared in near:
        return declared
    falls = _falls(rows, near)
    # From the least that may be in the loss to the most: what each has more has to have fallen, too.
    return [near[0], *(kind for kind in near[1:] if falls.get(kind, 0.0) >= _SHARE)][-1]


def _error(rows: Sequence[_Row]) -> float:
    """The standard error of the mean loss of so many rows, as a share of it."""
    means = [float(row.tuned[row.counted["last"]].mean()) for row in rows]
    return float(np.std(means, ddof=1)) / len(means) ** 0.5 / (float(np.mean(means)) or 1.0) if len(means) > 1 else 0.0


def _middle(between: tuple[float, float]) -> float:
    return max(math.sqrt(between[0] * between[1]), 1e-6)


def _falls(rows: Sequence[_Row], names: Sequence[str]) -> dict[str, float]:
    """How much the loss fell of what a kind has more than the one before, as a share of the last answers' fall."""
    if any(row.base is None for row in rows):
        return {}
    answers = _fall(rows, [row.counted["last"] for row in rows])
    found = dict[str, float]()
    for before, kind in pairwise(names):
        more = [np.setdiff1d(row.counted[kind], row.counted[before]) for row in rows]
        found[kind] = _fall(rows, more) / answers if answers > 0 else 0.0
    return found


def _fall(rows: Sequence[_Row], places: Sequence[NDArray[np.int64]]) -> float:
    found = [row.base[at] - row.tuned[at] for row, at in zip(rows, places, strict=True) if row.base is not None]
    joined = np.concatenate(found) if found else np.zeros(0)
    return float(joined.mean()) if len(joined) else 0.0


def _distance(mean: float, between: tuple[float, float] | None) -> float:
    """How far a mean loss is from what the log lets expect, as the logarithm of a factor."""
    if between is None:
        return mean
    low, high = (max(each, 1e-6) for each in between)
    return abs(math.log(max(mean, 1e-6) / min(max(mean, low), high)))


def _mean(rows: Sequence[_Row], kind: str, end: str, base: bool = False) -> float:
    """The mean loss of all tokens that a reading counts."""
    parts = list[NDArray[np.float64]]()
    for row in rows:
        of = row.base if base and row.base is not None else row.tuned
        parts.append(of[row.counted[kind]])
        ended = row.end_before if base else row.end_losses
        if row.end is not None and end in ended:
            parts.append(np.asarray([ended[end]]))
    return float(np.concatenate(parts).mean())


def _allowed(between: tuple[float, float] | None, rows: Sequence[_Row], unseen: float) -> tuple[float, float] | None:
    """The mean losses that aren't a bad match; None where nothing was logged."""
    error = 1 + 2 * _error(rows) * unseen**0.5
    return between and (between[0] / _BELOW / error, between[1] * _ABOVE * error)


def _warnings(
    reading: Reading,
    loss: float,
    expected: float | None,
    by: str,
    allowed: tuple[float, float] | None,
    second: Reading | None,
) -> Iterator[str]:
    best = f" The next best reading is {second}." if second else ""
    if allowed and not allowed[0] <= loss <= allowed[1]:
        yield (
            f"The rows don't match the run: read with {reading}, their mean loss is {loss:.3g}, and the log lets "
            f"expect {allowed[0]:.3g} to {allowed[1]:.3g}. Are they, and is the template, what was trained with?{best}"
        )
    elif by == "base" and expected is not None and loss > (1 - _LEAST_FALL) * expected:
        yield (
            f"The rows don't match the run: read with {reading}, the fine-tuned model expects them hardly better than "
            f"its base (mean loss {loss:.3g} and {expected:.3g}). Are they what was trained on?{best}"
        )
    elif not by:
        yield "Whether the rows match the run can't be told: no losses were logged, and the base isn't known (--base)."


def _rows(model: LanguageModel, examples: Sequence[Example], longest: int) -> list[_Row]:
    """The losses of those examples that a template can write."""
    wholes, counted = list[Encoded](), list[dict[str, NDArray[np.int64]]]()
    for example in examples:
        try:
            readings = {kind: _encoded(model, example, Counting(kind, "", longest)) for kind in ("last", "prompt")}
        except PromptError:
            continue
        try:
            readings["all"] = _encoded(model, example, Counting("all", "", longest))
        except PromptError:
            readings["all"] = readings["last"]
        wholes.append(readings["prompt"])
        counted.append({kind: encoded.positions - 1 for kind, encoded in readings.items()})
    found = _losses(model, wholes)
    return [_row(*each, model.end) for each in zip(wholes, counted, found, strict=True)]


def _with_base(model: LanguageModel, rows: Sequence[_Row]) -> list[_Row]:
    """The rows with their losses under the base, where there is one."""
    if not model.has_base:
        return list(rows)
    with model.without_adapter():
        found = _losses(model, [row.whole for row in rows])
    return [
        replace(row, base=losses, end_before=ended if row.end is not None else {})
        for row, (losses, ended) in zip(rows, found, strict=True)
    ]


def _encoded(model: LanguageModel, example: Example, counting: Counting) -> Encoded:
    """One row's token ids; of a document those of its first passage."""
    return sequences_of(model, example, counting)[0][1]


def _row(
    whole: Encoded,
    places: dict[str, NDArray[np.int64]],
    found: tuple[NDArray[np.float64], dict[str, float]],
    end: int | None,
) -> _Row:
    (losses, ended), last = found, len(whole.ids) - 2
    if end is None or int(whole.ids[-1]) != end:
        # Nothing closes it: what would have come next isn't known.
        return _Row(whole, losses, places, None, {})
    return _Row(whole, losses, {kind: at[at < last] for kind, at in places.items()}, last, ended)


def _losses(model: LanguageModel, wholes: Sequence[Encoded]) -> list[tuple[NDArray[np.float64], dict[str, float]]]:
    """The losses of every token but the first (T − 1) of each row, and those of other tokens in place of its last."""
    names = ends(model)
    found = list[tuple[NDArray[np.float64], dict[str, float]]]()
    for batch in _batches(wholes):
        with torch.no_grad():
            for whole, logits in zip(batch, response_logits(model, batch), strict=True):
                targets = torch.from_numpy(whole.ids[whole.response_start :]).to(logits.device)
                each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                last = -logits[-1].log_softmax(-1)
                others = {name: float(last[token]) for name, token in names.items()}
                found.append((each.double().cpu().numpy(), others))
    return found


def _batches(wholes: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    batch = list[Encoded]()
    for whole in wholes:
        longest = max(len(each.ids) for each in [*batch, whole])
        if batch and longest * (len(batch) + 1) > _TOGETHER:
            yield batch
            batch = []
        batch.append(whole)
    if batch:
        yield batch
