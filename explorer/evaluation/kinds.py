"""The kinds of `evaluate` that compare methods: what each will cost, and the work itself.

A kind reads what it needs, and says what it will cost, before any model is loaded.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from explorer.commands.terminal import Bars
from explorer.errors import DataError
from explorer.evaluation.results import Best, Table, best_of
from explorer.records import Answer, Chosen, Example

_COUNTS = {"ihvp": 3, "fidelity": 20, "cost": 5}
"""How many questions a kind asks if it isn't told."""
_ROWS = {"ihvp": 200, "fidelity": 512}
"""How many training rows are scored exactly."""
_MAX_TOKENS = 60

Read = Callable[[str], list[Example]]
"""Reads a file of data."""


@dataclass(frozen=True)
class Found:
    """What an evaluation of methods found: fields of `results.Result`."""

    tables: tuple[Table, ...]
    settings: dict[str, Any]
    best: tuple[Best, ...] = ()
    notes: tuple[str, ...] = ()


Run = Callable[[Any, Bars], Found]
"""Takes the engine."""
Kind = Callable[[argparse.Namespace, Read, Sequence[Chosen]], tuple[Run, list[str]]]
"""Takes the options of `evaluate`; gives the work to be done, and lines that say what it will cost."""


def _judged(options: argparse.Namespace, read: Read, chosen: Sequence[Chosen]) -> tuple[Run, list[str]]:
    """Backdoor, error-tracing and classes."""
    from explorer.evaluation.probes import read_probes

    kind, classes = options.kind, options.kind == "classes"
    if classes and not options.questions:
        raise DataError("classes needs --questions, data of the same columns that wasn't trained on.")
    asked = {"backdoor": "triggered", "error-tracing": "swap"}.get(kind)
    questions = _spaced(read(options.questions), options.count) if classes else []
    probes = [] if classes else [probe for probe in read_probes(Path(options.probes)) if probe.kind == asked]
    count = f"{len(questions)} questions" if classes else f"{len(probes)} answers, generated first"
    twice = "; asked twice, of response and word" if asked == "swap" else ""
    lines = [f"{count}{twice}; for each of them:", *(f"  {each.name}: {each.description.costs}" for each in chosen)]

    def run(engine: Any, bars: Bars) -> Found:
        from explorer.evaluation import judging

        methods = _opened(engine, chosen, options, bars)
        report = partial(bars.report, kind)
        if classes:
            found = judging.judge_classes(engine, questions, options.label, methods, report)
        else:
            judge = judging.judge_error_tracing if asked == "swap" else judging.judge_backdoor
            found = judge(engine, probes, methods, report)
        if not found:
            raise DataError(f"No probe of {options.probes} could be judged: none is {asked} and was answered so.")
        settings = _settings(options, chosen) | ({"label": options.label, "count": len(questions)} if classes else {})
        table = Table.of(found)
        return Found((table,), settings, _best(table, chosen))

    return run, lines


def _best(table: Table, chosen: Sequence[Chosen]) -> tuple[Best, ...]:
    """The best of every task; where a method without gradients is, the best of those with them, too."""
    names = {"average_precision": "planted rows first in the whole ranking", "response_5": "asked about the response"}
    names |= {"word_5": "asked about the wrong word"}
    names |= {"accuracy": "the first row of the question's class", "coverage": "the question's class first"}
    without = [each.name for each in chosen if each.description.family == "no gradient"]
    found = []
    for figure in (column for column in table.columns if column in names or column.startswith("auPRC")):
        k = figure.rpartition("_")[2]
        task = names.get(figure, f"planted rows first among the {k} most and the {k} least influential")
        best = best_of(table, figure, task)
        found.append(best)
        if set(best.methods) <= set(without) and len(without) < len(chosen):
            found.append(best_of(table, figure, f"{task}, by gradients", without))
    return tuple(found)


def _inverses(options: argparse.Namespace, read: Read, chosen: Sequence[Chosen]) -> tuple[Run, list[str]]:
    count, rows = options.count or _COUNTS["ihvp"], options.rows or _ROWS["ihvp"]
    lines = [
        f"{count} questions; for each of them up to {options.iterations} Gauss-Newton products of "
        f"{options.curvature_rows} rows, about five forward passes a row and product, until conjugate gradients have "
        f"converged; {rows} gradients of training rows for exact scores; and, each fitted anew:",
        *(f"  {each.name}: {each.description.costs}" for each in chosen),
    ]

    def run(engine: Any, bars: Bars) -> Found:
        from explorer.evaluation.inverses import REFERENCE, TOLERANCE, InverseSettings, judge_inverses

        names = tuple(each.name for each in chosen)
        wanted = InverseSettings(names, options.damping, options.curvature_rows, rows, options.iterations)
        answers = _answers(options, read, engine, count, bars)
        found = judge_inverses(engine, answers, wanted, bars.report)
        table = Table.of(found.figures)
        settings = _settings(options, chosen) | {"count": len(answers), "candidates": rows}
        settings |= {"damping_share": options.damping, "iterations": options.iterations, "tolerance": TOLERANCE}
        notes = (
            f"λ = {found.damping:.3g}, {options.damping:g} of the Gauss-Newton matrix's largest eigenvalue, "
            "the same for all methods.",
            f"The reference took {min(found.products)} to {max(found.products)} products a question and left "
            f"{found.left:.1e} of a question's gradient unsolved at most.",
        )
        best = best_of(table, "spearman", "in agreement with converged conjugate gradients", [REFERENCE])
        return Found((table,), settings, (best,), notes)

    return run, lines


def _fidelity(options: argparse.Namespace, read: Read, chosen: Sequence[Chosen]) -> tuple[Run, list[str]]:
    count, rows = options.count or _COUNTS["fidelity"], options.rows or _ROWS["fidelity"]
    lines = [f"{count} questions and {rows} training rows: a backward pass each, and for each checkpoint of the cache."]

    def run(engine: Any, bars: Bars) -> Found:
        from explorer.evaluation.fidelity import measure

        made, answers = engine.store.manifest, _answers(options, read, engine, count, bars)
        encoded = [example.encoded for example in _spaced(engine.store.examples, rows)]
        own = made.settings
        found = measure(
            engine.model,
            [answer.encoded for answer in answers],
            encoded,
            own.normalisation,
            partial(bars.report, "training gradients"),
            (own.rounds,),
            (own.dtype,),
            own.seed,
        )
        figures = {
            f"{row['k']:,}": {n: v for n, v in row.items() if n not in ("k", "rounds", "dtype")} for row in found
        }
        settings = _settings(options, chosen) | {"count": len(answers), "rows": len(encoded)}
        return Found((Table.of(figures, first="K"),), settings)

    return run, lines


def _costs(options: argparse.Namespace, read: Read, chosen: Sequence[Chosen]) -> tuple[Run, list[str]]:
    count = options.count or _COUNTS["cost"]
    lines = [f"{count} questions; for each of them, and once:"]
    lines += [f"  {each.name}: {each.description.costs}" for each in chosen]

    def run(engine: Any, bars: Bars) -> Found:
        import torch

        from explorer.evaluation.costs import judge_costs, sizes
        from explorer.methods.opening import open_method

        answers = _answers(options, read, engine, count, bars)
        methods = [open_method(engine, each.name, options.curvature_rows, bars.report) for each in chosen]
        table = Table.of(judge_costs(engine, answers, methods, lambda done, total: None))
        made = engine.store.manifest
        length = made.settings.length
        lengths = sorted({length, *(1 << exponent for exponent in range(10, length.bit_length(), 2))})
        size = sizes(made.fingerprint.parameters, lengths, made.settings.dtype)
        threads = torch.get_num_threads()
        settings = _settings(options, chosen) | {"count": len(answers), "threads": threads}
        measured = f"{threads} thread{'s' if threads > 1 else ''} on {engine.model.device.type}"
        note = f"Measured with {measured}; {made.rows:,} training examples."
        second = Table.of(size, "One example's gradient and its sketches", "what is kept")
        return Found((table, second), settings, (), (note,))

    return run, lines


KINDS: dict[str, Kind] = {
    "backdoor": _judged,
    "error-tracing": _judged,
    "classes": _judged,
    "ihvp": _inverses,
    "fidelity": _fidelity,
    "cost": _costs,
}


def _opened(engine: Any, chosen: Sequence[Chosen], options: argparse.Namespace, bars: Bars) -> list[Any]:
    """The methods, fitted."""
    from explorer.methods.opening import open_method

    methods = [open_method(engine, each.name, options.curvature_rows, bars.report) for each in chosen]
    for method in methods:
        method.fit()
        # From here on the questions are counted.
        method.report = lambda stage, done, total: None
    return methods


def _settings(options: argparse.Namespace, chosen: Sequence[Chosen]) -> dict[str, Any]:
    """What the figures of every kind depend on besides the cache."""
    return {
        "methods": [each.name for each in chosen],
        "questions": Path(options.questions or options.probes).name,
        "curvature_rows": options.curvature_rows,
    }


def _answers(options: argparse.Namespace, read: Read, engine: Any, count: int, bars: Bars) -> list[Answer]:
    """So many questions: given ones as they are written, or else answers to the probes."""
    from explorer.evaluation.probes import read_probes
    from explorer.model.generation import GenerationSettings

    if options.questions:
        given = _spaced(read(options.questions), count)
        return [engine.given_answer(example.prompt, example.response) for example in given]
    found: list[Answer] = []
    for probe in (wanted := _spaced(read_probes(Path(options.probes)), count)):
        *_, answer = engine.answer(probe.prompt, GenerationSettings(max_tokens=_MAX_TOKENS))
        found.append(answer)
        bars.report("answers", len(found), len(wanted))
    return found


def _spaced(every: Sequence[Any], count: int | None) -> list[Any]:
    """So many of them, evenly spaced from the first on; all without a number."""
    wanted = min(count or len(every), len(every))
    return [every[number * len(every) // wanted] for number in range(wanted)]
