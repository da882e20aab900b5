"""`evaluate lds` and `steps`: what scores say, beside what training on other rows, or one more step, did."""

import json
from pathlib import Path
from typing import Any

from explorer.commands.evaluate.shared import asked_probes, compared, count, keep, kept
from explorer.commands.options import COUNT, POSITIVE, RATE, Options, command, flag, option
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError
from explorer.methods.description import DEFAULT, choose

_METHODS = "rapidin,rapidin-centred,gradcos,graddot,repsim,embedding,bm25,random"


@command(
    examples=(
        "--estimate",
        "--halves 40 --again 8",
        "--cache my-cache --probes my-probes.jsonl --halves 20 --methods rapidin,bm25,random",
        "--kept --json",
    )
)
@asked_probes
@option("--halves", "How many random halves of the training data are trained on.", type=POSITIVE, default=40)
@option(
    "--again",
    "How many of them are trained again with another seed, which tells how much a training depends on chance.",
    type=COUNT,
    default=8,
)
@option("--check", "Train so many of the kept halves again and compare; measure nothing else.", type=COUNT, default=0)
@flag("--kept", "Print the result that was kept, without computing.")
@compared(_METHODS)
@kept
def lds(options: Options) -> None:
    """Do scores foretell what training on other rows would do?

    Trains the adapter anew on random halves of its data, as its record says, and asks how well the scores of a half's
    rows foretell the probability of an answer after that training: Spearman's correlation over the halves (linear
    datamodeling score). Trainings are kept in the cache's folder; the same command goes on where it was stopped.
    """
    if options.kept:
        return _print_kept(options)
    methods = tuple(choose(name) for name in options.methods.split(","))

    from explorer.evaluation.counterfactual.questions import questions_of
    from explorer.evaluation.counterfactual.trainings import judge_lds
    from explorer.evaluation.probes import read_probes
    from explorer.serving.session import base_for
    from precompute.retraining import FOLDER, Asked, Trainings, again, halves, membership, recipe_of

    probes = read_probes(Path(options.probes))
    engine = engine_of(options)
    recipe = recipe_of(engine.model.adapter)
    rows = [example.encoded for example in engine.store.examples]
    first = halves(len(rows), options.halves, recipe.seed)
    second = again(first[: options.again])
    with Bars() as bars:
        asked = questions_of(engine, probes, bars.report)
        trainings = Trainings(
            engine.store.folder / FOLDER,
            lambda: base_for(engine.store, options.model, options.template, options.device, say),
            recipe,
            rows,
            [Asked(question.answer.encoded, question.word) for question in asked],
        )
        left = trainings.missing([*first, *second])
        say(
            f"{len(asked)} questions; {len(left)} of {len(first) + len(second)} trainings are left, each on "
            f"{len(rows) // 2:,} rows, {recipe.epochs} times: {trainings.estimate(left, engine.model)}"
        )
        if options.estimate:
            return
        if options.check:
            return _check(trainings, [part for part in first if part not in left][: options.check], bars)
        expected, repeated = (list(trainings.train(parts, bars.report)) for parts in (first, second))
        found = judge_lds(
            engine,
            asked,
            methods,
            membership(first, len(rows)),
            [(one.response, one.word) for one in expected],
            [(one.response, one.word) for one in repeated],
            options.curvature_rows,
            bars.report,
        )
    settings = {"questions": Path(options.probes).name, "curvature_rows": options.curvature_rows}
    settings |= {"methods": [each.name for each in methods], "halves": len(first), "again": len(second)}
    keep(options, engine.store, "lds", settings=settings, **found)


@command(examples=("--count 12", "--cache my-cache --probes my-probes.jsonl --methods rapidin,bm25,random --top-k 5"))
@asked_probes
@count(None, "all")
@option("--top-k", "How many examples of each method a step is taken on.", type=POSITIVE, default=10)
@option("--learning-rate", "The rate of the step.", type=RATE, default=1e-4)
@compared(_METHODS)
@kept
def steps(options: Options) -> None:
    """Does a step on the shown examples make the answer likelier?

    Takes one optimiser step on each of the first examples of every method, from the model as it is, and compares the
    answer's probability before and after ("tail-patch"). Nothing is trained from the beginning.
    """
    methods = tuple(choose(name) for name in options.methods.split(","))

    from explorer.evaluation.counterfactual.questions import questions_of
    from explorer.evaluation.counterfactual.steps import judge_steps
    from explorer.evaluation.kinds import spaced
    from explorer.evaluation.probes import read_probes

    probes = spaced(read_probes(Path(options.probes)), options.count)
    passes = len(probes) * len(methods) * 2 * options.top_k
    say(
        f"{len(probes)} questions: an answer each; {passes:,} steps and as many forward passes at most, fewer where "
        "methods show the same examples; and for each question:"
    )
    say("\n".join(f"  {each.name}: {each.description.costs}" for each in methods))
    if options.estimate:
        return
    engine = engine_of(options)
    with Bars() as bars:
        asked = questions_of(engine, probes, bars.report)
        found = judge_steps(
            engine, asked, methods, options.top_k, options.learning_rate, options.curvature_rows, bars.report
        )
    settings = {"questions": Path(options.probes).name, "count": len(asked), "curvature_rows": options.curvature_rows}
    settings |= {"methods": [each.name for each in methods], "top_k": options.top_k, "rate": options.learning_rate}
    keep(options, engine.store, "steps", settings=settings, **found)


def _check(trainings: Any, parts: Any, bars: Any) -> None:
    """Train kept halves again, and say how far what they expect differs."""
    if not parts:
        raise DataError("No half was trained yet, so there is none to check; run the same command without --check.")
    worst = 0.0
    for part in parts:
        before, now = trainings.known(part), trainings.trained_again(part, bars.report)
        pairs = zip((*before.response, *before.word), (*now.response, *now.word), strict=True)
        worst = max(worst, *(abs(one - other) for one, other in pairs))
    print(f"{len(parts)} trainings again: log-probabilities differ by {worst:.2g} nats at most")


def _print_kept(options: Options) -> None:
    """The kept result of most halves, as nested figures or as lines."""
    from explorer.cache import open_cache
    from explorer.evaluation.counterfactual.trainings import nested
    from explorer.evaluation.results import folder_of, load
    from explorer.evaluation.tables import lines

    store = open_cache(options.cache)
    folder = Path(options.keep) if options.keep else folder_of(store)
    found = [result for result in load(folder, say) if result.kind == "lds" and result.fits(store)]
    if not found:
        raise DataError(f"{folder} keeps no result of evaluate lds for this cache; run it without --kept.")
    result = max(found, key=lambda each: (each.settings["halves"], each.made))
    if options.json:
        print(json.dumps(nested(result, DEFAULT), indent=1))
    else:
        print("\n".join([*(line for table in result.tables for line in lines(table)), *result.notes]))
