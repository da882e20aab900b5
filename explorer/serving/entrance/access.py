"""Who may come in: the token that is asked for, and what a browser keeps once it has shown it."""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from explorer.errors import ExplorerError
from explorer.paths import data_home

PERSON = "X-Rapidin-Person"
"""The header in which pages find who asks. What a browser says in it is never passed on."""
_VARIABLE = "RAPIDIN_ACCESS"
_SHORTEST = 8
_TOKEN = re.compile(r"[!-~]+")
"""What stands in an address and in a header without being misread: printable ASCII without spaces."""
_KEY_BYTES = 32


@dataclass(frozen=True)
class Access:
    """Who may come in."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """Each person's token under the name; a token of everybody's under the empty name; none to let everyone in."""
    key: str = ""
    """What browsers' cookies are made with, beside the token. Nobody can guess a token by making up cookies."""
    path: str = "/"
    """The path that the pages are served below; browsers show their cookies there alone."""
    proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose headers are believed."""
    person_header: str = ""
    """The header in which these proxies name the person, whom they have let in; empty where they name nobody."""

    @property
    def open(self) -> bool:
        """Whether nobody is asked for a token."""
        return not self.tokens

    def person(self, token: str) -> str | None:
        """Whose token it is; None for nobody's. It takes as long for every token of the same length."""
        return _whose(token, self.tokens)

    def cookie(self, person: str) -> str:
        """What the person's browser keeps in place of the token, in hexadecimal."""
        return hmac.new(self.key.encode(), self.tokens[person].encode(), hashlib.sha256).hexdigest()

    def keeper(self, cookie: str) -> str | None:
        """Whose browser keeps this; None for nobody's."""
        return _whose(cookie, {person: self.cookie(person) for person in self.tokens})

    def environment(self) -> dict[str, str]:
        """The environment variable that carries this to the app's process."""
        return {_VARIABLE: json.dumps(asdict(self))}


def access_settings() -> Access:
    """Who may come in at this process; everyone outside `rapidin-explorer serve`."""
    given = json.loads(os.environ.get(_VARIABLE, "{}"))
    return Access(**given | {"proxies": tuple(given.get("proxies", ()))})


def checked_token(given: str) -> str:
    """A token that a person chose. Raises ExplorerError where it can't be one."""
    if len(given) < _SHORTEST or not _TOKEN.fullmatch(given):
        raise ExplorerError(
            f"A token of {len(given)} characters can't be used; expected at least {_SHORTEST} letters, digits and "
            "signs of ASCII without spaces. Without --token and --people one is made that nobody can guess."
        )
    return given


def new_token() -> str:
    """A token that nobody can guess: 192 random bits."""
    return secrets.token_urlsafe(24)


def cookie_key() -> str:
    """This user's key for cookies, made once, so that they stay good after a restart with the same token.

    Where it can't be kept it is another one for every start.
    """
    path = data_home() / "cookie-key"
    try:
        return _kept_key(path)
    except OSError:
        return secrets.token_hex(_KEY_BYTES)


def _kept_key(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    made.touch(mode=0o600, exist_ok=False)
    made.write_text(secrets.token_hex(_KEY_BYTES), encoding="ascii")
    try:
        os.link(made, path)  # Whole or not at all, and the first of several servers wins.
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_text(encoding="ascii")


def _whose(given: str, kept: Mapping[str, str]) -> str | None:
    found = None
    for person, value in kept.items():
        if hmac.compare_digest(given.encode(), value.encode()):
            found = person
    return found
