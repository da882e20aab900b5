"""`rapidin-explorer`: registers the commands, runs one, and turns what went wrong into one line and an exit status."""

import os
import shlex
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from explorer.commands import audit, cache, counterfactual, evaluate, prepare, query, serve
from explorer.commands.open import open_run
from explorer.commands.options import Group
from explorer.commands.proving.bundle import bundle
from explorer.commands.proving.repair import repair
from explorer.errors import ExplorerError

# Idle OpenMP threads spin, which keeps cores from other processes; not at all would halve our own speed.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

PROGRAM = "rapidin-explorer"
_COMPLETION = "_RAPIDIN_EXPLORER_COMPLETE"
"""The variable by which a shell asks for completions."""

COMMANDS = Group(
    PROGRAM,
    {
        "In a browser": (serve.demo, open_run, serve.serve, serve.history),
        "Without a browser": (
            query.query,
            query.methods,
            audit.audit,
            audit.behaviour,
            counterfactual.counterfactual,
        ),
        "After an audit": (bundle, repair),
        "Make an adapter and a cache": (prepare.finetune, prepare.precompute),
        "Look after a cache": (cache.info, cache.verify, cache.mend, cache.append, cache.drop),
        "Measure": (evaluate.evaluate,),
    },
    help="Which training examples made this model say that? RapidIn (ACL 2024) in a browser.\n\n"
    "First `finetune` (or bring your own model), then `precompute`, then `serve`. `demo` shows all of it.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did its work, 2 when the person has to mend something."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if asked := os.environ.get(_COMPLETION):
        return shell_complete(COMMANDS, {}, PROGRAM, _COMPLETION, asked)
    _quiet_libraries()
    try:
        with COMMANDS.make_context(PROGRAM, list(typed), obj=shlex.join([PROGRAM, *typed])) as context:
            code = int(COMMANDS.invoke(context) or 0)
        sys.stdout.flush()
        return code
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as problem:
        about = problem.ctx.command_path if problem.ctx else PROGRAM
        return _refused(f"{problem.format_message()} For help: {about} --help")
    except ExplorerError as problem:
        return _refused(str(problem))
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more is to be flushed into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str]) -> click.Context:
    """The command that a command line names, with its options, not run. Raises click.UsageError where it is wrong."""
    context, rest = click.Context(COMMANDS, info_name=PROGRAM, **COMMANDS.context_settings), list(arguments)
    while isinstance(group := context.command, click.Group):
        name, command, rest = group.resolve_command(context, rest)
        assert command is not None
        if isinstance(command, click.Group):
            context = click.Context(command, parent=context, info_name=name)
        else:
            context = command.make_context(name, rest, parent=context)
    return context


def _refused(why: str) -> int:
    print(f"{PROGRAM}: {why}", file=sys.stderr)
    return 2


def _quiet_libraries() -> None:
    """Progress bars and advice of libraries would stand between our own lines."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
