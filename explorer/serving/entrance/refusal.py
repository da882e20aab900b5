"""What stands before the pages for whoever has shown no token."""

import html
import http

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response

_HEADERS = {
    "WWW-Authenticate": "Bearer",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>RapidIn Explorer: token</title>
<style>
  :root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
  body {{ max-width: 32rem; margin: 15vh auto; padding: 0 1rem; }}
  input, button {{ font: inherit; padding: 0.4rem 0.6rem; }}
</style>
<h1>RapidIn Explorer</h1>
<p role="status">{why}</p>
<form method="post">
  <label>Token <input name="token" type="password" autocomplete="current-password" required autofocus></label>
  <button>Enter</button>
</form>
</html>
"""


def refusal(asked: HTTPConnection, why: str, wait: int = 0) -> Response:
    """Say why: on a page with a form to a browser that opens one, in a line to all others.

    The status is 401 (a token is needed), or 429 (too many were wrong; after `wait` seconds another may be tried).
    """
    status = http.HTTPStatus.TOO_MANY_REQUESTS if wait else http.HTTPStatus.UNAUTHORIZED
    headers = _HEADERS | ({"Retry-After": str(wait)} if wait else {})
    if "text/html" in asked.headers.get("Accept", ""):
        return HTMLResponse(_PAGE.format(why=html.escape(why)), status, headers)
    return PlainTextResponse(f"{why}\n", status, headers)
