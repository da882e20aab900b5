"""`rapidin-explorer evaluate`: its options, what each kind will cost, what it finds, and where that is kept."""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from explorer.commands.terminal import Bars, engine_of, other_model, positive, rate, say
from explorer.errors import PromptError
from explorer.evaluation.kinds import KINDS, Read
from explorer.evaluation.results import Result, Table, folder_of, load, made_with, save
from explorer.evaluation.tables import markdown
from explorer.methods.description import CURVATURE_ROWS, DEFAULT, choose
from explorer.paths import DEMO

_LITTLE = "rapidin,graddot,tracincp,bm25,embedding,random"
_METHODS = {
    "backdoor": _LITTLE,
    "error-tracing": _LITTLE,
    "classes": _LITTLE,
    "ihvp": "ekfac,datainf,lissa,arnoldi,graddot",
    "fidelity": "",
    "cost": "rapidin,graddot,tracincp,bm25,repsim,random",
}
"""The methods that each kind compares if it isn't told others: some that cost little."""
_FEW = 4
"""So many curvature rows, each of which every Gauss-Newton product costs five passes, are enough for `ihvp`."""


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    command.add_argument(
        "kind",
        choices=["probes", "calibration", *_METHODS, "tables"],
        help="probes: planted backdoor and swapped entities; calibration: how often unrelated prompts look unusual; "
        "by --methods beside each other: backdoor: planted rows at both ends of the ranking; error-tracing: planted "
        "rows behind a wrong word; classes: rows of the question's own class; ihvp: second-order methods against "
        "converged conjugate gradients; fidelity: sketches against exact values; cost: time and disk. tables: what "
        "was kept of these, in Markdown",
    )
    command.add_argument("--cache", default=str(DEMO / "cache"), help="cache to ask (default: the demo's)")
    command.add_argument("--probes", default=str(DEMO / "probes.jsonl"), help="JSON lines of probes (the demo's)")
    command.add_argument("--prompts", default="", help="for calibration: a text file of unrelated prompts, one a line")
    command.add_argument("--approximate", action="store_true", help="for probes: rank by the sketches alone")
    command.add_argument(
        "--methods",
        default="",
        metavar="NAMES",
        help="methods to judge, with commas; see `rapidin-explorer methods` (some that cost little)",
    )
    command.add_argument(
        "--curvature-rows",
        type=positive,
        metavar="N",
        help=f"training rows that stand for all of them in second-order methods ({CURVATURE_ROWS}; ihvp: {_FEW})",
    )
    command.add_argument(
        "--questions",
        default="",
        metavar="FILE",
        help="data that wasn't trained on, asked about as it is written: for classes; ihvp, fidelity and cost take "
        "answers to the probes without it",
    )
    command.add_argument("--label", default="class", metavar="COLUMN", help="for classes: the column with it (class)")
    command.add_argument(
        "--count", type=positive, metavar="N", help="so many questions, evenly spaced (ihvp: 3, fidelity: 20, cost: 5)"
    )
    command.add_argument(
        "--rows", type=positive, metavar="N", help="training rows with exact scores (ihvp: 200, fidelity: 512)"
    )
    command.add_argument(
        "--damping",
        type=rate,
        default=0.01,
        metavar="SHARE",
        help="for ihvp: λ of all methods, as a share of the Gauss-Newton matrix's largest eigenvalue (0.01)",
    )
    command.add_argument(
        "--iterations", type=positive, default=200, metavar="N", help="for ihvp: of conjugate gradients at most (200)"
    )
    command.add_argument("--estimate", action="store_true", help="of --methods: say what it will cost, and no more")
    command.add_argument(
        "--keep", default="", metavar="FOLDER", help="keep the result there (default: with the cache, methods/results)"
    )
    command.add_argument(
        "--results", nargs="+", default=[], metavar="FOLDER", help="for tables: of these (default: the cache's)"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object")
    other_model(command)


def evaluate(options: argparse.Namespace, read: Read) -> None:
    """Measure, print, and keep what compares methods."""
    if options.kind == "tables":
        _say_tables(options)
    elif options.kind in _METHODS:
        _compare(options, read)
    else:
        _probe(options)


def _say_tables(options: argparse.Namespace) -> None:
    from explorer.cache import open_cache

    folders = [Path(each) for each in options.results] or [folder_of(open_cache(options.cache))]
    print(markdown([result for folder in folders for result in load(folder, say)]))


def _probe(options: argparse.Namespace) -> None:
    from explorer.evaluation.probes import evaluate_calibration, evaluate_probes, read_probes, read_prompts

    with Bars() as bars:
        if options.kind == "probes":
            probes = read_probes(Path(options.probes))
            report = partial(bars.report, "probes")
            found = evaluate_probes(_default(options), probes, options.approximate, report)
        elif not options.prompts:
            raise PromptError("Calibration needs --prompts, a text file of prompts that the model wasn't trained on.")
        else:
            prompts = read_prompts(Path(options.prompts))
            found = evaluate_calibration(_default(options), prompts, partial(bars.report, "prompts"))
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        _print(Table.of(found))


def _default(options: argparse.Namespace) -> Any:
    """The method that is meant where none is named, over the cache that the options name."""
    from explorer.methods.attributor import Attributor
    from explorer.methods.opening import open_method

    return Attributor(open_method(engine_of(options), DEFAULT))


def _compare(options: argparse.Namespace, read: Read) -> None:
    """Compare methods, having said what that costs."""
    options.curvature_rows = options.curvature_rows or (_FEW if options.kind == "ihvp" else CURVATURE_ROWS)
    names = options.methods or _METHODS[options.kind]
    chosen = [choose(name) for name in names.split(",")] if names else []
    run, lines = KINDS[options.kind](options, read, chosen)
    for line in lines:
        say(line)
    if options.estimate:
        return
    engine = engine_of(options)
    with Bars() as bars:
        found = run(engine, bars)
    from importlib.metadata import version

    versions = {name: version(name) for name in ("rapidin-explorer", "torch", "transformers", "peft", "numpy")}
    store = engine.store
    result = made_with(store, options.kind, options.command, versions, **vars(found))
    _say_result(options, result)
    path = save(Path(options.keep) if options.keep else folder_of(store), result)
    say(f"kept as {path}")


def _say_result(options: argparse.Namespace, result: Result) -> None:
    if options.json:
        print(json.dumps(asdict(result), indent=1, ensure_ascii=False))
        return
    for table in result.tables:
        _print(table)
    for line in result.notes:
        print(line)


def _print(table: Table) -> None:
    for name, *values in table.rows:
        for column, value in zip(table.columns[1:], values, strict=True):
            if value is not None:
                shown = f"{value:.4g}" if isinstance(value, float) else value
                print(f"{f'{name}.{column}':32} {shown}")
