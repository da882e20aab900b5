"""Runs commands as a person would, and takes what they print."""

from pathlib import Path

import pytest

from explorer.commands.main import main
from tests.conftest import Tiny

REPOSITORY = Path(__file__).parents[2]


Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *arguments: object) -> str:
    """What a command says on stderr when it ends with status 2."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    # Of a library that a test imported before the command, and of progress up to the refusal.
    noise = ("Loading weights", "exact values:", "points on the way:")
    said = [line for line in output.err.splitlines() if line and not line.startswith(noise)]
    assert status == 2, f"ended with {status}: {output.err}"
    assert len(said) == 1, f"said more than one line: {output.err}"
    assert said[0].startswith("rapidin-explorer: ") and "Traceback" not in output.err
    return said[0]


def answered(capsys: Captured, *arguments: object) -> str:
    """What a command prints when it does its work."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def precompute_command(tiny: Tiny, cache: Path, *options: object) -> list[object]:
    command: list[object] = ["precompute", cache, "--data", tiny.data, "--model", tiny.model, "--adapter", tiny.adapter]
    return [*command, "--k", "1024", "--token-k", "256", "--device", "cpu", "--null-prompts", "0", *options]


def reported(capsys: Captured, *arguments: object) -> list[str]:
    """The lines a command says on stderr when it does its work, but for progress bars."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    return [line for line in output.err.splitlines() if line and "%|" not in line]
