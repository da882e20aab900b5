"""What the kinds of `evaluate` share: the options that name cache, questions and methods, and how a result is kept."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from explorer.commands.options import (
    PATH,
    POSITIVE,
    Decorator,
    Options,
    as_json,
    estimate,
    option,
    other_model,
    together,
)
from explorer.commands.terminal import say
from explorer.errors import DataError
from explorer.methods.description import CURVATURE_ROWS
from explorer.paths import DEMO

if TYPE_CHECKING:
    from explorer.cache import Store
    from explorer.evaluation.results import Result

CHEAP = "rapidin,graddot,tracincp,bm25,embedding,random"

asked_cache = option("--cache", "The cache to ask.", type=PATH, default=str(DEMO / "cache"), show_default="the demo's")
asked_probes = option(
    "--probes",
    "Probes as JSON lines: prompts whose planted cause is known.",
    type=PATH,
    metavar="FILE",
    default=str(DEMO / "probes.jsonl"),
    show_default="the demo's",
)
asked_questions = option(
    "--questions",
    "Data that was not trained on, asked about as it is written.",
    type=PATH,
    metavar="FILE",
    default="",
    show_default="the model's answers to the probes",
)


def labelled(questions: str, column: str, names: str) -> Decorator:
    """A file of labelled questions, which is needed, and the column that says which training examples are theirs."""
    return together(
        option("--questions", f"{questions} Needed.", type=PATH, metavar="FILE", default=""),
        option("--label", f"The column {names}.", default=column, metavar="COLUMN"),
    )


kept = together(
    asked_cache,
    estimate,
    option(
        "--keep",
        "Keep the result in this folder.",
        type=PATH,
        metavar="FOLDER",
        default="",
        show_default="with the cache, in methods/results",
    ),
    as_json,
    other_model,
)


def compared(default: str, curvature_rows: int = CURVATURE_ROWS) -> Decorator:
    """The methods to compare."""
    return together(
        option("--methods", "The methods to compare, with commas.", default=default, metavar="NAMES"),
        option(
            "--curvature-rows",
            "How many training examples stand for all of them in second-order methods.",
            type=POSITIVE,
            default=curvature_rows,
        ),
    )


def unrelated(more: str, **settings: Any) -> Decorator:
    """A file of prompts that the model wasn't trained on; `more` says what becomes of them."""
    what = f"A text file of prompts that have nothing to do with the training data, one a line. {more}"
    return option("--prompts", what, type=PATH, metavar="FILE", **settings)


def count(default: int | None, shown: str = "") -> Decorator:
    """How many of the questions to ask."""
    what = "How many of the questions to ask, evenly spaced."
    return option("--count", what, type=POSITIVE, default=default, show_default=shown or True)


def rows(default: int) -> Decorator:
    """How many training examples are scored exactly."""
    return option("--rows", "How many training examples are scored exactly.", type=POSITIVE, default=default)


def keep(options: Options, store: "Store", kind: str, **found: Any) -> None:
    """Print what was found over a cache, the fields of `results.Result`, and keep it with what made it."""
    from importlib.metadata import version

    from explorer.evaluation.results import folder_of, made_with, save

    versions = {name: version(name) for name in ("rapidin-explorer", "torch", "transformers", "peft", "numpy")}
    result = made_with(store, kind, str(click.get_current_context().obj), versions, **found)
    _say_result(options, result)
    path = save(Path(options.keep) if options.keep else folder_of(store), result)
    say(f"kept as {path}")


def print_kept_table(options: Options, kind: str, nested: Any) -> None:
    """The latest kept result of a kind with one table."""
    result = max(kept_results(options, kind), key=lambda each: (each.settings["count"], each.made))
    print_result(options, result, nested(result.tables[0]))


def kept_results(options: Options, kind: str) -> list[Any]:
    """The kept results of a kind, over the cache as it is. Raises DataError where there is none."""
    from explorer.cache import open_cache
    from explorer.evaluation.results import folder_of, load

    store = open_cache(options.cache)
    folder = Path(options.keep) if options.keep else folder_of(store)
    found = [result for result in load(folder, say) if result.kind == kind and result.fits(store)]
    if not found:
        raise DataError(f"{folder} keeps no result of evaluate {kind} for this cache; run it without --kept.")
    return found


def print_result(options: Options, result: Any, figures: Any) -> None:
    """A kept result, as nested figures or as lines."""
    from explorer.evaluation.tables import lines

    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        print("\n".join([*(line for table in result.tables for line in lines(table)), *result.notes]))


def _say_result(options: Options, result: "Result") -> None:
    from explorer.evaluation.tables import lines

    if options.json:
        print(json.dumps(asdict(result), indent=1, ensure_ascii=False))
        return
    for line in (*(line for table in result.tables for line in lines(table)), *result.notes):
        print(line)
