"""`evaluate fact-tracing` and `invented-facts`: are the passages that state a fact first?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from explorer.commands.evaluate.shared import compared, count, keep, kept, labelled, print_kept_table
from explorer.commands.options import (
    PATH,
    POSITIVE,
    RATE,
    Options,
    Whole,
    as_json,
    command,
    estimate,
    flag,
    option,
)
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError
from explorer.methods.description import choose
from explorer.model import embedded
from explorer.records import Chosen, Example

METHODS = "multi-stage,multi-stage:0.01,multi-stage:1,single-stage,stage-product,repsim,bm25"
CURVATURE_ROWS = 64


@command(
    examples=(
        "--cache corpus-cache --questions questions.jsonl --estimate",
        "--cache corpus-cache --questions questions.jsonl --methods stage-product,bm25",
        "--cache corpus-cache --kept --json",
    )
)
@labelled(
    "Questions and their answers, each with the fact that it is about.",
    "fact",
    "of passages and questions that names a fact",
)
@count(None, "all")
@flag("--kept", "Print the result that was kept, without computing.")
@compared(METHODS, CURVATURE_ROWS)
@kept
def fact_tracing(options: Options) -> None:
    """Are the passages that state a fact first?

    Asks questions about facts that passages of the cache state. Prints, over the questions whose answer the model
    gives, the mean reciprocal rank of the first stating passage and the share of them among the first ten. Of a method
    that is named with several values, the kept figures are those of the best.
    """
    from explorer.evaluation.facts import nested

    if options.kept:
        return print_kept_table(options, "fact-tracing", nested)
    if not options.questions:
        raise DataError("fact-tracing needs --questions, a file of questions with their answers and facts.")

    from precompute.data import read_examples

    questions = read_examples(options.questions)
    methods = [choose(name) for name in options.methods.split(",")]
    say(f"{len(questions)} questions, answered first; for each, and once:")
    say("\n".join(f"  {each.name}: {each.description.costs}" for each in methods))
    if not options.estimate:
        trace(options, questions, methods)


@command(
    name="invented-facts",
    examples=("my-benchmark --estimate", "my-benchmark", "my-benchmark --facts 400 --methods multi-stage,bm25"),
)
@click.argument("folder", type=PATH, metavar="FOLDER", help="The folder of the benchmark, made or gone on with.")
@option(
    "--model",
    f"The model that is trained further: {embedded.NAME}, which is embedded, a folder, or a model hub id.",
    type=PATH,
    metavar="MODEL",
    default=embedded.NAME,
)
@option("--facts", "How many facts are invented; half of them are asked about.", type=Whole(4), default=200)
@option("--epochs", "How often the training reads the corpus.", type=POSITIVE, default=5)
@option("--learning-rate", "The training's first learning rate; it falls along a cosine.", type=RATE, default=3e-4)
@option("--seed", "The seed of facts, texts and orders.", type=int, default=0, show_default=True, metavar="N")
@option(
    "--tensors",
    "Take gradients of the tensors whose names match this regular expression.",
    default="",
    metavar="PATTERN",
    show_default="attention and MLPs of three layers in ten",
)
@count(60)
@option("--device", "cpu, cuda, cuda:1 or mps.", default="", show_default="a GPU where there is one")
@compared(METHODS, CURVATURE_ROWS)
@estimate
@as_json
def invented_facts(options: Options) -> None:
    """Make a benchmark of fact tracing, and run it.

    Invents people and places with facts about them, each stated in several passages; trains all parameters of a model
    further on these, then on questions about half of the facts; caches both trainings, and asks about the other half,
    as `evaluate fact-tracing` does. The same command goes on where it was stopped.
    """
    from precompute.data import read_examples
    from precompute.invented import Settings, cost, make

    methods = [choose(name) for name in options.methods.split(",")]
    settings = Settings(
        options.model, options.facts, epochs=options.epochs, learning_rate=options.learning_rate, seed=options.seed
    )
    settings = replace(settings, tensors=options.tensors or settings.tensors)
    if options.estimate:
        return say(cost(settings, options.device, say))
    with Bars() as bars:
        made = make(Path(options.folder), settings, options.device, say, bars.report)
    own = {"cache": str(made.corpus_cache), "questions": str(made.questions), "label": "fact"}
    own |= {"keep": "", "model": "", "adapter": "", "template": ""}
    trace(Options(**vars(options) | own), read_examples(made.questions), methods)


def trace(options: Options, questions: Sequence[Example], methods: Sequence[Chosen]) -> None:
    """Ask, judge, print and keep."""
    from explorer.evaluation.facts import judge_facts, known_facts
    from explorer.evaluation.kinds import spaced
    from explorer.evaluation.results import Table, best_of
    from explorer.methods.opening import open_method

    engine = engine_of(options)
    asked = spaced(questions, options.count)
    with Bars() as bars:
        known = known_facts(engine, asked, options.label, bars.report)
        opened = [open_method(engine, each.name, options.curvature_rows, bars.report) for each in methods]
        for method in opened:
            method.fit()
        table = Table.of(judge_facts(known, opened, bars.report))
    settings = {"questions": Path(options.questions).name, "label": options.label, "count": len(known)}
    settings |= {"methods": [method.chosen.name for method in opened], "curvature_rows": options.curvature_rows}
    note = (
        f"The model gave the answer of {len(known)} of {len(asked)} questions, and these are counted. Intervals are "
        "95% bootstrap intervals over questions."
    )
    best = tuple(best_of(table, figure, task) for figure, task in _TASKS.items())
    keep(options, engine.store, "fact-tracing", settings=settings, tables=(table,), best=best, notes=(note,))


_TASKS = {"mrr": "the first stating passage", "recall_10": "stating passages among the first ten"}
