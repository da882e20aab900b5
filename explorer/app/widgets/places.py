"""Where the pages stand, for links from one to another."""

import os

from explorer.paths import PAGES

EXPLORE, COMPARE, AUDIT, METHODS, HISTORY, DATA, CACHE = (
    os.fspath(PAGES / f"{name}.py") for name in ("explore", "compare", "audit", "methods", "history", "data", "cache")
)

SAVED = "saved"
"""The query parameter that names a saved answer or question: `history?saved=ID`."""
SIDES = ("a", "b")
"""Those that name the two saved answers, or questions about them: `compare?a=ID&b=ID`."""
CACHE_NAME = "cache"
"""The query parameter that names one of several served caches: `data?cache=NAME`."""
