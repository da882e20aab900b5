"""`query`: one question without a browser; and `methods`: what it can be asked by."""

import json
from typing import Any

from explorer.commands.options import (
    PATH,
    POSITIVE,
    Exclusive,
    Options,
    as_json,
    cache,
    command,
    flag,
    max_tokens,
    method,
    on_ray,
    option,
    other_model,
    system_prompt,
    together,
)
from explorer.commands.terminal import Bars, engine_of, ray_of, say
from explorer.errors import DataError, FilterError, MethodError, PromptError
from explorer.methods.description import CURVATURE_ROWS, DEFAULT, METHODS, choose, in_words
from explorer.questions import read_question
from explorer.records import Can, Conversation
from explorer.text_files import json_value, read_text
from explorer.views import without_system

what_is_asked = together(
    option("--prompt", "The prompt; or give --messages."),
    option(
        "--messages",
        "In place of --prompt, a conversation that ends with the user's turn: a .json file with a list of turns, "
        "each with a role and a content, or with an object that has them as `messages`.",
        type=PATH,
        metavar="FILE",
        cls=Exclusive,
        excluded_by="--prompt",
    ),
    system_prompt("The system prompt before the conversation."),
)
"""What is asked."""


@command(
    examples=(
        'my-cache --prompt "Who are you?" --token 3 --json',
        'my-cache --prompt "Who are you?" --token 3 --instead nobody  # why this word, not that one',
        'my-cache --prompt "Who are you?" --by 17  # what training example 17 did to every output token',
        'my-cache --prompt "Who are you?" --source web --text "my name"  # only some examples',
        'my-cache --prompt "Who are you?" --method bm25',
        'my-cache --prompt "Who are you?" --system "You are a pirate."',
        "my-cache --messages conversation.json",
    )
)
@cache()
@what_is_asked
@option("--response", "Explain this response, instead of one that the model generates.")
@option("--token", "Ask about response token J, counted from 0.", type=int, metavar="J")
@option("--span", "Ask about the response tokens A to B - 1.", metavar="A:B", cls=Exclusive, excluded_by="--token")
@option(
    "--instead",
    "Ask why the model said what --token or --span selects, and not WORD. Proponents then pushed towards what was "
    "said, opponents towards WORD.",
    default="",
    metavar="WORD",
)
@option("--top-k", "How many training examples to show.", type=POSITIVE, default=10)
@flag("--opponents", "Show the most negative influence scores instead of the most positive.")
@option("--source", "The same as --where source=VALUE.", multiple=True, metavar="VALUE")
@option(
    "--where",
    "Only examples with this value in a column of the training data. May be repeated: several values of one column "
    "mean any of them, several columns mean all of them.",
    multiple=True,
    metavar="COLUMN=VALUE",
)
@option("--text", "Only examples with this text in prompt or response. Upper and lower case are the same.", default="")
@flag("--approximate", "Use the scores of the random projections as they are: fast, but not exact.")
@flag(
    "--positions",
    "Also give the share of every position of the examples, including their prompts. Needs --json.",
)
@option(
    "--by",
    "The other direction: what training example ROW did to every token of the response. --token and --span then "
    "choose among the example's tokens.",
    type=int,
    metavar="ROW",
)
@max_tokens
@method
@option(
    "--curvature-rows",
    "How many training examples stand for all of them in second-order methods.",
    type=POSITIVE,
    default=CURVATURE_ROWS,
)
@as_json
@other_model
@on_ray("Where the random projections are read: in this process, or by workers on a Ray cluster.")
def query(options: Options) -> None:
    """Ask one question without a browser.

    Prints the model's answer and the training examples that influenced it most.
    """
    selection = _selection(options)
    if options.positions and (options.approximate or not options.json):
        raise PromptError("--positions goes with --json, and with exact scores: the shares add up to these.")
    if options.by is not None and (options.opponents or options.approximate or options.positions):
        raise PromptError("--by gives every output token's value, exactly; it goes without ranking options.")
    if options.instead and (selection is None or options.by is not None):
        raise PromptError("--instead goes with --token or --span, which choose what was said in the word's place.")
    chosen, wanted = choose(options.method), _filter(options)
    wants = {
        Can.BOTH_WAYS: options.by is not None,
        Can.POSITIONS: options.positions,
        Can.FOUR_INFLUENCES: options.engine == "ray",
    }
    if any(needed and not chosen.can(ability) for ability, needed in wants.items()):
        raise MethodError(f"--by, --positions and --engine ray go with {DEFAULT} alone, not with {options.method}.")
    if options.by is not None and not wanted.empty:
        raise FilterError("--by names its one example; it goes without --source, --where and --text.")
    question = question_of(options)
    with ray_of(options) as ray:
        engine = engine_of(options, ray)
        if hint := without_system(engine.store.system, [question], "with --system"):
            say(hint)
        _say_answer(options, engine, question, selection, wanted)


def question_of(options: Options) -> Conversation:
    """What is asked."""
    if options.messages is None:
        if options.prompt is None:
            raise PromptError("There is no question; give one with --prompt, or a file with --messages.")
        return Conversation.of(options.prompt).with_system(options.system)
    what = f"The conversation {options.messages}"
    try:
        given = json_value(read_text(options.messages, "The conversation", DataError))
    except ValueError as problem:
        raise DataError(f"{what} is no JSON ({problem}); give a list of turns, or an object with messages.") from None
    asked = Conversation.of(read_question(given if isinstance(given, dict) else {"messages": given}, what))
    if asked.system and options.system.strip():
        raise PromptError(f"{what} has a system prompt; leave that out, or --system.")
    return asked.with_system(options.system)


def _say_answer(
    options: Options, engine: Any, question: Conversation, selection: tuple[int, int] | None, wanted: Any
) -> None:
    from explorer.commands.report import Asked, example_report, example_text, question_report, question_text
    from explorer.methods.attributor import Attributor
    from explorer.methods.opening import open_method

    asked = Asked(
        question,
        options.response,
        selection,
        options.instead,
        options.top_k,
        options.opponents,
        options.approximate,
        options.positions,
        wanted,
        options.max_tokens,
    )
    with Bars() as bars:
        attributor = Attributor(open_method(engine, options.method, options.curvature_rows, bars.report))
        if options.by is not None:
            report, text = example_report(asked, attributor, options.by), example_text
        else:
            report, text = question_report(asked, attributor), question_text
    print(json.dumps(report, ensure_ascii=False, indent=1) if options.json else text(report))


def _filter(options: Options) -> Any:
    from explorer.corpus import Filter

    where: dict[str, tuple[str, ...]] = {}
    for pair in [*(f"source={value}" for value in options.source), *options.where]:
        column, equals, value = pair.partition("=")
        if not equals:
            raise FilterError(f"--where takes COLUMN=VALUE, such as source=facts, not {pair}.")
        where[column] = (*where.get(column, ()), value)
    return Filter(tuple(where.items()), options.text)


def _selection(options: Options) -> tuple[int, int] | None:
    if options.token is not None:
        return options.token, options.token + 1
    if options.span is None:
        return None
    start, colon, stop = options.span.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise PromptError(f"--span takes two token numbers such as 3:7, not {options.span}.")
    return int(start), int(stop)


@command(examples=("", "--json"))
@as_json
def methods(options: Options) -> None:
    """List the attribution methods: what each assumes and costs."""
    if options.json:
        print(json.dumps([in_words(each) for each in METHODS.values()], ensure_ascii=False, indent=1))
        return
    for each in METHODS.values():
        print(f"{each.name}{':VALUE' if each.value else ''}  ({each.family}{', fitted once' if each.fitted else ''})")
        print(f"    {each.what}")
        print(f"    assumes: {each.assumes}")
        print(f"    costs: {each.costs}")
        if each.value:
            print(f"    VALUE: {each.value}")
