"""What all commands have in common: help, one line and a status where something is wrong, a quick start."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from explorer.cache.store import Store, open_cache
from explorer.commands import cache
from explorer.commands.main import COMMANDS, main, parse
from explorer.commands.reference import commands, reference
from tests.commands.running import Captured, answered, refused
from tests.conftest import Tiny

REPOSITORY = Path(__file__).parents[2]


SOURCES = [path for room in ("explorer", "precompute", "pages") for path in (REPOSITORY / room).rglob("*.py")]
EVERY = {each.command_path.removeprefix("rapidin-explorer "): each for each in commands()}
"""Every command by its name."""


def options_of(name: str) -> list[str]:
    return [option for param in EVERY[name].command.params if isinstance(param, click.Option) for option in param.opts]


def test_every_command_is_listed(capsys: Captured) -> None:
    for group in ("", "evaluate"):
        out = answered(capsys, *group.split(), "--help")
        members = [name.removeprefix(group).split()[0] for name in EVERY if name.startswith(group)]
        assert [name for name in members if f"  {name} " not in out] == []
        assert "..." not in out.split("\n\n", 1)[1], "a summary is too long for 80 columns"


@pytest.mark.parametrize("name", EVERY)
def test_help_of_every_command_explains_all_its_options(capsys: Captured, name: str) -> None:
    out = answered(capsys, *name.split(), "-h")
    assert [option for option in options_of(name) if option not in out] == []
    params = [param for param in EVERY[name].command.params if isinstance(param, click.Option | click.Argument)]
    assert [param.name for param in params if not param.help] == []


@pytest.mark.parametrize("name", EVERY)
def test_examples_in_help_are_what_the_command_takes(capsys: Captured, name: str) -> None:
    _, examples = answered(capsys, *name.split(), "--help").split("\nExamples:\n")
    for line in examples.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "rapidin-explorer" and parse(arguments).command_path == EVERY[name].command_path


def test_a_command_is_needed(capsys: Captured) -> None:
    assert "Missing command. For help: rapidin-explorer --help" in refused(capsys)
    assert "Missing command. For help: rapidin-explorer evaluate --help" in refused(capsys, "evaluate")
    assert "No such command 'explain'" in refused(capsys, "explain")


def test_a_misspelt_name_is_answered_with_the_right_one(capsys: Captured) -> None:
    assert "Did you mean 'precompute'?" in refused(capsys, "precompile")
    assert "Did you mean 'backdoor'?" in refused(capsys, "evaluate", "back-door")
    said = refused(capsys, "query", "x", "--prompt", "y", "--oponents")
    assert re.search(r"Did you mean .*'--opponents'", said), said


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "cost", "--help"], ["query", "x", "--promt", "y"]])
def test_help_and_refusals_do_not_wait_for_torch(arguments: list[str]) -> None:
    code = f"import sys, explorer.commands.main as c; c.main({arguments}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"torch", "streamlit", "transformers", "pyarrow"} and "explorer.commands.evaluate" in loaded


def test_a_shell_can_complete_commands_options_and_methods() -> None:
    def completed(*words: str) -> list[str]:
        asked = {"_RAPIDIN_EXPLORER_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words)}
        own = os.environ | asked | {"COMP_CWORD": str(len(words) - 1)}
        command = [sys.executable, "-m", "explorer.commands"]
        done = subprocess.run(command, cwd=REPOSITORY, env=own, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("rapidin-explorer", "evaluate", "c") == ["calibration", "classes", "cost"]
    assert completed("rapidin-explorer", "query", "x", "--me") == ["--messages", "--method"]
    assert "bm25" in completed("rapidin-explorer", "query", "x", "--method", "b")


def test_options_named_in_messages_and_help_exist() -> None:
    known = {option for name in EVERY for option in options_of(name)}
    # pip's, Streamlit's, Ray's
    foreign = {"--quiet", "--no-deps", "--only-binary", "--dest", "--server", "--browser", "--head"}
    named = {
        (path.name, option)
        for path in SOURCES
        if path.name != "report_html.py"  # It has a style sheet's variables.
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text())
    }
    assert {pair for pair in named if pair[1] not in known | foreign | {"--help"}} == set()


def test_commands_named_in_messages_exist() -> None:
    named = {name for path in SOURCES for name in re.findall(r"`rapidin-explorer ([a-z]+)", path.read_text())}
    assert named and named <= set(COMMANDS.commands)


@pytest.mark.parametrize("command", [("query", "--prompt", "x"), ("info",), ("verify",), ("serve",)])
def test_a_folder_that_is_no_cache_is_refused(capsys: Captured, tmp_path: Path, command: tuple[str, ...]) -> None:
    said = refused(capsys, command[0], tmp_path / "nothing", *command[1:])
    assert "is no cache" in said and "`rapidin-explorer precompute`" in said


def test_ready_prompts_that_cannot_be_read_are_refused_before_anything_is_served(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "Why?"}\n{"prompt": 3}\n')
    assert "line 2, has no text as" in refused(capsys, "serve", tiny.cache, "--probes", tmp_path / "probes.jsonl")
    assert "can't be read" in refused(capsys, "serve", tiny.cache, "--probes", "/nowhere")


@pytest.mark.parametrize("command", [("query", "--prompt", "x"), ("serve",)])
def test_an_unfinished_cache_is_refused(capsys: Captured, tiny: Tiny, tmp_path: Path, command: tuple[str, ...]) -> None:
    cache = Path(shutil.copytree(tiny.cache, tmp_path / "cache"))
    Store(cache, replace(open_cache(cache).contents, shards=())).save()
    said = refused(capsys, command[0], cache, *command[1:])
    assert "unfinished (0 of 7 examples)" in said and "run the same `rapidin-explorer precompute` again" in said


def test_a_refusal_is_one_line_in_a_process_of_its_own(tiny: Tiny) -> None:
    command = [sys.executable, "-m", "explorer.commands", "query", str(tiny.cache), "--prompt", "x" * 500]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"rapidin-explorer: The text is .*; shorten it\.\n", done.stderr), done.stderr


def test_ctrl_c_ends_with_130_and_keeps_what_was_finished(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.info, "callback", stopped)
    assert main(["info", "x"]) == 130
    assert "stopped; what was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize(("reader", "read"), [("head -c 10", 10), ("true", 0)])
def test_a_reader_that_has_seen_enough_is_no_mistake(reader: str, read: int) -> None:
    command = f"{sys.executable} -m explorer.commands methods | {reader}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", read)


def test_the_reference_of_commands_says_what_their_help_says() -> None:
    kept = (REPOSITORY / "docs/commands.md").read_text(encoding="utf-8")
    assert kept == reference(), "docs/commands.md is stale; `make reference` writes it anew"


def test_the_reference_is_the_same_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = reference()
    monkeypatch.setenv("COLUMNS", "40")
    assert reference() == usual
