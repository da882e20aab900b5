"""How a command is declared and shown, what values its options take, and the options that several commands share.

It knows no command, and does no command's work.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from types import SimpleNamespace
from typing import Any

import click

from explorer.methods.description import DEFAULT, METHODS
from explorer.model import embedded
from explorer.records import LAST_ANSWER, LOSSES

Options = SimpleNamespace
"""What a command was told: the value of every option and argument under its name."""
Decorator = Callable[[Any], Any]


class Command(click.Command):
    """A command whose function takes all options as one record, and whose help ends with examples."""

    def __init__(self, *arguments: Any, examples: Sequence[str] = (), **more: Any):
        """`examples` are command lines without the names of the program and the command."""
        super().__init__(*arguments, **more)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take several values after one name of a `Several` option."""
        names = {name for param in self.params if isinstance(param, Several) for name in param.opts}
        return super().parse_args(ctx, list(_repeated(args, names)))

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command's function."""
        assert self.callback is not None
        return ctx.invoke(self.callback, Options(**ctx.params))

    def shown_examples(self, ctx: click.Context) -> list[str]:
        """The examples as a person types them."""
        return [f"{ctx.command_path} {example}".rstrip() for example in self.examples]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own, however long."""
        with formatter.section("Examples"):
            for line in self.shown_examples(ctx):
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


command = partial(click.command, cls=Command)
"""Makes a command of the function below it; the function's docstring is its help."""


class Group(click.Group):
    """Commands, listed by family."""

    def __init__(self, name: str, families: Mapping[str, Sequence[click.Command]], **more: Any):
        """`families` are commands by the heading above them."""
        commands = [each for family in families.values() for each in family]
        super().__init__(name, commands, no_args_is_help=False, **more)
        self.families = families

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the families."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a family."""
        width = max(map(len, self.commands))
        for heading, family in self.families.items():
            with formatter.section(heading):
                limit = formatter.width - width - 6
                formatter.write_dl([(f"{each.name:{width}}", each.get_short_help_str(limit)) for each in family])


class Option(click.Option):
    """An option that shows its default, where it has one that tells something."""

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **{"show_default": bool(more.get("default"))} | more)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets; a default in words without click's parentheses."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class Several(Option):
    """An option with one or more values after its name."""

    def __init__(self, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more | {"multiple": True})

    def make_metavar(self, ctx: click.Context) -> str:
        """The value's name, with dots."""
        return f"{super().make_metavar(ctx)}..."


def _repeated(arguments: Sequence[str], names: set[str]) -> Iterator[str]:
    """`--data A B` as `--data A --data B`."""
    name, last = "", ""
    for argument in arguments:
        if argument.startswith("-"):
            name = argument if argument in names else ""
        elif name and last != name:
            yield name
        yield argument
        last = argument


class Exclusive(Option):
    """An option that another one excludes."""

    def __init__(self, *arguments: Any, excluded_by: str, **more: Any):
        """`excluded_by` is the other's name, such as `--token`."""
        super().__init__(*arguments, **more)
        self.excluded_by = excluded_by

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Refuse both together."""
        if {self.name, self.excluded_by.lstrip("-").replace("-", "_")} <= opts.keys():
            raise click.UsageError(f"{self.opts[0]} is not allowed with {self.excluded_by}.", ctx)
        return super().handle_parse_result(ctx, opts, args)


# Values


class Whole(click.ParamType[int]):
    """A whole number, from `least` on, and to `most` where there is one."""

    name = "N"

    def __init__(self, least: int, most: int | None = None):
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value} is no whole number.")
        if number < self.least:
            self.fail(f"{number} is less than {self.least}.")
        if self.most is not None and number > self.most:
            self.fail(f"{number} is more than {self.most}.")
        return number


class Rate(click.ParamType[float]):
    """A number above nought."""

    name = "X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value} is no positive number.")
        return number


class Moments(click.ParamType[int | tuple[float, ...]]):
    """How many moments of a training, as a whole number, or which: epochs with commas, or a point, in them."""

    name = "N|EPOCHS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[float, ...]:
        """The number, or the epochs."""
        text = str(value)
        if text.isdigit():
            return POSITIVE.convert(text, param, ctx)
        epochs = text.split(",")
        try:
            list(map(float, epochs))
        except ValueError:
            self.fail(f"{text!r} is neither so many moments nor epochs such as 0.05,1.")
        return tuple(RATE.convert(epoch, param, ctx) for epoch in epochs)


POSITIVE, COUNT, RATE, MOMENTS = Whole(1), Whole(0), Rate(), Moments()
PATH = click.Path()
"""A file or folder, which a shell can complete; whether it is there, those say that read it."""


# Options


def option(name: str, help: str, cls: type[Option] = Option, **more: Any) -> Decorator:
    """An option with its help."""
    return click.option(name, help=help, cls=cls, **more)


def flag(name: str, help: str, **more: Any) -> Decorator:
    """An option without a value."""
    return click.option(name, is_flag=True, help=help, **more)


def together(*options: Decorator) -> Decorator:
    """Several options, shown in this order."""
    return lambda function: reduce(lambda made, each: each(made), reversed(options), function)


def cache(help: str = "The folder that `precompute` made.") -> Decorator:
    """The argument that names a cache."""
    return click.argument("cache", type=PATH, metavar="CACHE", help=help)


training_precision = option(
    "--precision",
    "What trainings compute in. `auto`: as the adapter's did; float32; or mixed, with products with frozen weights in "
    "bfloat16, which is faster where the device has units for it.",
    type=click.Choice(["auto", "float32", "mixed"]),
    default="auto",
)
as_json = flag("--json", "Print one JSON object.")
estimate = flag("--estimate", "Say what it will cost, and do no more.")


def system_prompt(help: str) -> Decorator:
    """The option that gives a system prompt."""
    return option("--system", help, default="", metavar="TEXT")


max_tokens = option("--max-tokens", "The longest answer that is generated, in tokens.", type=POSITIVE, default=80)
reading = together(
    option("--split", "The split of a data set.", default="", metavar="NAME", show_default="train, or the only one"),
    option("--config", "The configuration of a hub data set.", default="", metavar="NAME"),
    option(
        "--column",
        "The column that stands for a known one, such as prompt=question. May be repeated. Known are prompt, response, "
        "completion, instruction, input, output, system, history, messages, conversations, tools and text.",
        multiple=True,
        metavar="NAME=COLUMN",
    ),
    flag("--skip-bad", "Leave out rows that can't be used, and say which."),
)
"""What has to be said of data that doesn't say it itself."""


def _data(required: bool) -> Decorator:
    return together(
        option(
            "--data",
            "The training data: a .jsonl, .json, .csv, .tsv, .parquet or .arrow file (also .gz or .zst), a folder that "
            "save_to_disk wrote, or a data hub id, with the columns prompt and response (or completion), or "
            "instruction, input and output, or chat messages, or ShareGPT's conversations; or raw text: a column text, "
            "a .txt file or a folder of them. Other columns are kept; `source` is shown with every example.",
            type=PATH,
            metavar="FILE",
            required=required,
        ),
        reading,
    )


training_data = _data(required=True)
optional_data = _data(required=False)
chunk = option(
    "--chunk",
    "The longest passage that raw text is cut into, in tokens; no longer than the model's context.",
    type=Whole(16),
    metavar="TOKENS",
    default=LAST_ANSWER.chunk,
)
counting = together(
    chunk,
    option(
        "--loss",
        "What of a row was in the training's loss: the last answer, all answers of a conversation, or the prompt, too.",
        type=click.Choice(LOSSES),
        show_default="last",
    ),
    option(
        "--end",
        "The token that ended an answer in the training, or none.",
        metavar="TOKEN",
        show_default="the one that the template writes, or the end of sequence",
    ),
    option(
        "--max-length",
        "Rows are cut behind so many tokens, as the training cut them.",
        type=POSITIVE,
        metavar="N",
        show_default="the model's context, and longer rows are refused",
    ),
)
"""What has to be said of a training that counted other tokens than those of the last answer and its end."""
_device = option("--device", "cpu, cuda, cuda:1 or mps.", default="", show_default="a GPU where there is one")

other_model = together(
    option("--model", "The base model, if it isn't where the cache says.", type=PATH, metavar="MODEL", default=""),
    option("--adapter", "The adapter's folder, if it isn't where the cache says.", type=PATH, default=""),
    option("--template", "The prompt template, if it isn't the one that the cache names.", default=""),
    _device,
)
"""Another model than the one that a cache names."""


_PRECISIONS = {
    "mixed": "mixed takes products with frozen weights in bfloat16, all else in float32, for devices with units for it",
    "4bit": "4bit quantises them as QLoRA does",
}
"""What isn't said by the name alone."""


def base_model(*precisions: str, auto: str = "", default: str = embedded.NAME) -> Decorator:
    """The model to begin with, and the number formats that its weights can be converted to.

    `auto` is what is said of the precision `auto`, besides that it leaves weights as they are. Without a
    `default` the model is found elsewhere.
    """
    return together(
        option(
            "--model",
            f"The base model: {embedded.NAME}, which is embedded, a folder, or a model hub id.",
            type=PATH,
            metavar="MODEL",
            default=default,
            show_default=default or "as the run says",
        ),
        option(
            "--template",
            "The prompt template that the model was trained with: chat (the tokenizer's own), alpaca, plain (the "
            "answer right behind the prompt), or a file with {prompt} in it. `auto` is the one that the adapter's "
            "training.json names, or else chat.",
            default="auto",
        ),
        _device,
        option(
            "--precision",
            f"The number format of the base model's weights. `auto` leaves them as they are stored{auto}"
            + "".join(f"; {_PRECISIONS[each]}" for each in precisions if each in _PRECISIONS)
            + ".",
            type=click.Choice(["auto", *precisions]),
            default="auto",
        ),
    )


def on_ray(help: str) -> Decorator:
    """Where work is done: in this process, or on a Ray cluster."""
    return together(
        option("--engine", help, type=click.Choice(["in-process", "ray"]), default="in-process"),
        option("--address", "The address of a running Ray cluster.", default="", show_default="one on this machine"),
        option("--workers", "How many workers.", type=POSITIVE, show_default="as many as there is room for"),
    )


def _completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in METHODS if name.startswith(incomplete)]


method = option(
    "--method",
    "The attribution method; `rapidin-explorer methods` lists them.",
    default=DEFAULT,
    metavar="NAME[:VALUE]",
    shell_complete=_completed,
)


def numbers(text: str, option: str) -> list[int]:
    """`3,5,8-10`, as an option has it, as 3, 5, 8, 9, 10."""
    from explorer.errors import PromptError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise PromptError(f"{option} takes numbers and ranges such as 3,5,8-10, not {text}.")
        found += range(int(first), int(last or first) + 1)
    return found


def token_count(asked: str, examples: int) -> int:
    """How many of the examples shall have token projections, by what --tokens said."""
    from explorer.errors import ExplorerError

    if asked not in ("all", "none") and not asked.isdecimal():
        raise ExplorerError(f"--tokens takes all, none or a number, not {asked}.")
    return int(asked) if asked.isdecimal() else examples * (asked == "all")
