"""`open`: the folder that a trainer wrote → what it holds, how its data was read, a cache, and the explorer over it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from explorer.commands.options import (
    PATH,
    RATE,
    Options,
    as_json,
    base_model,
    command,
    counting,
    estimate,
    flag,
    option,
    optional_data,
    together,
)
from explorer.commands.prepare import check_lengths, gradients, made, projections
from explorer.commands.serve import check_place, served_beside, serving
from explorer.commands.terminal import reading_of, say, say_all
from explorer.errors import ExplorerError, ModelError

_training = together(
    option("--epochs", "How often the training read the data.", type=RATE, show_default="as the run says"),
    option("--learning-rate", "The training's largest learning rate.", type=RATE, show_default="as the run says"),
)


@command(
    name="open",
    examples=("my-run --data my.jsonl --inspect", "my-run --data my.jsonl", "my-run --data my.jsonl --template alpaca"),
)
@click.argument(
    "run",
    type=PATH,
    metavar="RUN",
    help="The output folder of a training by transformers' Trainer, TRL, LLaMA-Factory, axolotl, unsloth or "
    "`finetune`; an adapter; or a whole model.",
)
@optional_data
@flag("--inspect", "Say what the folder holds, and how the data was read by the training, and do no more.")
@as_json
@option("--cache", "The folder of the cache.", type=PATH, default="", show_default="RUN-cache, beside the run")
@counting
@_training
@base_model("float32", "mixed", "bfloat16", "float16", "4bit", default="")
@gradients
@projections
@estimate
@serving
def open_run(options: Options) -> int | None:
    """Open a training run: serve it, and cache it meanwhile.

    Before anything is cached, the losses of some rows under the plausible readings (template, what is in the loss,
    what ends an answer) are compared with those that the trainer logged, or with the base's. The likeliest reading is
    taken, and said; a bad match is a warning. The page can be opened when the first examples are in the cache. It says
    among how many an answer was ranked.
    """
    from precompute.data import Review, read_examples
    from precompute.runs import open_run as opened

    check_lengths(options.k, options.token_k)
    if not options.inspect:
        check_place(options)
    run = opened(Path(options.run))
    options.data = options.data or _named_data(run)
    if not options.data and not options.inspect:
        raise ExplorerError(f"{options.run} doesn't say what it was trained on; give the data as --data.")
    found, review, examples = None, None, None
    if options.data:
        review = Review(options.data, skip=options.skip_bad)
        examples = read_examples(options.data, reading_of(options), review)
        found = _matched(options, run, examples)
    if options.json:
        print(json.dumps(_report(options, run, found), ensure_ascii=False, indent=1))
    else:
        say_all(_lines(options, run, found))
    if options.inspect or found is None:
        return None
    reading = found.reading
    given = {
        **vars(options),
        "cache": options.cache or f"{Path(options.run).resolve()}-cache",
        "model": _named_model(options, run),
        "adapter": str(run.adapter) if run.adapter else None,
        "base": _base(options, run),
        "template": reading.template,
        "followed_by": "",
        "engine": "in-process",
        "upload": "",
    }
    counted = replace(reading.counting, chunk=options.chunk)
    own = {"cache": [given["cache"]], "model": "", "adapter": "", "template": "", "probes": ""}
    with ExitStack() as servers:
        running: list[Any] = []

        def listed(store: Any) -> None:
            """Serve what there is from the first examples on."""
            if not running:
                running.append(servers.enter_context(served_beside(Options(**given | own))))

        if not made(Options(**given), examples, review, counted, _record(options, run), listed):
            return None
        say(f"{given['cache']} is complete.")
        try:
            return int(running[0].wait())
        except KeyboardInterrupt:
            return 0


def _matched(options: Options, run: Any, examples: Any) -> Any:
    """The likeliest reading of the data. What was said, or is in our own record, isn't decided anew."""
    from precompute.runs import Known, match

    template = options.template if options.template != "auto" else _recorded(run)
    loss, end = (options.loss or "last", options.end or "") if run.own else (options.loss or "", options.end)
    known = Known(template, loss, end, options.max_length or run.settings.longest)
    return match(_model(options, run), run.log, examples, known, Known(run.template, run.settings.loss))


def _recorded(run: Any) -> str:
    """The template that our own record of the training names."""
    return run.template if run.own else ""


def _named_data(run: Any) -> str:
    """The file that the run's settings name as its data, where it is there."""
    return run.settings.data if run.settings.data and Path(run.settings.data).is_file() else ""


def _named_model(options: Options, run: Any) -> str:
    """The base of an adapter, or the whole model. Raises ModelError where it isn't known, or isn't here."""
    if run.adapter is None:
        return run.model
    name = options.model or run.model
    if not name:
        raise ModelError(f"{run.folder} doesn't name the base of its adapter; give it as --model.")
    if not options.model and name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise ModelError(f"{run.folder} names {name} as the base, which isn't here; give it as --model.")
    return name


def _base(options: Options, run: Any) -> str:
    """What a whole model was trained from, where it was given, or is here."""
    if run.adapter is not None:
        return ""
    return options.base or options.model or (run.base if run.base and Path(run.base).is_dir() else "")


def _record(options: Options, run: Any) -> Any:
    """What is known of the training, with what the person said of it."""
    given = {"epochs": options.epochs, "learning_rate": options.learning_rate}
    return replace(run, **{name: value for name, value in given.items() if value}).training


def _model(options: Options, run: Any) -> Any:
    """The finished model. Which template it is loaded with doesn't matter: all plausible ones are tried."""
    from explorer.gradients import weights_in
    from explorer.model.loading import load_model

    template = options.template if options.template != "auto" else _recorded(run) or "plain"
    return load_model(
        _named_model(options, run),
        run.adapter,
        template,
        options.device or None,
        say,
        precision=weights_in(options.precision),
        base=_base(options, run),
        training=_record(options, run),
    )


def _report(options: Options, run: Any, found: Any) -> dict[str, Any]:
    """All that was found, as plain values."""
    training = _record(options, run)
    reading = found.reading if found else None
    return {
        "run": str(run.folder),
        "kind": run.kind,
        "adapter": str(run.adapter) if run.adapter else None,
        "model": options.model or run.model or None,
        "base": _base(options, run) or run.base or None,
        "checkpoints": [
            {
                "name": moment.name,
                "step": moment.step,
                "epoch": moment.epoch,
                "learning_rate": moment.learning_rate,
                "epochs_x_learning_rate": moment.weight,
            }
            for moment in run.moments
        ],
        "epochs": training.epochs if training else run.epochs,
        "learning_rate": training.learning_rate if training else run.learning_rate,
        "batch_size": run.batch,
        "max_length": (options.max_length or run.settings.longest) or None,
        "data": options.data or None,
        "template": reading.template if reading else run.template or None,
        "mask": reading.counting.loss if reading else run.settings.loss or None,
        "end": (reading.counting.end or "template") if reading else None,
        "match": found
        and {
            "reading": str(reading),
            "loss": found.loss,
            "expected": found.expected,
            "expected_by": found.by,
            "rows": found.rows,
            "next": found.second and {"reading": str(found.second), "loss": found.second_loss},
        },
        "assumed": list(_assumed(options, run, found)),
        "left_alone": list(run.left_alone),
        "settings": list(run.settings.files),
        "warnings": list(_warnings(run, found)),
    }


def _lines(options: Options, run: Any, found: Any) -> Iterator[str]:
    """The same for a person."""
    what = "an adapter" if run.adapter else "a whole model"
    on = f" on {options.model or run.model}" if run.adapter and (options.model or run.model) else ""
    yield f"{run.folder}: {what}{on}{f', by {run.kind}' if run.kind else ''}."
    training = _record(options, run)
    if training:
        batch = f", batch size {run.batch}" if run.batch else ""
        yield f"Training: {training.epochs:g} epochs, learning rate {training.learning_rate:g} at most{batch}."
    if run.moments:
        steps = [str(moment.step) for moment in run.moments]
        shown = ", ".join(steps if len(steps) < 8 else [*steps[:3], "…", steps[-1]])
        yield f"Checkpoints: {len(steps)}, at the steps {shown}."
    if run.left_alone:
        yield f"Left alone, for reading pickled files could run code: {', '.join(run.left_alone)}."
    if found:
        expected = {
            "log": f"; the log lets expect about {found.expected or 0:.3g}",
            "base": f"; the base's is {found.expected or 0:.3g}",
        }.get(found.by, "")
        yield f"Rows are read with {found.reading}: their mean loss is {found.loss:.3g}{expected} ({found.rows} rows)."
    yield from (f"Assumed: {line}." for line in _assumed(options, run, found))
    yield from (f"Warning: {line}" for line in _warnings(run, found))


def _assumed(options: Options, run: Any, found: Any) -> Iterator[str]:
    """What the run lacks, and what is taken for it, without a full stop."""
    if not _record(options, run):
        yield "epochs × learning rate is 1, so scores have no scale of their own (--epochs, --learning-rate)"
    if run.adapter is None and not _base(options, run):
        named = f"; the run names {run.base}" if run.base else ""
        yield f"gradients are taken at the final model alone, for the base isn't given{named} (--base)"
    if not run.settings.longest and not options.max_length:
        yield "no row was cut (--max-length)"
    if found is None:
        yield "how the data was read can't be told without it (--data)"


def _warnings(run: Any, found: Any) -> Iterator[str]:
    """What may be wrong."""
    if found:
        yield from found.warnings
        declared = (run.template, run.settings.loss)
        taken = (found.reading.template, found.reading.counting.loss)
        for said, own, what in zip(declared, taken, ("template", "loss"), strict=True):
            if said and said != own and (what == "template" or {said, own} != {"all", "last"}):
                yield f"{' and '.join(run.settings.files)} says {what} {said}, and the losses say {own}."
