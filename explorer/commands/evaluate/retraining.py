"""`evaluate lds`, `removal` and `steps`: what scores say, beside what training on other rows, or one more step, did."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from explorer.commands.evaluate.shared import (
    asked_probes,
    compared,
    count,
    keep,
    kept,
    kept_results,
    print_kept_table,
    print_result,
)
from explorer.commands.options import COUNT, POSITIVE, RATE, Options, command, flag, option, training_precision
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
@count(None, "all")
@option("--check", "Train so many of the kept halves again and compare; measure nothing else.", type=COUNT, default=0)
@training_precision
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
    from explorer.evaluation.kinds import spaced
    from explorer.evaluation.probes import read_probes
    from precompute.retraining import again, halves, membership

    probes = read_probes(Path(options.probes))
    engine = engine_of(options)
    recipe, rows = _recipe(options, engine), engine.store.manifest.rows
    first = halves(rows, options.halves, recipe.seed)
    second = again(first[: options.again])
    with Bars() as bars:
        asked = questions_of(engine, probes, bars.report)
        trainings = _trainings(options, engine, recipe, asked)
        left = _announced(trainings, [*first, *second], engine, f"{len(asked)} questions")
        # All are asked of every training, so that it can be judged by any of them later.
        chosen = spaced(range(len(asked)), options.count)
        say(f"{len(chosen)} of the questions are judged; for each, its response and its word:")
        say("\n".join(f"  {each.name}: {each.description.costs}" for each in methods))
        if options.estimate:
            return
        if options.check:
            return _check(trainings, [part for part in first if part not in left][: options.check], bars)
        expected, repeated = (list(trainings.train(parts, bars.report)) for parts in (first, second))
        found = judge_lds(
            engine,
            [asked[number] for number in chosen],
            methods,
            membership(first, rows),
            [_of(chosen, one) for one in expected],
            [_of(chosen, one) for one in repeated],
            options.curvature_rows,
            bars.report,
        )
    settings = {"questions": Path(options.probes).name, "curvature_rows": options.curvature_rows}
    settings |= {"methods": [each.name for each in methods], "halves": len(first), "again": len(second)}
    settings |= _computed_in(recipe)
    settings["count"] = len(chosen)
    keep(options, engine.store, "lds", settings=settings, **found)


def _of(questions: list[int], expected: Any) -> tuple[list[float], list[float]]:
    """What a training expects of some of the questions' answers, and of their words."""
    return [expected.response[number] for number in questions], [expected.word[number] for number in questions]


@command(
    examples=(
        "--estimate",
        "--count 8 --shares 10 --methods rapidin,bm25",
        "--cache my-cache --probes my-probes.jsonl --shares 1,5,10",
        "--kept --json",
    )
)
@asked_probes
@count(8)
@option("--shares", "The shares of the rows to leave out, in per cent, with commas.", default="10", metavar="X[,X]")
@option("--draws", "How many times as many rows are drawn at random and left out.", type=POSITIVE, default=5)
@training_precision
@flag("--kept", "Print the result that was kept, without computing.")
@compared("rapidin,bm25")
@kept
def removal(options: Options) -> None:
    """Does a wrong word go when the rows behind it are left out?

    Trains the adapter anew without the first rows of each method, and without as many random ones, and answers the
    question again. Asks about the wrong words of `swap` probes. Trainings are kept in the cache's folder; the same
    command goes on where it was stopped.
    """
    from explorer.evaluation.counterfactual.removals import Outcome, nested, says, table

    if options.kept:
        return print_kept_table(options, "removal", nested)
    methods, shares = tuple(choose(name) for name in options.methods.split(",")), _shares(options.shares)

    from explorer.evaluation.counterfactual.questions import questions_of, scored
    from explorer.evaluation.probes import read_probes, word_span

    probes = [probe for probe in read_probes(Path(options.probes)) if probe.kind == "swap"]
    engine = engine_of(options)
    recipe, rows = _recipe(options, engine), engine.store.manifest.rows
    with Bars() as bars:
        asked = [one for one in questions_of(engine, probes, bars.report) if word_span(one.answer, one.probe.wrong)]
        chosen = list(range(min(options.count, len(asked))))
        if not chosen:
            raise DataError("No swap probe was answered with its wrong word, so there is none to make go.")
        scores, _ = scored(engine, [asked[number] for number in chosen], methods, options.curvature_rows, bars.report)
        parts = _left_out(scores["word"], rows, shares, options.draws, recipe.seed, chosen)
        every = [part for by_share in parts.values() for each in by_share.values() for part in each]
        trainings = _trainings(options, engine, recipe, asked, keep_adapters=True)
        _announced(trainings, every, engine, f"{len(chosen)} questions")
        if options.estimate:
            return
        before = [engine.predict(one.answer).said for one in asked]
        outcomes: dict[str, dict[float, list[Outcome]]] = {}
        for name, by_share in parts.items():
            for share, each in by_share.items():
                found = outcomes.setdefault(name, {}).setdefault(share, [])
                for part, after in zip(each, trainings.train(each, bars.report), strict=True):
                    for q, text in zip(part.answered, after.texts, strict=True):
                        response = float(before[q].mean()) - after.response[q]
                        word = float(before[q][slice(*asked[q].word)].mean()) - after.word[q]
                        found.append(Outcome(response, word, not says(text, asked[q].probe.wrong)))
    note = (
        f"{len(chosen)} wrong words; {options.draws} draws of random rows, shared by all of them. Losses in nats a "
        "token; changed: the share of new answers without the wrong word, with 95% intervals."
    )
    settings = {"questions": Path(options.probes).name, "curvature_rows": options.curvature_rows, "count": len(chosen)}
    settings |= {"methods": [each.name for each in methods], "shares": list(shares), "draws": options.draws}
    settings |= _computed_in(recipe)
    keep(options, engine.store, "removal", settings=settings, tables=(table(outcomes),), notes=(note,))


def _recipe(options: Options, engine: Any) -> Any:
    """How the adapter was trained, in the precision that the options name."""
    from explorer.training.recorded import recipe_of

    found = recipe_of(engine.model.adapter)
    return found if options.precision == "auto" else replace(found, mixed_precision=options.precision == "mixed")


def _computed_in(recipe: Any) -> dict[str, str]:
    """What the settings of a kept result say of trainings that didn't compute in the format of the weights."""
    return {"precision": "mixed"} if recipe.mixed_precision else {}


def _shares(given: str) -> tuple[float, ...]:
    """Shares of the rows, as --shares has them in per cent."""
    try:
        found = tuple(float(each) / 100 for each in given.split(","))
    except ValueError:
        found = (0.0,)
    if not all(0 < share < 1 for share in found):
        raise DataError(f"--shares takes numbers between 0 and 100 with commas, not {given}.")
    return found


def _left_out(scores: Any, rows: int, shares: Any, draws: int, seed: int, asked: list[int]) -> Any:
    """By method and share, the trainings without its first rows, one a question; and those without random rows."""
    from explorer.evaluation.counterfactual.removals import RANDOM
    from explorer.gradients.sketch import generator
    from precompute.retraining import without

    drawn = [generator(0, "rows left out", draw).permutation(rows).tolist() for draw in range(draws)]
    found: dict[str, dict[float, list[Any]]] = {name: {} for name in (*scores, RANDOM)}
    for share in shares:
        for name, by_question in scores.items():
            found[name][share] = [
                without(rows, share, (-each).argsort(kind="stable"), f"{name}-{q:02}-{share:g}", seed, [q])
                for q, each in zip(asked, by_question, strict=True)
            ]
        found[RANDOM][share] = [
            without(rows, share, order, f"random-{draw:02}-{share:g}", seed, asked) for draw, order in enumerate(drawn)
        ]
    return found


def _trainings(options: Options, engine: Any, recipe: Any, asked: Any, keep_adapters: bool = False) -> Any:
    """The trainings on the cache's rows, which are kept in its folder."""
    from explorer.cache.manifest import RETRAINING
    from explorer.serving.session import base_for
    from precompute.retraining import Asked, Retrained, Trainings

    def load(adapter: Path | None = None) -> Any:
        return base_for(engine.store, options.model, options.template, options.device, say, adapter)

    folder, rows = engine.store.folder / RETRAINING, [example.encoded for example in engine.store.examples]
    asked = [Asked(question.answer.encoded, question.word) for question in asked]
    kept = Retrained(folder / "adapters", load, recipe, rows, engine.model.fingerprint.base)
    return Trainings(folder, load, recipe, rows, asked, kept if keep_adapters else None)


def _announced(trainings: Any, parts: Any, engine: Any, about: str) -> Any:
    """The trainings that are left, having said how many, and how long they will take."""
    from precompute.estimate import duration
    from precompute.retraining import estimate

    left = trainings.missing(parts)
    seconds = estimate(engine.model, trainings.rows, trainings.recipe, left)
    cost = f"about {duration(seconds)}" if left else "nothing is left to train"
    say(f"{about}; {len(left)} of {len(parts)} trainings are left: {cost}")
    return left


@command(examples=("--count 12", "--cache my-cache --probes my-probes.jsonl --methods rapidin,bm25,random --top-k 5"))
@asked_probes
@count(None, "all")
@option("--top-k", "How many examples of each method a step is taken on.", type=POSITIVE, default=10)
@option("--learning-rate", "The rate of the step.", type=RATE, default=1e-4)
@compared(_METHODS)
@kept
def steps(options: Options) -> None:
    """Does a step on shown examples make the answer likelier?

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
    """The kept result of most halves and questions, or of just --count, as nested figures or as lines."""
    from explorer.evaluation.counterfactual.trainings import nested

    found = [
        each for each in kept_results(options, "lds") if options.count in (None, each.settings.get("count"))
    ] or kept_results(options, "lds")
    result = max(found, key=lambda each: (each.settings["halves"], each.settings.get("count", 0), each.made))
    print_result(options, result, nested(result, DEFAULT))
