"""How the server is, in numbers and without a text of anybody's: as JSON, and as Prometheus reads it."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import psutil  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Condition:
    """How the server is."""

    caches: dict[str, bool]
    """Whether its model is loaded, for each cache that is served by its name."""
    people_waiting: int
    """How many wait for something that is computed."""
    browsers: int = 0
    """Pages that are open."""
    up_seconds: float = 0.0
    memory_bytes: int = 0
    """Memory of the process that computes."""


class Watch:
    """Counts what is asked of the server and how long it takes."""

    def __init__(self) -> None:
        """The server begins now."""
        self._begun, self._browsers = time.monotonic(), 0
        self._answers, self._seconds = Counter[int](), 0.0

    def counting(self, app: ASGIApp) -> ASGIApp:
        """An app that is counted: its answers by status, its open sockets."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await self._socket(app, scope, receive, send)
                return
            begun = time.monotonic()

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._answers[message["status"]] += 1
                    self._seconds += time.monotonic() - begun
                await send(message)

            await app(scope, receive, sent)

        return counted

    async def _socket(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def sent(message: Message) -> None:
            nonlocal accepted
            if message["type"] == "websocket.accept":
                accepted = True
                self._browsers += 1
            await send(message)

        try:
            await app(scope, receive, sent)
        finally:
            self._browsers -= accepted

    def routes(self, base_path: str, condition: Callable[[], Condition]) -> Sequence[Route]:
        """`/status` as JSON and `/metrics` for Prometheus; `condition` says what lies behind."""

        def now() -> Condition:
            memory = psutil.Process().memory_info().rss
            up = time.monotonic() - self._begun
            return replace(condition(), browsers=self._browsers, up_seconds=up, memory_bytes=memory)

        def status(request: Request) -> Response:
            return JSONResponse({"up": True} | asdict(now()), headers={"Cache-Control": "no-store"})

        def metrics(request: Request) -> Response:
            return PlainTextResponse(self._prometheus(now()), media_type="text/plain; version=0.0.4")

        base = base_path.rstrip("/")
        return [Route(f"{base}/status", status), Route(f"{base}/metrics", metrics)]

    def _prometheus(self, now: Condition) -> str:
        lines = [
            *_family("up_seconds", "gauge", "Seconds since the server started.", {"": now.up_seconds}),
            *_family("memory_bytes", "gauge", "Memory of the process that computes.", {"": now.memory_bytes}),
            *_family("browsers", "gauge", "Pages that are open.", {"": now.browsers}),
            *_family("people_waiting", "gauge", "People who wait for a computation.", {"": now.people_waiting}),
            *_family("models_loaded", "gauge", "Caches whose model is loaded.", {"": sum(now.caches.values())}),
            *_family("caches", "gauge", "Caches that are served.", {"": len(now.caches)}),
            *_family(
                "answers_total",
                "counter",
                "HTTP answers by status.",
                {f'{{status="{status}"}}': count for status, count in sorted(self._answers.items())},
            ),
            *_family("answer_seconds_total", "counter", "Seconds until these answers began.", {"": self._seconds}),
        ]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, help: str, values: dict[str, float]) -> list[str]:
    """One number, or one for each label, as Prometheus' text format has it."""
    full = f"rapidin_{name}"
    return [f"# HELP {full} {help}", f"# TYPE {full} {kind}", *(f"{full}{at} {value}" for at, value in values.items())]
