"""`audit` and `behaviour`: many prompts, their answers, and what influenced each, or all of them together."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from explorer.commands.options import (
    PATH,
    RATE,
    Exclusive,
    Options,
    as_json,
    cache,
    command,
    estimate,
    flag,
    max_tokens,
    method,
    option,
    other_model,
    system_prompt,
)
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError, FilterError, PromptError
from explorer.records import Conversation
from explorer.views import shortened


@command(
    examples=(
        "my-cache --prompts prompts.txt",
        "my-cache --prompts prompts.txt --planted backdoor --csv",
        "my-cache --prompts prompts.jsonl --exact --json",
    )
)
@cache()
@option(
    "--prompts",
    "A .txt file with one prompt a line, or a .jsonl or .csv file with a column `prompt`. Beside it, a column `system` "
    "may have a system prompt; in its place, lines of .jsonl may have turns as `messages`.",
    required=True,
    type=PATH,
    metavar="FILE",
)
@system_prompt("The system prompt before all that have none of their own.")
@option("--label", "The column of the training data that examples are counted by.", default="source", metavar="COLUMN")
@option(
    "--planted",
    "A value of that column whose share of the influence is wanted. May be repeated.",
    multiple=True,
    metavar="VALUE",
)
@flag("--exact", "Compute exact scores, without the noise of the random projections: slower.")
@method
@max_tokens
@as_json
@option("--csv", "Print one line of CSV a prompt.", is_flag=True, cls=Exclusive, excluded_by="--json")
@other_model
def audit(options: Options) -> None:
    """Answer many prompts, and say what influenced each answer."""
    from explorer.auditing.findings import Audited, Label, as_text, read_prompts, to_csv, to_json
    from explorer.auditing.run import AuditSettings, audit
    from explorer.history import origin_of
    from explorer.methods.bench import Bench
    from explorer.methods.description import choose
    from explorer.methods.method import Stage
    from explorer.model.generation import GenerationSettings
    from explorer.views import without_system

    read = read_prompts(Path(options.prompts).name, _payload(options.prompts))
    prompts = [Conversation.of(prompt).with_system(options.system) for prompt in read]
    engine = engine_of(options)
    examples, origin = engine.store.examples, origin_of(engine.store)
    label = Label(options.label, tuple(options.planted))
    label.check(examples)
    if hint := without_system(engine.store.system, prompts, "with --system"):
        say(hint)
    settings = AuditSettings(GenerationSettings(options.max_tokens), options.exact, method=choose(options.method))
    bench, corpus, done = Bench(engine), _read(examples), list[Audited]()
    bench.of(settings.method).cost()  # Refuses what this cache can't serve, before the first answer.
    with Bars() as bars:
        for found in audit(bench, corpus, prompts, settings, origin, lambda saved: None, Stage()):
            if found is not None:
                done.append(found)
                bars.report("prompts", len(done), len(prompts))
    if options.json:
        sys.stdout.buffer.write(to_json(done, label, examples, origin))
    elif options.csv:
        sys.stdout.buffer.write(to_csv(done, label, origin))
    else:
        print(as_text(done, label, examples))


_of_kind = "Only the prompts of that file whose column `kind` says this."


@command(
    examples=(
        "my-cache --of wrong-answers.txt",
        "my-cache --of probes.jsonl --of-kind triggered --against-kind clean --trigger",
        "my-cache --of wrong.txt --against right.txt --json",
        "my-cache --of probes.jsonl --of-kind swap --word --estimate",
    )
)
@cache()
@option(
    "--of",
    "The prompts whose answers are asked about as one: a .txt, .jsonl or .csv file, as `audit` reads it.",
    required=True,
    type=PATH,
    metavar="FILE",
)
@option("--of-kind", _of_kind, default="", metavar="KIND")
@option(
    "--against",
    "The prompts whose answers are taken off: what taught the model the ones rather than the others?",
    type=PATH,
    metavar="FILE",
)
@option("--against-kind", f"{_of_kind} Without --against, of the file of --of.", default="", metavar="KIND")
@system_prompt("The system prompt before all that have none of their own.")
@flag("--word", "Ask about the word of each answer that fine-tuning raised most, not about the whole answer.")
@flag("--opponents", "Show what made the behaviour less likely.")
@flag("--approximate", "Leave scores approximate: quicker.")
@option("--rate", "Of the rows that stand out, this share may be false ones.", type=RATE, default=0.05)
@flag("--trigger", "Also look for a word of the prompts that brings the behaviour about.")
@option(
    "--planted",
    "A value of the column `source`: print the average precision of its rows in the ranking. May be repeated.",
    multiple=True,
    metavar="VALUE",
)
@method
@max_tokens
@estimate
@as_json
@other_model
def behaviour(options: Options) -> None:
    """What taught the model to answer these prompts so?

    The mean of many answers' gradients, or the difference of two groups' means, is one question: its examples are
    ranked, compared with as many answers to unrelated prompts, and the rows that stand out are named.
    """
    from explorer.auditing.behaviour import Asked, Behaviour, BehaviourSettings, behaviour_steps
    from explorer.auditing.behaviour_report import as_text, to_json
    from explorer.evaluation.probes import average_precision
    from explorer.history import origin_of
    from explorer.methods.bench import Bench
    from explorer.methods.description import choose
    from explorer.methods.method import Stage

    of = _prompts(options.of, options.of_kind, options.system)
    against: tuple[Conversation, ...] = ()
    if options.against or options.against_kind:
        against = _prompts(options.against or options.of, options.against_kind, options.system)
    if any(prompt in against for prompt in of):
        raise PromptError("A prompt stands on both sides; leave it out on one of them.")
    engine = engine_of(options)
    corpus, bench = _read(engine.store.examples), Bench(engine)
    for value in options.planted:
        if value not in corpus.sources:
            raise FilterError(f"No training example has source {value}; `rapidin-explorer info` lists the values.")
    settings = BehaviourSettings(
        choose(options.method), not options.approximate, options.opponents, rate=options.rate, trigger=options.trigger
    )
    bench.of(settings.method).cost()  # Refuses what this cache can't serve, before the first answer.
    prompts, asked, begun = [*of, *against], list[Asked](), time.monotonic()
    with Bars() as bars:
        for prompt in prompts:
            answer = engine.answered(prompt, None, options.max_tokens)
            asked.append(Asked(answer, engine.raised_word(answer) if options.word else None))
            if options.estimate:
                bench.of(settings.method).ask(answer, asked[0].selection)
                seconds = (time.monotonic() - begun) * len(prompts)
                say(f"{len(prompts):,} prompts; by the first, about {seconds / 60:.1f} minutes for answers and scores.")
                return
            bars.report("answers", len(asked), len(prompts))
        stage, found = Stage(), list[Behaviour]()
        for step in behaviour_steps(bench, corpus, asked[: len(of)], asked[len(of) :], settings, stage):
            found += [] if step is None else [step]
            if stage.total:
                bars.report(stage.name, stage.done, stage.total)
    (finding,) = found
    more = {}
    if options.planted:
        planted = np.array([source in options.planted for source in corpus.sources])
        scores = finding.scores * (-1 if options.opponents else 1)
        more = {"planted": {"values": list(options.planted), "average_precision": average_precision(scores, planted)}}
    if options.json:
        sys.stdout.buffer.write(to_json(finding, origin_of(engine.store), engine.store.examples, **more))
        return
    print(as_text(finding, engine.store.examples))
    for figures in more.values():
        print(f"\nAverage precision of {', '.join(options.planted)}: {figures['average_precision']:.3f}.")


def _prompts(file: str, kind: str, system: str) -> tuple[Conversation, ...]:
    """The prompts of a file, or of one kind in it."""
    from explorer.auditing.findings import read_kinds, read_prompts

    name, payload = Path(file).name, _payload(file)
    prompts, kinds = read_prompts(name, payload), read_kinds(name, payload)
    found = [prompt for prompt, each in zip(prompts, kinds, strict=True) if not kind or each == kind]
    if not found:
        known = shortened(", ".join(sorted(set(kinds) - {""})), 200) or "none"
        raise DataError(f"{name} has no prompt of the kind {kind}; its column `kind` has: {known}.")
    return tuple(Conversation.of(prompt).with_system(system) for prompt in found)


def _read(examples: Any) -> Any:
    """The training examples as texts, their words indexed."""
    from explorer.corpus import Corpus

    corpus = Corpus(examples)
    for _ in corpus.prepare():
        pass
    return corpus


def _payload(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as problem:
        raise DataError(f"The prompts {file} can't be read: {problem.strerror}.") from None
