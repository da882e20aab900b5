"""The documents can't lie about commands, files, links and rooms."""

import ast
import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import plan
from explorer.commands.main import parse
from explorer.evaluation.results import load
from explorer.evaluation.tables import TITLES, markdown

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", *PAGES)
SHOWING = ("using", "serving", "demo", "methods", "scaling")
SHOWING_COMMANDS = ("README.md", *(f"docs/{name}.md" for name in SHOWING))
PACKAGES = ("explorer", "precompute")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    text = read(document).replace("\\\n", " ")
    found = re.findall(r"^\.venv/bin/rapidin-explorer (.*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def anchors(text: str) -> set[str]:
    """What a link may name behind `#`: headings as GitHub writes them, a repeated one with its number."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), flags=re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "", heading)
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(document: str, text: str) -> list[str]:
    """The links of a document that lead nowhere within the repository."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent.joinpath(path) if path else ROOT / document
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            found.append(link)
    return found


def defined(module: str, names: str) -> bool:
    """Whether a module of this name defines or assigns all of `Class.name`, one of several if more are called so."""
    sources = [path.read_text(encoding="utf-8") for path in MODULES if path.stem == module]
    return any(
        all(
            re.search(rf"^ *(?:(?:def|class) {name}\b|{name}(?::| =))", source, re.MULTILINE)
            for name in names.split(".")
        )
        for source in sources
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_shown_command_is_one_the_program_takes(document: str) -> None:
    shown = commands(document)
    assert shown or document not in SHOWING_COMMANDS, f"{document} shows no commands"
    for command in shown:
        parse(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document: str) -> None:
    assert not broken(document, read(document)), f"{document}: these links lead nowhere"


def test_the_check_of_links_can_fail() -> None:
    text = "[a](docs/no-such.md) [b](ARCHITECTURE.md#no-such) [c](ARCHITECTURE.md#rooms) [d](https://example.org/x)"
    assert broken("README.md", text) == ["docs/no-such.md", "ARCHITECTURE.md#no-such"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_path_exists(document: str) -> None:
    folders = "|".join((*PACKAGES, "pages", "assets", "benchmarks", "docs", "tests"))
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(read(document)))
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing, f"{document} names what isn't there: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_to_be_run_exists(document: str) -> None:
    named = re.findall(r"python -m ((?:explorer|precompute|benchmarks)[.\w]*\w)", read(document))
    missing = [name for name in named if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]
    assert not missing, f"{document} names what isn't there: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_of_a_module_exists(document: str) -> None:
    """`module.name` and `module.Class.name`, whatever of it the module defines or assigns."""
    stems = {path.stem for path in MODULES}
    named = [(module, names) for module, names in re.findall(r"`(\w+)\.([\w.]+)`", read(document)) if module in stems]
    missing = [
        f"{module}.{names}"
        for module, names in named
        if not names.endswith(("py", "js", "json", "parquet")) and not defined(module, names)
    ]
    assert not missing, f"{document} names what isn't there: {missing}"


def test_every_formula_names_code_that_exists() -> None:
    """Under *Code:* every name is one of a module, and so none is passed over because its module is gone."""
    said = re.findall(r"^\*Code:\*(.*?)(?:\*Proof:\*|\n\n)", read("docs/mathematics.md"), re.MULTILINE | re.DOTALL)
    named = [name for part in said for name in re.findall(r"`(\w+)\.([\w.]+)`", part)]
    assert len(named) > 40
    missing = [f"{module}.{names}" for module, names in named if not defined(module, names)]
    assert not missing, f"docs/mathematics.md names what isn't there: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_shown_python_imports_what_exists(document: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", read(document), flags=re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in PACKAGES:
                source = ROOT / f"{str(node.module).replace('.', '/')}.py"
                assert source.is_file(), f"{document}: no module {node.module}"
                text = source.read_text(encoding="utf-8")
                missing = [name.name for name in node.names if not re.search(rf"(?:def|class) {name.name}\b", text)]
                assert not missing, f"{document}: {node.module} has no {missing}"


@pytest.mark.parametrize(("document", "most"), [("README.md", 120), ("ARCHITECTURE.md", 200)])
def test_the_first_documents_stay_short(document: str, most: int) -> None:
    lines = len(read(document).splitlines())
    assert lines <= most, f"{document} has {lines} lines; move details to docs/"


def test_the_architecture_names_every_room_and_module_at_the_top() -> None:
    text = read("ARCHITECTURE.md")
    parents = (ROOT / "explorer", ROOT / "explorer/app", ROOT / "explorer/methods")
    rooms = {path.parent for parent in parents for path in parent.glob("*/__init__.py")}
    names = {f"`{room.relative_to(ROOT).as_posix()}/`" for room in (*rooms, ROOT / "precompute")}
    names |= {f"`explorer/{path.name}`" for path in (ROOT / "explorer").glob("*.py") if path.stem != "__init__"}
    missing = {name for name in names if name not in text}
    assert not missing, f"ARCHITECTURE.md doesn't say what these are for: {sorted(missing)}"


def test_every_decision_is_listed() -> None:
    index = read("docs/decisions/README.md")
    notes = {path.name for path in (ROOT / "docs/decisions").glob("*.md")} - {"README.md"}
    missing = {name for name in notes if f"]({name})" not in index}
    assert not missing, f"docs/decisions/README.md doesn't list {sorted(missing)}"


def test_the_plan_of_large_caches_is_what_its_formulas_give() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert plan.table() in text, "docs/scaling.md: put in its place what `python -m benchmarks.plan` prints"
    measured = (f"{plan.EXAMPLE_S} s", f"{plan.READ / 1e9:.0f} GB/s", f"{plan.TEXT} bytes", f"{plan.DRIVER / 1e3} kB")
    assert all(figure in text for figure in measured), "docs/scaling.md names other measured figures"
    measurements = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    caching = re.search(r"seconds an example, examples a pass \| ([\d.]+)", measurements)
    assert caching and float(caching[1]) == plan.EXAMPLE_S
    assert "9.5 kB of the writer's memory" in measurements and "253 bytes of text" in measurements


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


def test_a_container_gets_what_the_wheel_is_made_of_and_nothing_else() -> None:
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    copied = [line.split()[1:] for line in read("Dockerfile").splitlines() if line.startswith("COPY ")]
    assert {name for names in copied for name in names[:-1]} == files | set(wheel)
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert sent == files | set(wheel)


def test_tests_that_a_document_names_are_there() -> None:
    found = {name for page in DOCUMENTS for name in re.findall(r"`(test_\w+)`", read(page))}
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert found and not [name for name in found if f"def {name}(" not in tests]
