"""The real command on the real model, in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENSHOTS = os.environ.get("RAPIDIN_SCREENSHOTS")
"""A folder to keep screenshots in; the ones in docs/ were made with `RAPIDIN_SCREENSHOTS=docs`."""


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The demo, served by its command on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "explorer.cli", "demo", "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    lines = []
    for line in server.stderr:
        lines.append(line)
        if "is ready at" in line:
            break
    else:
        raise AssertionError(f"the demo didn't start: {''.join(lines)}")
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)
    code = server.wait(20)
    server.stderr.close()
    assert code == 0, "Ctrl-C should end the server cleanly"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert path, "no Chromium found; `make test` installs one"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(address: str, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the explorer as a new visitor; a dialog or a script error fails the test."""
    contexts = []
    trouble: list[str] = []

    def opened(width: int = 1400, height: int = 1000, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
        page.goto(address)
        page.get_by_label("Ask the model").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not trouble, trouble


def ask(page: Page, prompt: str) -> str:
    """Type a prompt, wait for the complete answer, and return its text."""
    box = page.get_by_label("Ask the model")
    box.fill(prompt)
    box.press("Enter")
    page.locator(".strip[data-streaming='false']").wait_for()
    return page.locator(".strip").inner_text()


def select(page: Page, token: int) -> float:
    """Click a token; seconds until its new cards are drawn."""
    started = time.monotonic()
    page.locator(f".strip .token[data-token-index='{token}']").click()
    page.locator(f".cards[data-view-id*=':({token}, {token + 1}):'] .card").first.wait_for()
    return time.monotonic() - started


def exact(page: Page) -> None:
    """Wait until all that is shown is exact and checked."""
    page.locator(".cards[data-pending='false'] .card").first.wait_for()


def keep(page: Page, name: str) -> None:
    """Keep a screenshot, where that is asked for."""
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")
