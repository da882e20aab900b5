"""Who may import whom; and the checks that say so can fail."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from explorer.methods.description import METHODS

REPOSITORY = Path(__file__).parents[1]
ROOTS = ("explorer", "precompute", "pages")
PRODUCT = sorted(path for root in ROOTS for path in (REPOSITORY / root).rglob("*.py"))
ROOMS = [path.parent for path in PRODUCT if path.name == "__init__.py"]
MOST_MODULES, MOST_AT_THE_TOP = 12, 8


# The order of the rooms: import-linter, by the contracts in pyproject.toml


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the product in a folder."""
    shutil.copy(REPOSITORY / "pyproject.toml", folder / "pyproject.toml") if folder != REPOSITORY else None
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    there = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*command, "--no-cache"], cwd=folder, env=there, capture_output=True, text=True, check=False)


def test_rooms_import_downwards_streamlit_stays_in_the_app_and_no_tensors_lie_behind_the_records() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout


def test_the_check_of_the_rooms_order_can_fail(tmp_path: Path) -> None:
    for root in ROOTS:
        shutil.copytree(REPOSITORY / root, tmp_path / root, ignore=shutil.ignore_patterns("__pycache__"))
    offences = {
        "explorer/cache/store.py": ("from explorer.engine import Engine", "explorer.cache is not allowed to import"),
        "explorer/engine.py": ("from precompute.build import build_cache", "explorer.engine is not allowed to import"),
        "explorer/methods/bench.py": ("import streamlit", "Streamlit is for pages and the app alone BROKEN"),
        "explorer/records.py": ("def f():\n    import torch", "No tensors behind the records BROKEN"),
        "explorer/app/session/state.py": (
            "from explorer.app.explore import answer",
            "The app's rooms import downwards BROKEN",
        ),
    }
    for module, (line, _) in offences.items():
        with (tmp_path / module).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    assert not [said for _, said in offences.values() if said not in done.stdout], done.stdout


# What holds of single modules


def imported(source: str) -> set[str]:
    """Every module a source imports anywhere in it, by its full name, and what is taken from it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_any(source: str, *packages: str) -> set[str]:
    """What a source imports of these packages."""
    return {name for name in imported(source) if name.split(".")[0] in packages}


def offences(path: str, source: str) -> list[str]:
    """Every rule of its own that a module at `path` (relative to the repository) breaks."""
    found = []
    in_app = path.startswith(("explorer/app/", "pages/"))
    torch = imports_any(source, "torch", "transformers", "peft", "safetensors.torch")
    if in_app and torch:
        found.append(f"{path} imports {sorted(torch)[0]}; pages get numpy arrays and records")
    if imports_any(source, "pickle", "dill", "joblib", "shelve", "cloudpickle"):
        found.append(f"{path} imports a pickling module; nothing is pickled")
    loads = {"torch.load", "torch.save", "np.load", "numpy.load"}
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    if (calls | imported(source)) & loads:
        found.append(f"{path} uses {', '.join(sorted((calls | imported(source)) & loads))}, which can unpickle")
    if imports_any(source, "ray") and path != "explorer/retrieval/cluster.py":
        found.append(f"{path} imports ray; it is imported by explorer/retrieval/cluster.py when a cluster is asked for")
    if imports_any(source, "tests"):
        found.append(f"{path} imports the tests")
    return found


@pytest.mark.parametrize("path", [path.relative_to(REPOSITORY).as_posix() for path in PRODUCT])
def test_a_module_imports_only_what_it_may(path: str) -> None:
    assert offences(path, (REPOSITORY / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("pages/explore.py", "from torch import Tensor", "pages get numpy"),
        ("explorer/app/desk/desk.py", "import transformers", "pages get numpy"),
        ("precompute/build.py", "import pickle", "nothing is pickled"),
        ("precompute/build.py", "import torch\nx = torch.load('f')", "can unpickle"),
        ("explorer/model/checkpoints.py", "from torch import load", "can unpickle"),
        ("precompute/build.py", "def f():\n    import ray", "when a cluster is asked for"),
        ("explorer/model/language_model.py", "from tests.tiny import ROWS", "imports the tests"),
    ],
)
def test_the_check_of_single_modules_finds_an_offence(path: str, source: str, said: str) -> None:
    (offence,) = offences(path, source)
    assert said in offence


def test_the_check_of_single_modules_allows_what_is_right() -> None:
    assert offences("explorer/app/session/state.py", "import streamlit as st") == []
    assert offences("explorer/gradients/losses.py", "import torch") == []
    assert offences("explorer/cache/store.py", "from safetensors.numpy import save") == []


# How large a room may be


def test_no_room_holds_more_than_one_can_know() -> None:
    modules = {
        room: [path for path in room.glob("*.py") if path.stem not in ("__init__", "__main__")] for room in ROOMS
    }
    large = {room.name: len(found) for room, found in modules.items() if len(found) > MOST_MODULES}
    assert not large and len(modules) > 20
    assert len(modules[REPOSITORY / "explorer"]) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.relative_to(REPOSITORY).as_posix())
def test_a_room_says_at_its_door_what_it_is_for(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert said and len(said.splitlines()) <= 10


# What is loaded, however deep


def loaded_by(modules: list[str], *packages: str) -> set[str]:
    """Which of the packages importing the modules in a process of their own loads."""
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(packages).intersection(done.stdout.split())


LIGHT = ["records", "views", "cache", "corpus", "history", "trust", "concurrency", "serving.config"]
LIGHT += [
    "bundles.sealed",
    "bundles.words",
    "methods.description",
    "methods.fitted",
    "evaluation.results",
    "evaluation.tables",
    "auditing.findings",
]


def test_what_pages_need_to_begin_with_loads_no_torch() -> None:
    assert not loaded_by([f"explorer.{name}" for name in LIGHT], "torch")


def test_the_check_for_loaded_packages_can_fail() -> None:
    assert loaded_by(["explorer.cache"], "numpy")


def test_the_library_loads_no_streamlit_and_no_ray() -> None:
    names = [path.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".") for path in PRODUCT]
    library = [name for name in names if not name.startswith(("explorer.app", "pages")) and "__" not in name]
    assert not loaded_by(library, "streamlit", "ray")


# Methods are asked what they can say, never which they are


def names_methods(path: str) -> set[str]:
    """The methods that a module names; what is an everyday word, or the product's own name, doesn't count."""
    names = "|".join(name for name in METHODS if name not in ("random", "embedding"))
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    return set(re.findall(rf"(?<![\w.-])(?:{names})(?![\w-]|\.\w)", text))


def test_no_module_of_app_history_auditing_or_pages_names_a_method() -> None:
    rooms = ("explorer/app/", "explorer/history/", "explorer/auditing/", "explorer/trust/", "explorer/cache/", "pages/")
    paths = [path.relative_to(REPOSITORY).as_posix() for path in PRODUCT]
    found = {path: named for path in paths if path.startswith(rooms) and (named := names_methods(path))}
    assert not found
    assert names_methods("explorer/methods/description.py") and names_methods("explorer/commands/evaluate/comparing.py")
