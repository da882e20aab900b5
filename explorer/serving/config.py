"""What the server was started with, handed from the command line to the app."""

import json
import os
from dataclasses import asdict, dataclass

_VARIABLE = "RAPIDIN_SERVE"


@dataclass(frozen=True)
class ServeSettings:
    """What `rapidin-explorer serve` was told."""

    caches: tuple[str, ...] = ()
    """Folders of the caches, the first one shown first; none to serve the history alone."""
    model: str = ""
    """Base model; empty for the one each cache names."""
    adapter: str = ""
    """Adapter folder; empty for the one each cache names."""
    template: str = ""
    """Prompt template; empty for the one each cache names."""
    device: str = ""
    """Empty for the GPU where there is one."""
    probes: str = ""
    """A JSON-lines file of ready example prompts."""
    history: str = ""
    """The file that keeps every question; empty for the one in the user's data folder."""
    shared_history: bool = True
    """Whether people see each other's saved questions."""

    def environment(self) -> dict[str, str]:
        """The environment variable that carries the settings to the app's process."""
        return {_VARIABLE: json.dumps(asdict(self))}


def serve_settings() -> ServeSettings:
    """The settings of this process. Raises KeyError outside `rapidin-explorer serve`."""
    given = json.loads(os.environ[_VARIABLE])
    return ServeSettings(**given | {"caches": tuple(given.get("caches", ()))})
