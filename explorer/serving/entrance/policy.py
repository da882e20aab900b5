"""What browsers are told that they may do with what they get: an ASGI middleware that adds headers to every answer."""

import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_FILE = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
"""For what people wrote and took along, opened by its own address: it has no script, and belongs to nobody."""
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def page_policy(index: Path) -> str:
    """The content security policy of the pages whose frame is `index`; nothing comes from, or goes to, another host.

    Scripts are the server's own, those of the frame by their SHA-256, and those of the components, which Streamlit
    hands over as blobs. Styles are set by scripts everywhere, and so may stand in the page.
    """
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE.findall(index.read_bytes())
    ]
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self' blob: 'wasm-unsafe-eval'", *hashes]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "manifest-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


class Policy:
    """Adds the headers, and lets redirections lead to where the browser is, whatever proxy is between."""

    def __init__(self, app: ASGIApp, page: str, base_path: str = ""):
        """`page` is the policy of pages, which are served below `base_path`."""
        self._app, self._page, self._files = app, page, f"{base_path.rstrip('/')}/media/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add to the answer what it doesn't say itself."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                policy = _FILE if scope["path"].startswith(self._files) else self._page
                for name, value in ({"Content-Security-Policy": policy} | _ALWAYS).items():
                    headers.setdefault(name, value)
                if leads := headers.get("Location", ""):
                    headers["Location"] = _here(leads, scope)
            await send(message)

        await self._app(scope, receive, told if scope["type"] == "http" else send)


def _here(address: str, scope: Scope) -> str:
    """An address of this very server without scheme and host, which a browser behind a proxy knows better."""
    found = urlsplit(address)
    host = MutableHeaders(raw=list(scope["headers"])).get("Host", "")
    if not found.netloc or found.netloc != host or found.path.startswith("//"):
        return address
    return found._replace(scheme="", netloc="").geturl()
