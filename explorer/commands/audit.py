"""`audit`: many prompts, their answers, and what influenced each."""

import sys
from pathlib import Path

from explorer.commands.options import (
    PATH,
    Exclusive,
    Options,
    as_json,
    cache,
    command,
    flag,
    max_tokens,
    method,
    option,
    other_model,
    system_prompt,
)
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import DataError


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
    from explorer.records import Conversation
    from explorer.views import without_system

    try:
        read = read_prompts(Path(options.prompts).name, Path(options.prompts).read_bytes())
    except OSError as problem:
        raise DataError(f"The prompts {options.prompts} can't be read: {problem.strerror}.") from None
    prompts = [Conversation.of(prompt).with_system(options.system) for prompt in read]
    engine = engine_of(options)
    examples, origin = engine.store.examples, origin_of(engine.store)
    label = Label(options.label, tuple(options.planted))
    label.check(examples)
    if hint := without_system(engine.store.system, prompts, "with --system"):
        say(hint)
    settings = AuditSettings(GenerationSettings(options.max_tokens), options.exact, method=choose(options.method))
    bench, done = Bench(engine), list[Audited]()
    bench.of(settings.method).cost()  # Refuses what this cache can't serve, before the first answer.
    with Bars() as bars:
        for found in audit(bench, prompts, settings, origin, lambda saved: None, Stage()):
            if found is not None:
                done.append(found)
                bars.report("prompts", len(done), len(prompts))
    if options.json:
        sys.stdout.buffer.write(to_json(done, label, examples, origin))
    elif options.csv:
        sys.stdout.buffer.write(to_csv(done, label, origin))
    else:
        print(as_text(done, label, examples))
