"""Many browsers over one server: each asks, reads, clicks and asks again, until the time is up.

`asked` and `answered` count questions, answered once the answer is complete and its first cards are there; `lost` those
that failed or took longer than five minutes, `crossed` those where a browser was shown another question's answer, as
the history has it. `median_s` and `p95_s` are the times from asking to the first cards, `cached_click_p95_s` that of
clicks on a token that was clicked before. `waits_told` counts questions whose page said how many come before.
`rss_growth` is how much more memory the server has at the end than after a minute (or half the time)
from the first answer, as a share.
"""

import argparse
import asyncio
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
from playwright.async_api import Browser, Error, Locator, Page, async_playwright

from benchmarks.clicks import BROWSERS, FLAGS, PROMPTS, SINCE, WHEN, until_ready
from benchmarks.common import Figures, show
from explorer.history import History
from explorer.methods.description import described
from explorer.model import embedded
from explorer.paths import DEMO, EXAMPLE
from explorer.serving.config import ServeSettings
from explorer.serving.place import Place
from explorer.serving.server import command

PATIENCE = 300.0
"""Seconds after which a question is given up as lost."""
LOOK = 1.0
"""Seconds between two looks for what a page says of the queue."""


@dataclass
class Seen:
    """What all browsers saw."""

    asked: int = 0
    answers: list[tuple[str, str]] = field(default_factory=list)
    """The prompt that a browser asked, and the name of the answer that it was shown."""
    seconds: list[float] = field(default_factory=list)
    clicks: list[float] = field(default_factory=list)
    told: int = 0
    first: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once anyone was answered."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", type=int, default=20, help="browsers at once (20)")
    parser.add_argument("--minutes", type=float, default=10, help="how long they go on asking (10)")
    parser.add_argument("--cache", default=str(DEMO / "cache"), help="what is served (the demo)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    if chosen.cache == str(DEMO / "cache"):
        embedded.embedded_model()
    show(measure(chosen.cache, chosen.browsers, chosen.minutes), chosen.json)


def measure(cache: str, browsers: int, minutes: float) -> Figures:
    """Serve a cache to so many browsers for so long."""
    seen = Seen()
    with tempfile.TemporaryDirectory() as home:
        history = Path(home) / "history.sqlite"
        with served(ServeSettings((cache,), history=str(history)), home) as (address, server):
            first, last = asyncio.run(_all(address, server, browsers, 60 * minutes, seen))
        kept = History(history, described)
        saved = {kept.answer(one.id).answer.id: one.prompt for one in kept.find()[0]}
    # What isn't there was never saved, or not under the name that the browser saw.
    crossed = sum(saved.get(answer) != prompt for prompt, answer in seen.answers)
    figures: Figures = {
        "browsers": browsers,
        "minutes": minutes,
        "asked": seen.asked,
        "answered": len(seen.answers),
        "lost": seen.asked - len(seen.answers),
        "crossed": crossed,
        "waits_told": seen.told,
        "rss_growth": last / first - 1,
    }
    if seen.seconds:
        figures |= {"median_s": statistics.median(seen.seconds), "p95_s": float(np.percentile(seen.seconds, 95))}
    if seen.clicks:
        figures["cached_click_median_s"] = statistics.median(seen.clicks)
        figures["cached_click_p95_s"] = float(np.percentile(seen.clicks, 95))
    return figures


@contextmanager
def served(settings: ServeSettings, data: str) -> Iterator[tuple[str, psutil.Process]]:
    """The explorer on a free port: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | settings.environment() | {"RAPIDIN_DATA": data}
    # What it says on its own is no part of the figures.
    server = subprocess.Popen(command(Place("127.0.0.1", port)), env=environment, stdout=sys.stderr)
    try:
        until_ready(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}", psutil.Process(server.pid)
    finally:
        # As Ctrl-C ends it: after the step at hand.
        server.send_signal(signal.SIGINT)
        server.wait(60)


async def _all(address: str, server: psutil.Process, browsers: int, seconds: float, seen: Seen) -> tuple[int, int]:
    """Let all browsers ask; the server's memory in bytes early and at the end."""
    path = next(found for name in BROWSERS if (found := shutil.which(name)))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        everyone = asyncio.gather(*(_visit(browser, address, number, seconds, seen) for number in range(browsers)))
        answered = asyncio.ensure_future(seen.first.wait())
        either: list[asyncio.Future[Any]] = [answered, everyone]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(min(60.0, seconds / 2))
        first = _memory(server)
        await everyone
        last = _memory(server)
        await browser.close()
    return first, last


def _memory(server: psutil.Process) -> int:
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


async def _visit(browser: Browser, address: str, number: int, seconds: float, seen: Seen) -> None:
    """One browser, which asks its own questions one after the other for so long, from when its page is there."""
    context = await browser.new_context(viewport={"width": 1400, "height": 1000})
    page = await context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    await page.add_init_script(SINCE)
    await page.goto(address)
    await page.get_by_label("Ask the model").wait_for()
    known, turn, until = EXAMPLE, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        prompt = f"{PROMPTS[(number + turn) % len(PROMPTS)]} (browser {number}, question {turn})"
        turn, seen.asked = turn + 1, seen.asked + 1
        watching = asyncio.ensure_future(_watch(page, seen))
        try:
            begun = time.monotonic()
            known = await _ask(page, prompt, known)
            seen.seconds.append(time.monotonic() - begun)
            seen.answers.append((prompt, known))
            seen.first.set()
        except Error:
            await page.reload()
            continue
        finally:
            watching.cancel()
        with suppress(Error):
            # Two words for the first time, then the first of them again.
            await _card_seconds(page, 0)
            await _card_seconds(page, 1)
            seen.clicks.append(await _card_seconds(page, 0))
    await context.close()


async def _ask(page: Page, prompt: str, known: str) -> str:
    """Ask, and wait for another answer than the known one, and its first cards; the answer's name."""
    await page.get_by_label("Ask the model").fill(prompt)
    await page.get_by_label("Ask the model").press("Enter")
    strip = page.locator(f".strip[data-streaming='false']:not([data-text-id='{known}'])")
    await strip.wait_for()
    name = str(await strip.get_attribute("data-text-id"))
    await page.locator(f".cards[data-view-id^='{name}:'] .card").first.wait_for(state="attached")
    return name


async def _watch(page: Page, seen: Seen) -> None:
    """Look whether the page says how many come before."""
    said: Locator = page.get_by_text("before you in the queue")
    with suppress(Error):
        while not await said.count():
            await asyncio.sleep(LOOK)
        seen.told += 1


async def _card_seconds(page: Page, token: int) -> float:
    """Seconds from a click on a token to its cards."""
    await page.locator(".cards").evaluate(WHEN, ["cards", f":({token}, {token + 1}):"])
    await page.locator(f".strip .token[data-token-index='{token}']").click(modifiers=["Alt"])
    return float(await page.evaluate("() => window.drawn")) / 1000


if __name__ == "__main__":
    main()
