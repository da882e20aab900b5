"""Where things lie: assets and pages beside the package, caches and the history in the user's folders."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """The shipped folder `name`: beside the package in a checkout, inside it in a wheel."""
    beside = _PACKAGE.parent / name
    return beside if beside.is_dir() else _PACKAGE / name


ASSETS = _shipped("assets")
PAGES = _shipped("pages")
DEMO = ASSETS / "demo"
EXAMPLE = "example"
"""The saved answer in `example.sqlite` beside a demo's probes."""


def cache_home() -> Path:
    """The user's cache folder of this program (`RAPIDIN_CACHE`, else the XDG cache folder)."""
    own = os.environ.get("RAPIDIN_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rapidin-explorer"


def data_home() -> Path:
    """The user's folder for what this program keeps for good (`RAPIDIN_DATA`, else the XDG data folder)."""
    own = os.environ.get("RAPIDIN_DATA")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "rapidin-explorer"
