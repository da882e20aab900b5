"""A bundle's questions asked again, with a model and a cache: what agrees, and what doesn't.

Answers are generated anew from their prompts and settings. Rankings are asked of the *kept* tokens, so that a question
is the same one even where the new answer differs.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from explorer.bundles.sealed import Bundle, row_sha256
from explorer.corpus import Corpus
from explorer.errors import BundleError, ExplorerError, first_line
from explorer.history import Origin, SavedAnswer, SavedQuestion, origin_of
from explorer.history.checked import checked
from explorer.methods.attributor import Attributor
from explorer.methods.bench import Bench
from explorer.methods.description import choose
from explorer.model.generation import GenerationSettings
from explorer.records import Contrast, Influence, Ranking
from explorer.trust import verdict_of
from explorer.visible import one_line

TOLERANCE = 1e-3
"""Numbers agree within this share of the largest of their kind: other machines add up in another order."""
_OF_ERROR = 0.25
"""Approximate scores agree within this share of the error that they are stated with."""
_HASHES = ("base_sha256", "adapter_sha256", "tokenizer_sha256", "template_sha256", "data_sha256", "cache_sha256")
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asked:
    """One ranking asked again."""

    question: str
    """Its id in the bundle."""
    shown: int
    """How many examples the bundle shows."""
    same_ranks: int
    """How many of them have their rank again; those whose scores can't be told apart may change places."""
    score_difference: float
    """The largest difference of a shown example's score, as a share of the largest of these scores."""
    value_difference: float
    """The same of the values of training tokens; 0 where none is kept."""
    all_difference: float
    """The same of the scores of all examples; 0 where they weren't kept."""
    approximate_tolerance: float
    """What approximate scores may differ by, as a share of the largest: `TOLERANCE`, or a quarter of their error."""
    all_exact: bool
    """Whether the scores of all shown examples are exact."""
    same_evidence: bool
    """Whether the evidence is as strong as it was; true where that wasn't known."""
    problem: str = ""
    """Why it couldn't be asked; empty where it could."""

    @property
    def agrees(self) -> bool:
        """Whether ranks and numbers are the same within the tolerance."""
        shown = max(self.score_difference, self.value_difference)
        near = shown <= (TOLERANCE if self.all_exact else self.approximate_tolerance)
        near = near and self.all_difference <= self.approximate_tolerance
        return not self.problem and self.same_ranks == self.shown and near and self.same_evidence


@dataclass(frozen=True)
class Replayed:
    """One answer of a bundle, asked again."""

    answer: str
    """Its id in the bundle."""
    prompt: str
    differing: tuple[str, ...]
    """What of the model, the data and the cache has another hash than it had."""
    changed_rows: tuple[int, ...]
    """Shown examples that say something else in this cache."""
    same_answer: bool | None
    """Whether the model answers the same tokens; None for a text that was given."""
    now: str
    """Its new answer; empty where there is none."""
    questions: tuple[Asked, ...]
    problem: str = ""
    """Why it couldn't be answered; empty where it could."""

    @property
    def agrees(self) -> bool:
        """Whether the answer, all ranks and all numbers are the same; hashes may differ."""
        asked = all(question.agrees for question in self.questions)
        return not self.problem and self.same_answer is not False and not self.changed_rows and asked


def replay(bundle: Bundle, bench: Bench, report: Report) -> Iterator[Replayed]:
    """Ask everything of a bundle again, an answer after the other.

    Raises BundleError where no answer of it is about data like this cache's.
    """
    engine, corpus = bench.engine, Corpus(bench.engine.store.examples)
    now, rows = origin_of(engine.store), engine.store.manifest.rows
    if bundle.answers and all(saved.origin.rows != rows for saved in bundle.answers):
        raise BundleError(
            f"The bundle is about {bundle.answers[0].origin.rows:,} training examples, and this cache has {rows:,}; "
            f"give the cache whose manifest has the SHA-256 {one_line(bundle.answers[0].origin.cache_sha256, 64)}."
        )
    for number, saved in enumerate(bundle.answers, start=1):
        yield _replayed(saved, bench, corpus, now)
        report("answers", number, len(bundle.answers))


def _replayed(saved: SavedAnswer, bench: Bench, corpus: Corpus, now: Origin) -> Replayed:
    examples = bench.engine.store.examples
    shown = {one.influence.row: one.example for question in saved.questions for one in question.shown}
    changed = sorted(
        row
        for row, example in shown.items()
        if row >= len(examples) or row_sha256(examples[row]) != row_sha256(example)
    )
    said, text, problem = None, "", ""
    try:
        said, text = _answered(saved, bench)
    except (ExplorerError, ValueError, RuntimeError) as why:
        # Settings that no page offers may be more than the arithmetic of sampling bears.
        problem = first_line(why)
    return Replayed(
        saved.id,
        saved.answer.prompt,
        differing(saved.origin, now),
        tuple(changed),
        said,
        text,
        tuple(_asked(saved, question, bench, corpus) for question in saved.questions),
        problem,
    )


def differing(kept: Origin, now: Origin) -> tuple[str, ...]:
    """What has another hash, or another version, than it had, in words."""
    hashes = [
        f"{name.removesuffix('_sha256')} ({one_line(getattr(kept, name), 64) or 'none'} then, "
        f"{getattr(now, name) or 'none'} now)"
        for name in _HASHES
        if getattr(kept, name) != getattr(now, name)
    ]
    versions = [
        f"{one_line(name, 40)} {one_line(version, 40)} then, {now.versions.get(name, 'not there')} now"
        for name, version in kept.versions.items()
        if now.versions.get(name) != version
    ]
    return (*hashes, *versions)


def _answered(saved: SavedAnswer, bench: Bench) -> tuple[bool | None, str]:
    """Whether the model says the same again, and what it says now."""
    if saved.drawn is None:
        return None, ""
    settings: GenerationSettings = checked(GenerationSettings, saved.drawn, "generation")
    *_, answer = bench.engine.answer(saved.answer.asked, settings)
    return bool(np.array_equal(answer.encoded.ids, saved.answer.encoded.ids)), answer.text


def _asked(saved: SavedAnswer, kept: SavedQuestion, bench: Bench, corpus: Corpus) -> Asked:
    try:
        _check_tokens(saved, kept, bench)
        chosen = choose(kept.method.name)
        if chosen.value and chosen.description.value_is_folder:
            raise BundleError(f"{chosen.description.name} names a folder, which is opened for no bundle.")
        attributor = bench.of(chosen)
        ranking = _ranking(saved, kept, attributor, corpus)
    except ExplorerError as problem:
        return Asked(kept.id, len(kept.shown), 0, 0.0, 0.0, 0.0, 0.0, False, False, str(problem))
    again = {found.row: found for found in _again(saved, kept, attributor)}
    then, now = kept.verdict and kept.verdict.state, verdict_of(ranking, corpus)
    scale = max((abs(one.influence.score) for one in kept.shown), default=0.0)
    return Asked(
        kept.id,
        len(kept.shown),
        _same_ranks(kept, ranking, again, scale),
        max((_apart(one.influence.score, again[one.influence.row].score, scale) for one in kept.shown), default=0.0),
        _values_apart(kept, again),
        0.0 if kept.scores is None else _apart(kept.scores, ranking.scores),
        max(TOLERANCE, _OF_ERROR * kept.sketch_error / scale if scale > 0 else 0.0),
        all(one.influence.exact for one in kept.shown),
        then is None or (now is not None and now.state == then),
    )


def _check_tokens(saved: SavedAnswer, kept: SavedQuestion, bench: Bench) -> None:
    """Raise BundleError for token ids that the model doesn't know, or too many of them."""
    model, said = bench.engine.model, saved.answer.encoded.ids
    instead = kept.selection.instead if isinstance(kept.selection, Contrast) else ()
    known, ids = len(model.tokenizer), np.concatenate([said, np.asarray(instead, dtype=np.int64)])
    if not len(ids) or not saved.answer.tokens or ids.min() < 0 or ids.max() >= known or len(ids) > model.context:
        raise BundleError(
            f"The answer {one_line(saved.id, 40)} has tokens that this model can't read; replay it with its own model."
        )


def _ranking(saved: SavedAnswer, kept: SavedQuestion, attributor: Attributor, corpus: Corpus) -> Ranking:
    """The same question, with as many examples shown, exact where the kept ones are."""
    among, count = corpus.rows(kept.wanted), len(kept.shown)
    approximate = not any(one.influence.exact for one in kept.shown)
    return attributor.exact_ranking(saved.answer, kept.selection, count, kept.opponents, approximate, among)


def _again(saved: SavedAnswer, kept: SavedQuestion, attributor: Attributor) -> Iterator[Influence]:
    """The kept examples as they are now, exact where they were."""
    for one in kept.shown:
        row = one.influence.row
        if one.influence.exact:
            yield attributor.refine(saved.answer, kept.selection, row)
        else:
            yield from attributor.influences(saved.answer, kept.selection, [row])


def _same_ranks(kept: SavedQuestion, ranking: Ranking, again: dict[int, Influence], scale: float) -> int:
    """How many places have the same row, or one whose score can't be told apart from it."""
    then, now = [one.influence.row for one in kept.shown], [found.row for found in ranking.influences]
    scores = {found.row: found.score for found in ranking.influences} | {row: one.score for row, one in again.items()}
    return sum(
        old == new or _apart(scores[old], scores[new], scale) <= TOLERANCE for old, new in zip(then, now, strict=False)
    )


def _values_apart(kept: SavedQuestion, again: dict[int, Influence]) -> float:
    """By how much the values of the shown examples' tokens differ, as a share of the largest."""
    worst = 0.0
    for one in kept.shown:
        then, now = one.influence.values, again[one.influence.row].values
        if then is not None and now is not None:
            worst = max(worst, _apart(then, now) if len(then) == len(now) else 1.0)
    return worst


def _apart(then: Any, now: Any, scale: float | None = None) -> float:
    """The largest difference, as a share of the `scale`, or else of the largest number that was kept."""
    one, other = np.atleast_1d(np.asarray(then, float)), np.atleast_1d(np.asarray(now, float))
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float(not np.array_equal(one, other, equal_nan=True))
    largest = float(np.abs(one).max(initial=0.0)) if scale is None else scale
    apart = float(np.abs(one - other).max(initial=0.0))
    return apart / largest if largest > 0 else float(apart > 0)


def plain(found: Replayed) -> dict[str, Any]:
    """One answer as plain values, whether it agrees among them."""
    questions = [asdict(question) | {"agrees": question.agrees} for question in found.questions]
    return asdict(found) | {"agrees": found.agrees, "questions": questions}


def sentences(found: Replayed) -> list[str]:
    """One answer for a terminal: the hashes that differ first, then what agrees and what doesn't."""
    lines = [f"── {one_line(found.prompt, 110)}"]
    lines += [f"   differs: {what}" for what in found.differing]
    if found.changed_rows:
        rows = ", ".join(map(str, found.changed_rows))
        lines.append(f"   training examples that say something else here: {rows}")
    if found.problem:
        lines.append(f"   not answered: {one_line(found.problem, 300)}")
    elif found.same_answer is None:
        lines.append("   a given text; it isn't generated again")
    else:
        lines.append("   the same answer" if found.same_answer else f"   another answer: {one_line(found.now, 200)}")
    for asked in found.questions:
        if asked.problem:
            lines.append(f"   ranking {one_line(asked.question, 40)}: not asked: {one_line(asked.problem, 300)}")
            continue
        lines.append(
            f"   ranking {one_line(asked.question, 40)}: {asked.same_ranks} of {asked.shown} ranks the same; scores "
            f"differ by {asked.score_difference:.1e}, values of tokens by {asked.value_difference:.1e}, scores of all "
            f"examples by {asked.all_difference:.1e} of the largest"
            + ("" if asked.same_evidence else "; the evidence is of another strength")
            + ("" if asked.agrees else "  ← doesn't agree")
        )
    return lines
