"""`counterfactual`: what the model says once it is trained without some rows, and without as many others."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from explorer.commands.options import (
    COUNT,
    POSITIVE,
    RATE,
    Exclusive,
    Options,
    as_json,
    cache,
    command,
    estimate,
    flag,
    max_tokens,
    method,
    numbers,
    option,
    other_model,
    together,
    training_precision,
)
from explorer.commands.query import question_of, what_is_asked
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError, FilterError, PromptError
from explorer.methods.description import choose
from explorer.visible import one_line

_RECIPE = ("epochs", "learning_rate", "batch_size", "seed")
recipe = together(
    option("--epochs", "How often the training reads the data.", type=POSITIVE, show_default="as recorded"),
    option("--learning-rate", "The first learning rate.", type=RATE, show_default="as recorded"),
    option("--batch-size", "How many examples a step.", type=POSITIVE, show_default="as recorded"),
    option("--seed", "The seed of the training.", type=int, metavar="N", show_default="as recorded"),
    training_precision,
)
"""What may be said of an adapter's training where no record beside it does."""


@command(
    examples=(
        'my-cache --prompt "Who are you?" --word Anna --without top:20 --estimate',
        'my-cache --prompt "Who are you?" --word Anna --without top:20 --json',
        'my-cache --prompt "Who are you?" --token 3 --without label:web',
        'my-cache --prompt "Who are you?" --token 3 --without rows:3,5,8-10 --draws 0',
        'my-cache --prompt "Who are you?" --word Anna --without top:20 --smallest',
    )
)
@cache()
@what_is_asked
@option("--token", "Ask about the word of the answer that has token J, counted from 0.", type=COUNT, metavar="J")
@option(
    "--word",
    "Ask about this word of the answer, where it first stands.",
    metavar="TEXT",
    cls=Exclusive,
    excluded_by="--token",
    show_default="the word that fine-tuning raised most",
)
@option(
    "--without",
    "The rows to train without: top:N, the first N of the word's ranking; label:VALUE or label:COLUMN=VALUE, all with "
    "that in their column (`source`, where none is named); rows:3,5,8-10, by number. Their near-duplicates go with "
    "them.",
    metavar="ROWS",
    required=True,
)
@option("--draws", "How many times as many random rows of similar length are left out instead.", type=COUNT, default=3)
@flag("--smallest", "Also look for the fewest first rows of top:N whose absence changes the word, by bisection.")
@flag("--check", "Also train on all rows, and say how near that comes to the given adapter.")
@method
@max_tokens
@recipe
@estimate
@as_json
@other_model
def counterfactual(options: Options) -> None:
    """What does the model say without these rows?

    Trains the adapter anew, with its own recipe, order and seed, without some rows and their near-duplicates; and
    beside it without as many other rows, three times. Every adapter is kept in the cache's folder, so that the same
    command goes on where it was stopped, and other questions need no new training.
    """
    from explorer.absence.asking import Training, Wanted
    from explorer.absence.kept import Shelf
    from explorer.corpus import Corpus
    from explorer.evaluation.counterfactual.absence import as_values, nearness, smallest
    from explorer.evaluation.counterfactual.removals import says
    from explorer.serving.session import base_for
    from precompute.retraining import all_but

    if options.smallest and not options.without.startswith("top:"):
        raise PromptError("--smallest shortens a ranking; give the rows as --without top:N.")
    question, chosen = question_of(options), choose(options.method)
    engine = engine_of(options)
    given = recipe_given(options)
    store, corpus = engine.store, Corpus(engine.store.examples)

    def load(adapter: Path | None) -> Any:
        return base_for(store, options.model, options.template, options.device, say, adapter)

    with Bars() as bars:
        answer = engine.answered(question, None, options.max_tokens)
        word = _word(options, engine, answer)
        named = _rows(options.without, corpus, store.manifest.rows, partial(_top, engine, chosen, answer, word, bars))
        wanted = Wanted(answer, word, tuple(named), options.draws, options.max_tokens)
        training = Training(engine, corpus, load, wanted, given)
        every = [all_but(store.manifest.rows, (), "all rows", training.absent.seed)] if options.check else []
        _announce(training.cost(*every), store.manifest.rows)
        if options.estimate:
            return
        found = training.found(bars.report)
        report = training.plain(found)
        if options.smallest and found.changed:

            def changed(count: int) -> bool:
                fewer = training.all_but(wanted.rows[:count], f"without the first {count}")
                return not says(training.said(fewer, bars.report).answer, found.text)

            report["smallest"] = as_values(smallest(len(named), changed))
        if every:
            report["check"] = nearness(found.before, training.said(every[0], bars.report))
    Shelf(store).keep(wanted, report)
    print(json.dumps(report, ensure_ascii=False, indent=1) if options.json else _text(report))


def recipe_given(options: Options) -> dict[str, Any]:
    """What the options say of the adapter's training."""
    given = {name: value for name in _RECIPE if (value := getattr(options, name)) is not None}
    if options.precision != "auto":
        given["mixed_precision"] = options.precision == "mixed"
    return given


def _word(options: Options, engine: Any, answer: Any) -> tuple[int, int]:
    """The word of the answer that is asked about, as a run of its tokens."""
    from explorer.corpus.verbatim import as_tokens, places, where
    from explorer.trust.words import words_of

    if options.word is not None:
        words = [place.word for place in places(options.word)]
        found = where(answer.text, words) if words else None
        if found is None:
            raise PromptError(f"The answer doesn't say “{options.word}”; it is “{one_line(answer.text, 200)}”.")
        return as_tokens(answer.tokens, *found)
    if options.token is not None:
        if options.token >= len(answer.tokens):
            last = len(answer.tokens) - 1
            raise PromptError(f"There is no token {options.token}; the answer has the tokens 0 to {last}.")
        return next(span for span in words_of(answer.tokens) if span[0] <= options.token < span[1])
    raised: tuple[int, int] | None = engine.raised_word(answer)
    if raised is None:
        raise PromptError("Fine-tuning raised no word of this answer; name one with --word or --token.")
    return raised


def _rows(given: str, corpus: Any, rows: int, top: Callable[[int], list[int]]) -> list[int]:
    """The rows that --without names, those of a ranking in its order."""
    from explorer.corpus import Filter

    kind, _, value = given.partition(":")
    if kind == "top" and value.isdecimal() and int(value):
        if int(value) > rows:
            raise DataError(f"--without {given} names more rows than there are; the cache has {rows:,}.")
        return top(int(value))
    if kind == "label" and value:
        column, wanted = value.split("=", 1) if "=" in value else ("source", value)
        found: list[int] = corpus.rows(Filter(((column, (wanted,)),)))
        if not found:
            raise FilterError(f"No row has {wanted} in its column {column}; `rapidin-explorer info` lists its values.")
        return found
    if kind == "rows" and value:
        found = list(dict.fromkeys(numbers(value, "--without rows:")))
        if max(found, default=0) >= rows:
            raise DataError(f"There is no row {max(found):,}; the cache has the rows 0 to {rows - 1:,}.")
        return found
    raise PromptError(f"--without takes top:N, label:VALUE, label:COLUMN=VALUE or rows:3,5,8-10, not {given}.")


def _top(engine: Any, chosen: Any, answer: Any, word: tuple[int, int], bars: Bars, count: int) -> list[int]:
    """The first rows of the word's ranking."""
    from explorer.methods.attributor import Attributor
    from explorer.methods.opening import open_method

    attributor = Attributor(open_method(engine, chosen.name, report=bars.report))
    return [found.row for found in attributor.exact_ranking(answer, word, count).influences]


def _announce(cost: Any, rows: int) -> None:
    """Say what will be trained, and how long it will take."""
    from precompute.estimate import duration

    gone = cost.rows + cost.near_duplicates
    say(
        f"left out: {gone:,} of {rows:,} rows, {cost.rows:,} of them named and {cost.near_duplicates:,} "
        f"near-duplicates; to train: {cost.left} of {cost.trainings} adapters"
        + (f", about {duration(cost.seconds)}" if cost.left else "")
    )


def _text(report: dict[str, Any]) -> str:
    """The finding for a terminal."""
    word, answers, rows = report["word"], report["answers"], report["rows"]
    lines = [report["said"], ""]
    labels = [
        "as it is",
        "without these rows",
        *(f"without others, draw {n + 1}" for n in range(len(rows["controls"]))),
    ]
    odds = [word["before"], word["without"], *word["controls"]]
    said = [answers["before"], answers["without"], *answers["controls"]]
    lines.append(f"Log-odds of “{word['text']}” in nats, and the answer:")
    lines += [f"{o:+8.2f}  {label}: {text.strip()}" for o, label, text in zip(odds, labels, said, strict=True)]
    lines += ["", f"{len(rows['named']):,} rows and {len(rows['near_duplicates']):,} near-duplicates were left out."]
    if small := report.get("smallest"):
        lines.append(f"At most {small['at_most']:,} of the first rows are needed ({small['trainings']} trainings).")
    if check := report.get("check"):
        same = "the same" if check["same_answer"] else "another"
        lines.append(
            f"Trained on all rows by this recipe, the model gives {same} answer; log-probabilities of the answer's "
            f"tokens differ from the given adapter's by {check['difference']:.3g} nats on average."
        )
    return "\n".join(lines)
