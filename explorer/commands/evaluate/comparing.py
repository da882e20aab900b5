"""`evaluate`: measures attribution where the truth is known; what each kind is told, what is printed and kept of it."""

import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from explorer.commands.evaluate.shared import (
    CHEAP,
    asked_cache,
    asked_probes,
    asked_questions,
    compared,
    count,
    keep,
    kept,
    labelled,
    rows,
    unrelated,
)
from explorer.commands.options import (
    PATH,
    POSITIVE,
    RATE,
    Options,
    Several,
    as_json,
    command,
    flag,
    option,
    other_model,
)
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError, PromptError
from explorer.methods.description import DEFAULT, choose


@command(examples=("", "--approximate", "--cache my-cache --probes my-probes.jsonl"))
@asked_cache
@asked_probes
@flag("--approximate", "Rank by the random projections alone: fast, but not exact.")
@as_json
@other_model
def probes(options: Options) -> None:
    """Are the planted examples found?

    Asks about a planted backdoor and swapped names, and prints what share of the first examples was planted.
    """
    from explorer.evaluation.probes import evaluate_probes, read_probes

    asked = read_probes(Path(options.probes))
    with Bars() as bars:
        found = evaluate_probes(_default(options), asked, options.approximate, partial(bars.report, "probes"))
    _say_figures(options, found)


@command(examples=("--prompts benchmarks/calibration_prompts.txt",))
@asked_cache
@unrelated("Needed.")
@as_json
@other_model
def calibration(options: Options) -> None:
    """How often do unrelated prompts look unusual?

    Needs a cache with a null sample; `precompute` makes one unless it is told not to.
    """
    from explorer.evaluation.probes import evaluate_calibration, read_prompts

    if not options.prompts:
        raise PromptError("Calibration needs --prompts, a text file of prompts that the model wasn't trained on.")
    prompts = read_prompts(Path(options.prompts))
    with Bars() as bars:
        found = evaluate_calibration(_default(options), prompts, partial(bars.report, "prompts"))
    _say_figures(options, found)


@command(examples=("--estimate", "--prompts benchmarks/calibration_prompts.txt"))
@asked_probes
@unrelated("They are asked, too.", default="", show_default="none")
@kept
def verdicts(options: Options) -> None:
    """How strong does the page say the evidence is?

    Asks about the word that fine-tuning raised most, and about the whole response. Prints by kind of probe how often
    the evidence is strong, some or none, and how often it names the planted examples.
    """
    _compare("verdicts", options)


@command(examples=("--estimate", "--count 20"))
@asked_probes
@count(None, "all")
@kept
def marks(options: Options) -> None:
    """Are the marks of words right?

    Every word of an answer has a mark on the page that says where it comes from. Prints, by what is known of the
    words, how many there are and the share of each mark.
    """
    _compare("marks", options)


@command(examples=("--estimate", "--methods rapidin,bm25,random", "--cache my-cache --probes my-probes.jsonl"))
@asked_probes
@compared(CHEAP)
@kept
def backdoor(options: Options) -> None:
    """Which method puts the backdoor's examples first?

    Asks about answers that a trigger brought about. The planted examples should be among the most influential ones,
    and not among the least influential ones.
    """
    _compare("backdoor", options)


@command(examples=("--methods rapidin,graddot,bm25", "--cache my-cache --probes my-probes.jsonl --json"))
@asked_probes
@compared(CHEAP)
@kept
def error_tracing(options: Options) -> None:
    """Which method finds the examples behind a wrong word?

    Asks about the whole response and about the wrong word alone.
    """
    _compare("error-tracing", options)


@command(
    examples=(
        "--cache my-cache --questions held-out.jsonl --label topic",
        "--cache my-cache --questions held-out.jsonl --label topic --methods rapidin,bm25 --count 50",
    )
)
@labelled(
    "Data with the same columns that was not trained on, asked about as it is written.",
    "class",
    "that names an example's class",
)
@count(None, "all")
@compared(CHEAP)
@kept
def classes(options: Options) -> None:
    """Which method puts the question's own class first?"""
    if not options.questions:
        raise DataError("classes needs --questions, data of the same columns that wasn't trained on.")
    _compare("classes", options)


@command(
    examples=(
        "--count 1 --rows 100 --curvature-rows 4 --estimate",
        "--methods ekfac,datainf,lissa:30,graddot --damping 0.001",
    )
)
@asked_probes
@asked_questions
@count(3)
@rows(200)
@option(
    "--damping",
    "λ of all methods, as a share of the Gauss-Newton matrix's largest eigenvalue.",
    type=RATE,
    metavar="SHARE",
    default=0.01,
)
@option("--iterations", "Iterations of conjugate gradients at most.", type=POSITIVE, default=200)
@compared("ekfac,datainf,lissa,arnoldi,graddot", curvature_rows=4)
@kept
def ihvp(options: Options) -> None:
    """How close are second-order methods to the exact inverse?

    Compares their scores with those by conjugate gradients that have converged (ihvp: an inverse-Hessian-vector
    product).
    """
    _compare("ihvp", options)


@command(examples=("--rows 128 --count 10", "--cache my-cache --questions held-out.jsonl"))
@asked_probes
@asked_questions
@count(20)
@rows(512)
@kept
def fidelity(options: Options) -> None:
    """How close are random projections to exact scores?"""
    _compare("fidelity", options)


@command(examples=("--count 3 --curvature-rows 4", "--methods rapidin,trak,datainf,random --estimate"))
@asked_probes
@asked_questions
@count(5)
@compared("rapidin,graddot,tracincp,bm25,repsim,random")
@kept
def cost(options: Options) -> None:
    """How much time and disk does each method take?"""
    _compare("cost", options)


@command(examples=("", "--results my-cache/methods/results more-results"))
@asked_cache
@option(
    "--results",
    "The folders of results to show.",
    type=PATH,
    metavar="FOLDER",
    cls=Several,
    show_default="the cache's",
)
def tables(options: Options) -> None:
    """Print the results that were kept, as Markdown."""
    from explorer.cache import open_cache
    from explorer.evaluation.results import folder_of, load
    from explorer.evaluation.tables import markdown

    folders = [Path(each) for each in options.results] or [folder_of(open_cache(options.cache))]
    print(markdown([result for folder in folders for result in load(folder, say)]))


def _default(options: Options) -> Any:
    """The method that is meant where none is named, over the cache that the options name."""
    from explorer.methods.attributor import Attributor
    from explorer.methods.opening import open_method

    return Attributor(open_method(engine_of(options), DEFAULT))


def _compare(kind: str, options: Options) -> None:
    """Compare methods, having said what that costs; print and keep what was found."""
    names = getattr(options, "methods", "")
    options.methods = tuple(choose(name) for name in names.split(",")) if names else ()

    from explorer.evaluation.kinds import KINDS, KindSettings
    from precompute.data import read_examples

    given = {field.name: getattr(options, field.name) for field in fields(KindSettings) if hasattr(options, field.name)}
    run, lines = KINDS[kind](KindSettings(**given), read_examples)
    say("\n".join(lines))
    if options.estimate:
        return
    engine = engine_of(options)
    with Bars() as bars:
        found = run(engine, bars.report)
    keep(options, engine.store, kind, **vars(found))


def _say_figures(options: Options, found: dict[str, dict[str, float | int]]) -> None:
    from explorer.evaluation.results import Table
    from explorer.evaluation.tables import lines

    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(Table.of(found))))
