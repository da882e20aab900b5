"""The documents can't lie about commands, files and rooms."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import plan
from explorer.commands.main import parse
from explorer.evaluation.results import load
from explorer.evaluation.tables import TITLES, markdown

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "ARCHITECTURE.md")
ALL_DOCUMENTS = (*DOCUMENTS, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
ROOMS = ("explorer", "explorer/methods", "explorer/app", "precompute")


def commands(document: str) -> list[list[str]]:
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^\.venv/bin/rapidin-explorer (.*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.parametrize("document", (*DOCUMENTS, "docs/scaling.md"))
def test_every_shown_command_is_one_the_program_takes(document: str) -> None:
    shown = commands(document)
    assert shown, f"{document} shows no commands"
    for command in shown:
        parse(command)


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
        if not names.endswith(("py", "json", "parquet"))
        and not re.search(rf"^ *(?:(?:def|class) {name}\b|{name}(?::| =))", sources[module], re.MULTILINE)
    ]
    assert not missing, f"{document} names what isn't there: {missing}"


def test_the_plan_of_large_caches_is_what_its_formulas_give() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert plan.table() in text, "docs/scaling.md: put in its place what `python -m benchmarks.plan` prints"
    measured = (f"{plan.EXAMPLE_S} s", f"{plan.READ / 1e9:.0f} GB/s", f"{plan.TEXT} bytes", f"{plan.DRIVER / 1e3} kB")
    assert all(figure in text for figure in measured), "docs/scaling.md names other measured figures"
    caching = re.search(
        r"seconds an example, examples a pass \| ([\d.]+)", (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    )
    assert caching and float(caching[1]) == plan.EXAMPLE_S


RESULTS = (ROOT / "assets/demo/cache/methods/results", ROOT / "docs/results")


def test_the_tables_of_methods_are_those_of_the_kept_results() -> None:
    said: list[str] = []
    results = [result for folder in RESULTS for result in load(folder, said.append)]
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    where = " ".join(folder.relative_to(ROOT).as_posix() for folder in RESULTS)
    command = f".venv/bin/rapidin-explorer evaluate tables --results {where}"
    assert command in text
    assert markdown(results) in text, f"docs/methods.md: put in its place what `{command}` prints"
    assert not said and {result.kind for result in results} == set(TITLES), "every kind was run, and can be read"
    paths = [result.command for result in results if re.search(r"(^|[\s=])[/~]", result.command)]
    assert not paths, "commands name no place on somebody's machine"


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = {path.name for room in ROOMS for path in (ROOT / room).glob("*.py")}
    missing = {name for name in modules - {"__init__.py"} if name not in text}
    assert not missing, f"ARCHITECTURE.md doesn't say what these are for: {sorted(missing)}"
