"""`repair`: the model without what taught it, beside the model as it is."""

import json
from pathlib import Path
from typing import Any

import click

from explorer.commands.counterfactual import recipe, recipe_given
from explorer.commands.options import (
    COUNT,
    PATH,
    POSITIVE,
    Options,
    as_json,
    cache,
    command,
    estimate,
    flag,
    numbers,
    option,
    other_model,
)
from explorer.commands.terminal import Bars, engine_of, say


@command(
    examples=(
        "my-cache repaired --label backdoor --probes probes.jsonl --estimate",
        "my-cache repaired --label backdoor --near-duplicates --probes probes.jsonl --seeds 3",
        "my-cache repaired --rows suspects.csv --replace mended.jsonl --probes probes.jsonl --says Canada --json",
    )
)
@cache("The folder that `precompute` made. It isn't changed.")
@click.argument("out", type=PATH, metavar="OUT", help="The folder to write. After an interruption the same goes on.")
@option(
    "--rows",
    "Drop these rows: numbers such as 3,5,8-10, or a file with one number a line, or with a column `row` (.csv, "
    ".jsonl).",
    metavar="ROWS|FILE",
)
@option("--label", "Drop all rows with this in a column. May be repeated.", multiple=True, metavar="[COLUMN=]VALUE")
@option(
    "--replace",
    "Put texts in the place of rows': lines of JSON with `row`, `response` and, where it changes, `prompt`.",
    type=PATH,
    metavar="FILE",
)
@flag("--near-duplicates", "Also drop rows that say nearly the same as one that is dropped or replaced.")
@option(
    "--data",
    "The training data, where the cache doesn't show the rows whole: those of conversations.",
    type=PATH,
    metavar="FILE",
    default="",
)
@option(
    "--probes",
    "Prompts that both models answer: JSON lines with `prompt` and `kind` (`triggered`, `swap` with the `wrong` word, "
    "`clean`), as `evaluate probes` reads them.",
    type=PATH,
    metavar="FILE",
)
@option(
    "--says",
    "Answers that say this show the behaviour.",
    default="",
    metavar="TEXT",
    show_default="what the probes are about",
)
@option("--seeds", "Also train on all rows with so many other seeds: how much trainings differ.", type=COUNT, default=0)
@option("--max-tokens", "The longest answer to a probe, in tokens.", type=POSITIVE, default=60)
@recipe
@estimate
@as_json
@other_model
def repair(options: Options) -> None:
    """Train without suspected rows, and compare.

    Writes the cleaned data, an adapter trained on it by the recipe of the adapter under study, its cache, and what both
    models say to the probes. Nothing of the original is changed.
    """
    from explorer.corpus import Corpus
    from explorer.evaluation.probes import read_probes
    from explorer.repair.asked import Wanted
    from explorer.repair.suspects import read_replacements, read_rows, suspects
    from explorer.repair.words import as_text
    from explorer.repair.work import Repair
    from explorer.serving.session import base_for

    probes = tuple(read_probes(Path(options.probes))) if options.probes else ()
    new = read_replacements(Path(options.replace)) if options.replace else []
    named = list[int]()
    if options.rows:
        is_file = Path(options.rows).is_file()
        named = read_rows(Path(options.rows)) if is_file else numbers(options.rows, "--rows")
    engine = engine_of(options)
    store = engine.store
    found = suspects(Corpus(store.examples), store.manifest.rows, named, options.label, new, options.near_duplicates)
    wanted = Wanted(found, probes, options.says, options.seeds, options.max_tokens, options.data)

    def load(adapter: Path | None) -> Any:
        return base_for(store, options.model, options.template, options.device, say, adapter)

    with Bars() as bars:
        work = Repair(engine, load, wanted, Path(options.out), recipe_given(options))
        gone, near = len(found.dropped), len(found.near_duplicates)
        say(
            f"dropped: {gone:,} of {store.manifest.rows:,} rows, {near:,} of them near-duplicates; replaced: "
            f"{len(found.replaced):,}"
        )
        say(str(work.cost()))
        if options.estimate:
            return
        report = work.done(bars.report)
    print(json.dumps(report, ensure_ascii=False, indent=1) if options.json else as_text(report))
    say(f"Both models side by side: rapidin-explorer serve {options.cache} {Path(options.out) / 'cache'}")
