"""Who may import whom; and the check that says so can fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PRODUCT = sorted(path for room in ("explorer", "precompute", "pages") for path in (REPOSITORY / room).rglob("*.py"))
NUMPY_ONLY = {"errors", "config", "paths", "records", "recent", "hashes", "reader", "normalisation"}
NUMPY_ONLY |= {"manifest", "shards", "files", "table", "store", "generations", "verify", "scores", "views", "worker"}
NUMPY_ONLY |= {
    "cluster",
    "objects",
    "audit",
    "comparing",
    "stability",
    "agreement",
    "stepwise",
    "methods.description",
    "methods.fitted",
}
NUMPY_ONLY |= {"methods.results", "methods.tables"}
"""Modules of `explorer` that must never load torch."""


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
    """Every layering rule that a module at `path` (relative to the repository) breaks."""
    found = []
    room = Path(path).parts[0]
    in_app = path.startswith("explorer/app/") or room == "pages"
    if not in_app and imports_any(source, "streamlit"):
        found.append(f"{path} imports streamlit; only explorer/app and pages may")
    torch = imports_any(source, "torch", "transformers", "peft", "safetensors.torch")
    if in_app and torch:
        found.append(f"{path} imports {sorted(torch)[0]}; pages get numpy arrays and records")
    own = path.removeprefix("explorer/").removesuffix(".py").replace("/", ".")
    if own in NUMPY_ONLY and torch:
        found.append(f"{path} imports {sorted(torch)[0]}; it is numpy only")
    if room == "explorer" and path != "explorer/cli.py" and imports_any(source, "precompute"):
        found.append(f"{path} imports precompute; of explorer only cli.py may")
    if room == "pages" and imports_any(source, "precompute"):
        found.append(f"{path} imports precompute; pages only read")
    if not in_app and path != "explorer/cli.py" and any(n.startswith("explorer.app") for n in imported(source)):
        found.append(f"{path} imports the app; the library doesn't know its pages")
    if imports_any(source, "pickle", "dill", "joblib", "shelve", "cloudpickle"):
        found.append(f"{path} imports a pickling module; nothing is pickled")
    loads = {"torch.load", "torch.save", "np.load", "numpy.load"}
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    if (calls | imported(source)) & loads:
        found.append(f"{path} uses {', '.join(sorted((calls | imported(source)) & loads))}, which can unpickle")
    if imports_any(source, "ray") and path != "explorer/cluster.py":
        found.append(f"{path} imports ray; it is imported by explorer/cluster.py when a cluster is asked for")
    if imports_any(source, "tests"):
        found.append(f"{path} imports the tests")
    return found


@pytest.mark.parametrize("path", [path.relative_to(REPOSITORY).as_posix() for path in PRODUCT])
def test_a_module_imports_only_what_its_layer_may(path: str) -> None:
    assert offences(path, (REPOSITORY / path).read_text(encoding="utf-8")) == []


def test_all_rooms_are_looked_at() -> None:
    rooms = {path.relative_to(REPOSITORY).parts[0] for path in PRODUCT}
    assert rooms == {"explorer", "precompute", "pages"} and len(PRODUCT) > 20
    missing = {name for name in NUMPY_ONLY if not (REPOSITORY / "explorer" / f"{name.replace('.', '/')}.py").is_file()}
    assert not missing, f"{missing} aren't modules any more; mend NUMPY_ONLY"


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("explorer/engine.py", "import streamlit as st", "imports streamlit"),
        ("precompute/build.py", "def f():\n    from streamlit import cache_resource", "imports streamlit"),
        ("explorer/store.py", "import torch", "numpy only"),
        ("explorer/scores.py", "def f():\n    import torch.nn", "numpy only"),
        ("explorer/methods/fitted.py", "import torch", "numpy only"),
        ("pages/explore.py", "from torch import Tensor", "pages get numpy"),
        ("explorer/app/desk.py", "import transformers", "pages get numpy"),
        ("explorer/engine.py", "from precompute.build import build_cache", "only cli.py may"),
        ("explorer/engine.py", "from explorer.app import desk", "doesn't know its pages"),
        ("pages/explore.py", "import precompute", "pages only read"),
        ("precompute/build.py", "import pickle", "nothing is pickled"),
        ("precompute/build.py", "import torch\nx = torch.load('f')", "can unpickle"),
        ("explorer/checkpoints.py", "from torch import load", "can unpickle"),
        ("precompute/build.py", "def f():\n    import ray", "when a cluster is asked for"),
        ("explorer/model.py", "from tests.tiny import ROWS", "imports the tests"),
    ],
)
def test_the_layering_check_finds_an_offence(path: str, source: str, said: str) -> None:
    (offence,) = offences(path, source)
    assert said in offence


def test_the_layering_check_allows_what_is_right() -> None:
    assert offences("explorer/app/state.py", "import streamlit as st") == []
    assert offences("explorer/cli.py", "from precompute.build import build_cache") == []
    assert offences("explorer/gradients.py", "import torch") == []
    assert offences("explorer/store.py", "from safetensors.numpy import save") == []


def loaded_by(modules: list[str], package: str) -> bool:
    """Whether importing the modules in a process of their own loads a package, however deep."""
    code = f"import sys, {', '.join(modules)}\nsys.exit(7 if {package!r} in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 7), done.stderr
    return done.returncode == 7


def test_numpy_modules_load_no_torch_however_deep() -> None:
    assert not loaded_by([f"explorer.{name}" for name in sorted(NUMPY_ONLY)], "torch")


def test_the_check_for_loaded_packages_can_fail() -> None:
    assert loaded_by(["explorer.cache.store"], "numpy")


def test_the_library_loads_no_streamlit_and_no_ray() -> None:
    library = [f"explorer.{path.stem}" for path in (REPOSITORY / "explorer").glob("*.py") if path.stem != "__init__"]
    library += [f"explorer.methods.{path.stem}" for path in (REPOSITORY / "explorer" / "methods").glob("[a-z]*.py")]
    jobs = [f"precompute.{path.stem}" for path in (REPOSITORY / "precompute").glob("*.py") if path.stem != "__init__"]
    assert not loaded_by(library + jobs, "streamlit")
    assert not loaded_by(library + jobs, "ray")
