"""Comparisons of methods by kind: what each will cost, and the work itself.

A kind reads what it needs, and says what it will cost, before any model is loaded. It knows nothing of the command
line: it is told what to do by `KindSettings`, and tells how far it is through a `Report`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from explorer.errors import DataError
from explorer.evaluation.costs import judge_costs, sizes
from explorer.evaluation.fidelity import measure
from explorer.evaluation.inverses import REFERENCE, TOLERANCE, InverseSettings, judge_inverses
from explorer.evaluation.judging import judge_backdoor, judge_classes, judge_error_tracing
from explorer.evaluation.probes import Probe, read_probes, read_prompts
from explorer.evaluation.results import Best, Table, best_of
from explorer.evaluation.verdicts import UNRELATED, judge_marks, judge_verdicts
from explorer.methods.attributor import Attributor
from explorer.methods.description import CURVATURE_ROWS, DEFAULT
from explorer.methods.opening import open_method
from explorer.model.generation import GenerationSettings
from explorer.records import Answer, Chosen, Conversation, Example

_MAX_TOKENS = 60

Read = Callable[[str], list[Example]]
"""Reads a file of data."""
Report = Callable[[str, int, int], None]
"""Is told the name of a stage, and how much of how much of it is done."""


@dataclass(frozen=True)
class KindSettings:
    """What a comparison of methods is told; each kind takes the fields that it needs."""

    methods: tuple[Chosen, ...] = ()
    """The methods to compare."""
    probes: str = ""
    """The file of probes that are answered first, where the questions are not given."""
    questions: str = ""
    """A file of data that was not trained on; its responses are asked about as they are written."""
    prompts: str = ""
    """For `verdicts`: a text file of prompts that have nothing to do with the training data."""
    label: str = "class"
    """For `classes`: the column that names an example's class."""
    count: int | None = None
    """How many of the questions are asked, evenly spaced; None for all."""
    rows: int = 0
    """For `ihvp` and `fidelity`: how many training examples are scored exactly."""
    curvature_rows: int = CURVATURE_ROWS
    """How many training examples stand for all of them in second-order methods."""
    damping: float = 0.01
    """For `ihvp`: λ of all methods, as a share of the Gauss-Newton matrix's largest eigenvalue."""
    iterations: int = 200
    """For `ihvp`: iterations of conjugate gradients at most."""


@dataclass(frozen=True)
class Found:
    """What a comparison of methods found: fields of `results.Result`."""

    tables: tuple[Table, ...]
    settings: dict[str, Any]
    best: tuple[Best, ...] = ()
    notes: tuple[str, ...] = ()


Run = Callable[[Any, Report], Found]
"""Takes the engine."""
Kind = Callable[[KindSettings, Read], tuple[Run, list[str]]]
"""Gives the work to be done, and lines that say what it will cost."""


def _backdoor(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    def run(engine: Any, report: Report) -> Found:
        methods = _opened(engine, settings, report)
        found = judge_backdoor(engine, probes, methods, partial(report, "backdoor"))
        return _planted(settings, found, "triggered")

    probes = _probes_of(settings, "triggered")
    lines = [f"{len(probes)} answers, generated first; for each of them:", *_costs_of(settings)]
    return run, lines


def _error_tracing(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    def run(engine: Any, report: Report) -> Found:
        methods = _opened(engine, settings, report)
        found = judge_error_tracing(engine, probes, methods, partial(report, "error-tracing"))
        return _planted(settings, found, "swap")

    probes = _probes_of(settings, "swap")
    asked = "answers, generated first; asked twice, of response and word"
    return run, [f"{len(probes)} {asked}; for each of them:", *_costs_of(settings)]


def _probes_of(settings: KindSettings, kind: str) -> list[Probe]:
    return [probe for probe in read_probes(Path(settings.probes)) if probe.kind == kind]


def _planted(settings: KindSettings, found: dict[str, dict[str, float]], kind: str) -> Found:
    """What was found of planted rows."""
    if not found:
        raise DataError(f"No probe of {settings.probes} could be judged: none is {kind} and was answered so.")
    table = Table.of(found)
    return Found((table,), _kept(settings), _best(table, settings.methods))


def _classes(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    def run(engine: Any, report: Report) -> Found:
        methods = _opened(engine, settings, report)
        table = Table.of(judge_classes(engine, questions, settings.label, methods, partial(report, "classes")))
        kept = _kept(settings) | {"label": settings.label, "count": len(questions)}
        return Found((table,), kept, _best(table, settings.methods))

    questions = spaced(read(settings.questions), settings.count)
    return run, [f"{len(questions)} questions; for each of them:", *_costs_of(settings)]


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


def _inverses(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    rows = settings.rows
    lines = [
        f"{settings.count} questions; for each of them up to {settings.iterations} Gauss-Newton products of "
        f"{settings.curvature_rows} rows, about five forward passes a row and product, until conjugate gradients have "
        f"converged; {rows} gradients of training rows for exact scores; and, each fitted anew:",
        *_costs_of(settings),
    ]

    def run(engine: Any, report: Report) -> Found:
        names = tuple(each.name for each in settings.methods)
        wanted = InverseSettings(names, settings.damping, settings.curvature_rows, rows, settings.iterations)
        answers = _answers(settings, read, engine, report)
        found = judge_inverses(engine, answers, wanted, report)
        table = Table.of(found.figures)
        kept = _kept(settings) | {"count": len(answers), "candidates": rows}
        kept |= {"damping_share": settings.damping, "iterations": settings.iterations, "tolerance": TOLERANCE}
        notes = (
            f"λ = {found.damping:.3g}, {settings.damping:g} of the Gauss-Newton matrix's largest eigenvalue, "
            "the same for all methods.",
            f"The reference took {min(found.products)} to {max(found.products)} products a question and left "
            f"{found.left:.1e} of a question's gradient unsolved at most.",
        )
        best = best_of(table, "spearman", "in agreement with converged conjugate gradients", [REFERENCE])
        return Found((table,), kept, (best,), notes)

    return run, lines


def _fidelity(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    asked = f"{settings.count} questions and {settings.rows} training rows"
    lines = [f"{asked}: a backward pass each, and for each checkpoint of the cache."]

    def run(engine: Any, report: Report) -> Found:
        made, answers = engine.store.manifest, _answers(settings, read, engine, report)
        encoded = [example.encoded for example in spaced(engine.store.examples, settings.rows)]
        own = made.settings
        found = measure(
            engine.model,
            [answer.encoded for answer in answers],
            encoded,
            own.normalisation,
            partial(report, "training gradients"),
            (own.rounds,),
            (own.dtype,),
            own.seed,
        )
        figures = {
            f"{row['k']:,}": {n: v for n, v in row.items() if n not in ("k", "rounds", "dtype")} for row in found
        }
        kept = _kept(settings) | {"count": len(answers), "rows": len(encoded)}
        return Found((Table.of(figures, first="K"),), kept)

    return run, lines


def _costs(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    lines = [f"{settings.count} questions; for each of them, and once:", *_costs_of(settings)]

    def run(engine: Any, report: Report) -> Found:
        answers = _answers(settings, read, engine, report)
        methods = [open_method(engine, each.name, settings.curvature_rows, report) for each in settings.methods]
        table = Table.of(judge_costs(engine, answers, methods, lambda done, total: None))
        made = engine.store.manifest
        length = made.settings.length
        lengths = sorted({length, *(1 << exponent for exponent in range(10, length.bit_length(), 2))})
        size = sizes(made.fingerprint.parameters, lengths, made.settings.dtype)
        threads = torch.get_num_threads()
        kept = _kept(settings) | {"count": len(answers), "threads": threads}
        measured = f"{threads} thread{'s' if threads > 1 else ''} on {engine.model.device.type}"
        note = f"Measured with {measured}; {made.rows:,} training examples."
        second = Table.of(size, "One example's gradient and its sketches", "what is kept")
        return Found((table, second), kept, (), (note,))

    return run, lines


def _verdicts(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    probes = read_probes(Path(settings.probes))
    unrelated = read_prompts(Path(settings.prompts)) if settings.prompts else []
    asked = [*probes, *(Probe(prompt, UNRELATED) for prompt in unrelated)]

    def run(engine: Any, report: Report) -> Found:
        found, shown = judge_verdicts(Attributor(open_method(engine, DEFAULT)), asked, partial(report, "verdicts"))
        kept = {"questions": Path(settings.probes).name, "prompts": Path(settings.prompts).name}
        notes = tuple(
            f"As expected of {kind} probes, by the raised word: {', '.join(map(str, numbers))}."
            for kind, numbers in shown.items()
            if kind != UNRELATED
        )
        return Found((Table.of(found, first="kind, asked about"),), kept, (), notes)

    return run, [f"{len(asked)} answers, generated first; each asked twice: of the word raised most, and of all of it."]


def _marks(settings: KindSettings, read: Read) -> tuple[Run, list[str]]:
    probes = spaced(read_probes(Path(settings.probes)), settings.count)

    def run(engine: Any, report: Report) -> Found:
        found = judge_marks(Attributor(open_method(engine, DEFAULT)), probes, partial(report, "marks"))
        kept = {"questions": Path(settings.probes).name, "count": len(probes)}
        return Found((Table.of(found, first="the word is"),), kept, (), ())

    return run, [f"{len(probes)} answers, generated first; every token of them is asked about."]


KINDS: dict[str, Kind] = {
    "verdicts": _verdicts,
    "marks": _marks,
    "backdoor": _backdoor,
    "error-tracing": _error_tracing,
    "classes": _classes,
    "ihvp": _inverses,
    "fidelity": _fidelity,
    "cost": _costs,
}


def _costs_of(settings: KindSettings) -> list[str]:
    """What every method costs, a line each."""
    return [f"  {each.name}: {each.description.costs}" for each in settings.methods]


def _opened(engine: Any, settings: KindSettings, report: Report) -> list[Any]:
    """The methods, fitted."""
    methods = [open_method(engine, each.name, settings.curvature_rows, report) for each in settings.methods]
    for method in methods:
        method.fit()
        # From here on the questions are counted.
        method.report = lambda stage, done, total: None
    return methods


def _kept(settings: KindSettings) -> dict[str, Any]:
    """What the figures of every kind depend on besides the cache."""
    return {
        "methods": [each.name for each in settings.methods],
        "questions": Path(settings.questions or settings.probes).name,
        "curvature_rows": settings.curvature_rows,
    }


def _answers(settings: KindSettings, read: Read, engine: Any, report: Report) -> list[Answer]:
    """So many questions: given ones as they are written, or else answers to the probes."""
    if settings.questions:
        given = spaced(read(settings.questions), settings.count)
        return [engine.given_answer(Conversation(each.messages), each.answer, each.tools) for each in given]
    found: list[Answer] = []
    for probe in (wanted := spaced(read_probes(Path(settings.probes)), settings.count)):
        *_, answer = engine.answer(probe.prompt, GenerationSettings(max_tokens=_MAX_TOKENS))
        found.append(answer)
        report("answers", len(found), len(wanted))
    return found


def spaced(every: Sequence[Any], count: int | None) -> list[Any]:
    """So many of them, evenly spaced from the first on; all without a number."""
    wanted = min(count or len(every), len(every))
    return [every[number * len(every) // wanted] for number in range(wanted)]
