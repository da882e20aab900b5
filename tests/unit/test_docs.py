"""The documents can't lie about commands, files and rooms."""

import re
import shlex
from pathlib import Path

import pytest

from explorer.cli import parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md")
ALL_DOCUMENTS = (*DOCUMENTS, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
ROOMS = ("explorer", "explorer/app", "precompute")


def commands(document: str) -> list[list[str]]:
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^\.venv/bin/rapidin-explorer (.*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_shown_command_is_one_the_program_takes(document: str) -> None:
    shown = commands(document)
    assert shown, f"{document} shows no commands"
    for command in shown:
        parser().parse_args(command)


@pytest.mark.parametrize("document", ALL_DOCUMENTS)
def test_every_linked_file_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert all((ROOT / document).parent.joinpath(link).is_file() for link in links), links


@pytest.mark.parametrize("document", ALL_DOCUMENTS)
def test_every_name_of_a_module_exists(document: str) -> None:
    """`module.name` and `module.Class.name`, whatever of it the module defines or assigns."""
    sources = {path.stem: path.read_text(encoding="utf-8") for room in ROOMS for path in (ROOT / room).glob("*.py")}
    text = (ROOT / document).read_text(encoding="utf-8")
    named = [(module, names) for module, names in re.findall(r"`(\w+)\.([\w.]+)`", text) if module in sources]
    missing = [
        f"{module}.{names}"
        for module, names in named
        for name in names.split(".")
        if names != "py"
        and not re.search(rf"^ *(?:(?:def|class) {name}\b|{name}(?::| =))", sources[module], re.MULTILINE)
    ]
    assert not missing, f"{document} names what isn't there: {missing}"


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = {path.name for room in ROOMS for path in (ROOT / room).glob("*.py")}
    missing = {name for name in modules - {"__init__.py"} if name not in text}
    assert not missing, f"ARCHITECTURE.md doesn't say what these are for: {sorted(missing)}"
