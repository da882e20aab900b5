"""`info`, `verify`, `mend`, `append` and `drop`: what is done with a cache that is there."""

import json
from pathlib import Path
from typing import Any

import click

from explorer.commands.options import (
    PATH,
    Exclusive,
    Options,
    Several,
    as_json,
    cache,
    command,
    estimate,
    numbers,
    option,
    other_model,
    reading,
    token_count,
    training_data,
)
from explorer.commands.terminal import Bars, announcer, reading_of, say, say_all
from explorer.errors import Cancelled


@command(examples=("my-cache", "my-cache --json"))
@cache()
@as_json
def info(options: Options) -> None:
    """Say what a cache holds and how it was made."""
    from explorer.cache import cache_report, open_cache

    report = cache_report(open_cache(options.cache))
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print("\n".join(f"{name.replace('_', ' '):22} {value}" for name, value in report.items()))


@command(examples=("my-cache",))
@cache()
def verify(options: Options) -> int:
    """Check every file of a cache against its checksum.

    The exit status is 2 where a file is damaged or missing.
    """
    from explorer.cache.verify import verify

    problems = verify(Path(options.cache))
    for problem in problems:
        print(problem)
    if any(problem.harmful for problem in problems):
        return 2
    print("Every file is as its manifest says.")
    return 0


@command(examples=("my-cache", "my-cache --data my.jsonl more.jsonl"))
@cache()
@option(
    "--data",
    "All files of training data that came into the cache, in their order. Needed only when the table of examples is "
    "damaged.",
    type=PATH,
    metavar="FILE",
    cls=Several,
)
@reading
@other_model
def mend(options: Options) -> None:
    """Make the damaged files of a cache anew, and nothing else."""
    from explorer.serving.session import model_for
    from precompute.data import Review, read_examples
    from precompute.mend import mend_cache

    def model(store: Any) -> Any:
        return model_for(store, options.model, options.adapter, options.template, options.device, say)

    with Bars() as bars:
        reviews = [Review(each, skip=options.skip_bad) for each in options.data]
        data = [(read_examples(each.source, reading_of(options), each), each) for each in reviews]
        lines = mend_cache(Path(options.cache), model, data, bars.report)
    say_all(line for each in reviews for line in each.lines())
    say("\n".join(lines or ["There is nothing to mend."]))


@command(examples=("my-cache --data more.jsonl --estimate", "my-cache --data more.jsonl"))
@cache("The folder that `precompute` made. After an interruption the same command finishes the work.")
@training_data
@estimate
@option(
    "--tokens",
    "Which of the new examples get a random projection of each response token's gradient.",
    metavar="all|none|N",
    show_default="all where all other examples have them, else none",
)
@other_model
def append(options: Options) -> None:
    """Append training data to a finished cache."""
    from explorer.cache import open_cache
    from explorer.serving.session import model_for
    from precompute.build import append_examples
    from precompute.data import Review, read_examples, readable

    review, folder = Review(options.data, skip=options.skip_bad), Path(options.cache)
    examples = read_examples(options.data, reading_of(options), review)
    store = open_cache(folder)
    store.require_complete()
    every = "all" if store.manifest.token_rows == store.manifest.rows else "none"
    _say_abandoned(folder, Path(options.data).name)
    model = model_for(store, options.model, options.adapter, options.template, options.device, say)
    examples, encoded = readable(model, examples, review, store.manifest.counting)
    say_all(review.lines())
    tokens = token_count(options.tokens or every, len(examples))
    with Bars() as bars:
        try:
            announce, name = announcer(options.estimate), Path(options.data).name
            grown = append_examples(model, examples, folder, tokens, name, bars.report, announce, encoded)
        except Cancelled as stopped:
            return say(str(stopped))
    if grown.manifest == store.manifest:
        return say(f"{options.cache} holds that data already; nothing was changed.")
    say(f"{options.cache} now holds {grown.manifest.rows:,} examples, {len(examples):,} of them new.")


@command(examples=("my-cache --rows 3,5,8-10", "my-cache --source web"))
@cache()
@option(
    "--rows",
    "The ids of the examples: the row, from 0, that each had in all data that came into the cache. Ids never change: "
    "the same command again drops nothing more.",
    metavar="3,5,8-10",
)
@option(
    "--source",
    "All examples with this value in their `source` column.",
    metavar="VALUE",
    cls=Exclusive,
    excluded_by="--rows",
)
def drop(options: Options) -> None:
    """Drop training examples from a cache."""
    from explorer.cache import drop

    if options.rows is None and options.source is None:
        raise click.UsageError("One of --rows and --source is needed.", click.get_current_context())
    folder = Path(options.cache)
    _say_abandoned(folder)
    gone = drop(folder, () if options.rows is None else numbers(options.rows, "--rows"), options.source)
    say(f"{gone:,} examples were dropped." if gone else "There is no such example (any more); nothing was changed.")


def _say_abandoned(folder: Path, data: str = "") -> None:
    from explorer.cache import open_cache
    from explorer.cache.generations import pending

    unfinished = pending(open_cache(folder))
    if unfinished and unfinished.manifest.parts[-1].name != data:
        say(f"The unfinished append of {unfinished.manifest.parts[-1].name} is given up.")
