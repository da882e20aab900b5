"""`python -m explorer.commands.reference`: every command's help as one Markdown document, docs/commands.md."""

from collections.abc import Iterator

import click

from explorer.commands.main import COMMANDS, PROGRAM
from explorer.commands.options import Command, Group

_HEAD = f"""# Commands

What `{PROGRAM} COMMAND --help` says, for every command. `make reference` writes this document.
"""


def commands(group: Group = COMMANDS, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Every command that does something, in the order of the help, with the names that lead to it."""
    context = click.Context(group, parent=parent, info_name=group.name)
    for name in group.list_commands(context):
        command = group.commands[name]
        if isinstance(command, Group):
            yield from commands(command, context)
        else:
            yield click.Context(command, parent=context, info_name=name)


def reference() -> str:
    """The document. It doesn't depend on the width of a terminal."""
    return "\n".join([_HEAD, *_contents(), *(_section(each) for each in commands())])


def _contents() -> Iterator[str]:
    for heading, family in COMMANDS.families.items():
        names = [name for each in family for name in _names(each)]
        links = ", ".join(f"[{name}](#{name.replace(' ', '-')})" for name in names)
        yield f"- {heading}: {links}"
    yield ""


def _names(command: click.Command) -> list[str]:
    inner = command.commands if isinstance(command, Group) else ()
    return [f"{command.name} {name}" for name in inner] or [str(command.name)]


def _section(context: click.Context) -> str:
    command = context.command
    assert isinstance(command, Command)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path.removeprefix(PROGRAM).strip()}", _help(command), f"```\n{usage}\n```"]
    shown = [_item(param, context) for param in command.get_params(context) if "--help" not in param.opts]
    parts += ["\n".join(shown), "\n".join(["```sh", *command.shown_examples(context), "```"])]
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command) -> str:
    """The help, a paragraph a line."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _item(param: click.Parameter, context: click.Context) -> str:
    """A parameter's line in the list."""
    record = param.get_help_record(context)
    assert record is not None
    name, text = record
    return f"- `{name}`: {' '.join(text.split())}"


if __name__ == "__main__":
    print(reference(), end="")
