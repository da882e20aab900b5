"""The one way in to everything that the server answers: pages, sockets, files, uploads, and how it is.

An ASGI middleware. It passes on what comes with a token, or with the cookie that a token was exchanged for, and
refuses all else before Streamlit sees it. It knows nothing of what lies behind.
"""

import math
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from explorer.serving.entrance.access import PERSON, Access
from explorer.serving.entrance.attempts import Attempts
from explorer.serving.entrance.proxies import Proxies
from explorer.serving.entrance.refusal import refusal

_KEPT_SECONDS = 30 * 24 * 3600
"""How long a browser keeps its cookie."""
_LONGEST_FORM = 4096
"""Bytes of a form that is read for a token."""


class _Refused(Exception):
    """Why nobody comes in, as a sentence; after so many seconds another token may be tried."""

    def __init__(self, why: str, wait: float = 0.0):
        super().__init__(why)
        self.why, self.wait = why, math.ceil(wait)


class Guard:
    """Lets in whom `Access` names."""

    def __init__(self, app: ASGIApp, access: Access):
        """`app` is what lies behind."""
        self._app, self._access, self._attempts = app, access, Attempts()
        self._proxies = Proxies(access.proxies, access.person_header)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer in place of what lies behind."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        try:
            token = None if self._access.open else _in_address(asked) or await _in_form(scope, receive)
            if token is None:
                await self._app(_told(scope, self._known(asked)), receive, send)
                return
            answer = self._exchanged(asked, self._person(asked, token))
        except _Refused as refused:
            answer = refusal(asked, refused.why, refused.wait)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _known(self, asked: HTTPConnection) -> str:
        """Who asks, by a trusted proxy, a token in the header or the cookie; raises _Refused where none is right."""
        if (named := self._proxies.person(asked)) is not None:
            return named
        if self._access.open:
            return ""
        kind, _, token = asked.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._person(asked, token)
        person = self._access.keeper(asked.cookies.get(_cookie_name(asked), ""))
        if person is None:
            raise _Refused("This page asks for a token. Whoever runs the server has it.")
        return person

    def _person(self, asked: HTTPConnection, token: str) -> str:
        """Whose token it is. Raises _Refused for a wrong one, and for any while the address has to wait."""
        address = self._proxies.address(asked)
        if wait := self._attempts.wait(address):
            raise _Refused(f"Too many wrong tokens. Try again in {math.ceil(wait)} s.", wait)
        person = self._access.person(token.strip())
        if person is None:
            self._attempts.wrong(address)
            raise _Refused("This is not the token. Whoever runs the server has the right one.")
        self._attempts.right(address)
        return person

    def _exchanged(self, asked: HTTPConnection, person: str) -> Response:
        """The cookie for a token, and the same address without it, so that links that people copy don't hold it."""
        answer = RedirectResponse(_without_token(asked), 303, {"Referrer-Policy": "no-referrer"})
        answer.set_cookie(
            _cookie_name(asked),
            self._access.cookie(person),
            _KEPT_SECONDS,
            path=self._access.path,
            secure=self._proxies.secure(asked),
            httponly=True,
            samesite="lax",
        )
        return answer


def _told(scope: Scope, person: str) -> Scope:
    """What lies behind is told who asks, by the guard alone."""
    headers = MutableHeaders(raw=[pair for pair in scope["headers"] if pair[0] != PERSON.lower().encode()])
    if person:
        headers[PERSON] = quote(person)
    return {**scope, "headers": headers.raw}


def _cookie_name(asked: HTTPConnection) -> str:
    """Cookies don't know ports; servers of one machine would take each other's."""
    return f"rapidin-access-{asked.scope['server'][1]}"


def _in_address(asked: HTTPConnection) -> str | None:
    """The token in a page's address."""
    return asked.query_params.get("token") if asked.scope.get("method") in ("GET", "HEAD") else None


async def _in_form(scope: Scope, receive: Receive) -> str | None:
    """The token in the form that `refusal` shows; the only form there is."""
    if scope.get("method") != "POST" or scope["type"] != "http":
        return None
    request = Request(scope, receive)
    if request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM:
            raise _Refused("This is not the form of this page.")
    return dict(parse_qsl(body.decode("latin-1"))).get("token", "")


def _without_token(asked: HTTPConnection) -> str:
    """The address that was asked for, from itself: right below any path, and never at another host."""
    rest = [pair for pair in asked.query_params.multi_items() if pair[0] != "token"]
    query = f"?{urlencode(rest)}" if rest else ""
    return f"./{quote(asked.url.path.rpartition('/')[2])}{query}"
