"""`evaluate fact-tracing`: are the passages that state a fact first?"""

from collections.abc import Sequence
from pathlib import Path

from explorer.commands.evaluate.shared import compared, count, keep, kept, print_kept_table
from explorer.commands.options import PATH, Options, command, flag, option
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError
from explorer.methods.description import choose
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
@option(
    "--questions",
    "Questions and their answers, each with the fact that it is about. Needed.",
    type=PATH,
    metavar="FILE",
    default="",
)
@option("--label", "The column of passages and questions that names a fact.", default="fact", metavar="COLUMN")
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
