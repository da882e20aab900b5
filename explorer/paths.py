"""Where things lie: assets and pages beside the package, caches in the user's folder."""

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


def cache_home() -> Path:
    """The user's cache folder of this program (`RAPIDIN_CACHE`, else the XDG cache folder)."""
    own = os.environ.get("RAPIDIN_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "rapidin-explorer"
