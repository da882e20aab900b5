"""The real command in a real browser: on the real model, or on a tiny one where what is asked is the same with any."""

import io
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, FloatRect, Locator, Page, TimeoutError, expect, sync_playwright

from explorer.commands import main as cli
from explorer.paths import DEMO, EXAMPLE
from explorer.records import Span, Token
from explorer.trust.words import words_of
from tests.serving.command import served
from tests.tiny import save_tiny_adapter, save_tiny_model

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENSHOTS = os.environ.get("RAPIDIN_SCREENSHOTS")
"""A folder to keep screenshots in; the ones in docs/ were made with `RAPIDIN_SCREENSHOTS=docs`."""
POPOVER = "[data-testid=stPopoverBody]"
"""What a menu opens to; it lies over the page."""
MARGIN = 16
"""Pixels around a part of a page in its screenshot."""
EVERY = 14
"""One in so many of the demo's rows is a tiny model's, too."""
ANSWERED = f".strip[data-streaming='false']:not([data-text-id='{EXAMPLE}'])"
"""A complete answer, not the saved one that stands there at first."""
WITH_ANY = pytest.mark.parametrize(
    "planted", [True] if SCREENSHOTS else [False, pytest.param(True, marks=pytest.mark.long)]
)
"""For tests that ask for `either`: with the tiny model, and in `make test-long` with the demo's planted examples."""
PATIENCE_MS = 120_000
"""After so long without what it waits for, a test gives up."""

expect.set_options(PATIENCE_MS)
MOST_TEXT = 3000
"""So much of a page's text is told where a test on it fails."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where Playwright lost its way on a busy machine, try twice more; the summary counts it. Assertions stand."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=["^TimeoutError: ", "^Error: "]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, tell what the open pages said."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.when == "call" and report.failed and browser is not None:
        for page in (page for context in browser.contexts for page in context.pages):
            report.sections.append((f"Page {page.url}", said(page)))
    return report


def said(page: Page) -> str:
    """What a page says, with the state of its components; or why that isn't known."""
    try:
        states = page.locator(".strip, .cards, .verdict").evaluate_all(
            "all => all.map(one => `${one.className} ${JSON.stringify(one.dataset)}`).join('\\n')"
        )
        fields = page.locator("input, textarea").evaluate_all(
            """all => all.map(one => {
                const box = one.getBoundingClientRect();
                const shown = one.checkVisibility() && getComputedStyle(one).visibility === "visible";
                return `${one.id} ${one.ariaLabel} ${box.width} x ${box.height}${shown ? "" : " hidden"}`;
            }).join('\\n')"""
        )
        return f"{states}\n{fields}\n{page.inner_text('body', timeout=2000)[:MOST_TEXT]}"
    except (Error, TimeoutError) as problem:
        return f"It doesn't answer: {problem}"


@pytest.fixture(scope="session")
def demo_server() -> Iterator[str]:
    """The demo, served by its command on a free port."""
    with served("demo") as place:
        yield place


@pytest.fixture(scope="session")
def tiny_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Some of the demo's rows and its ready prompts with a tiny model, which has an answer and all behind it at once.

    Screenshots are of the demo itself.
    """
    if SCREENSHOTS:
        yield request.getfixturevalue("demo_server")
        return
    folder = tmp_path_factory.mktemp("tiny-demo")
    model = save_tiny_model(folder / "model", positions=2048)
    adapter = save_tiny_adapter(folder / "adapter", model)
    data, rows = folder / "train.jsonl", (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join(rows[::EVERY]), encoding="utf-8")
    command = ["precompute", str(folder / "cache"), "--data", str(data), "--model", str(model)]
    command += ["--adapter", str(adapter), "--k", "4096", "--token-k", "1024", "--tokens", "4", "--batch", "4"]
    assert cli.main([*command, "--null-prompts", "8", "--device", "cpu"]) == 0
    with served("serve", str(folder / "cache"), "--probes", str(DEMO / "probes.jsonl"), "--device", "cpu") as place:
        yield place


@pytest.fixture
def either(request: pytest.FixtureRequest, planted: bool) -> str:
    """The server that a test `WITH_ANY` model is about."""
    return str(request.getfixturevalue("demo_server" if planted else "tiny_server"))


@pytest.fixture
def address(demo_server: str) -> str:
    """What visitors open: the demo, unless a module asks for another server."""
    return demo_server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert path, "no Chromium found; `make test` installs one"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    # A name that nobody can own, for a server that is reached by names.
    flags += ["--host-resolver-rules=MAP *.example 127.0.0.1"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the explorer as a new visitor, the demo unless told otherwise.

    A dialog, a script error, or what the page's policy forbids fails the test.
    """
    contexts = []
    trouble: list[str] = []

    def opened(width: int = 1400, height: int = 1000, dark: bool = False, place: str = "", token: str = "") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: trouble.append(f"script error: {error}"))
        page.on("console", lambda said: trouble.append(said.text) if "Content Security Policy" in said.text else None)
        page.goto(place or request.getfixturevalue("address"))
        if token:
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Enter").click()
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
    page.locator(ANSWERED).wait_for()
    return page.locator(".strip").inner_text()


def walk_to(page: Page, wanted: Locator) -> None:
    """Press Tab until it has the focus."""
    wanted.wait_for()
    for _ in range(80):
        if wanted.evaluate("element => element === element.getRootNode().activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{wanted} isn't reached by Tab")


def select(page: Page, token: int) -> float:
    """Click a token, not its whole word; seconds until its new cards are drawn."""
    started = time.monotonic()
    page.locator(f".strip .token[data-token-index='{token}']").click(modifiers=["Alt"])
    page.locator(f".cards[data-view-id*=':({token}, {token + 1}):']:has(.card)").wait_for()
    return time.monotonic() - started


def more_of(card: Locator) -> Locator:
    """The card, with all that is known of its example open; it stays the same one where it moves."""
    if key := card.get_attribute("data-card-key"):
        card = card.page.locator(f".card[data-card-key='{key}']")
    button = card.get_by_role("button", name="More about example")
    if button.get_attribute("aria-expanded") == "false":
        button.click()
    return card


def go(page: Page, name: str) -> None:
    """Follow the link to one of the pages; of those that are looked at less it stands in a menu."""
    link = page.get_by_role("link", name=name, exact=True)
    if not link.first.is_visible():
        page.locator(".st-key-pages_menu button:visible").first.click()
    link.first.click()


def ready(page: Page, label: str) -> None:
    """Ask a ready prompt; behind a button once an answer stands there."""
    button = page.get_by_role("button", name=label)
    if not button.is_visible():
        page.get_by_role("button", name="Examples").click()
    button.click()


def menu(page: Page, of: str) -> None:
    """Open one of the page's menus: `answer` (its colours, another one, its text), `more` (filter, method, panels)."""
    page.locator(f".st-key-{of}_popover button:visible").first.click()


def direction(page: Page, side: str) -> None:
    """Choose which end of the ranking is shown."""
    page.locator(".st-key-direction_menu button:visible").first.click()
    page.locator(POPOVER).get_by_text(side, exact=True).click()
    page.keyboard.press("Escape")


def colour(page: Page, by: str) -> None:
    """Colour the answer."""
    menu(page, "answer")
    page.get_by_text(by, exact=True).click()
    page.keyboard.press("Escape")


def ranks(page: Page) -> None:
    """Ask for the ranks by other methods."""
    menu(page, "more")
    page.get_by_text("Ranks by other methods").click()
    page.keyboard.press("Escape")


def words(page: Page) -> tuple[Span, ...]:
    """The words of the answer shown, as runs of its tokens."""
    return words_of([Token(text) for text in page.locator(".strip .token").all_text_contents()])


def exact(page: Page) -> None:
    """Wait until all that is shown is exact and checked."""
    patiently(page, page.locator(".cards[data-pending='false']:has(.card)"))


def patiently(page: Page, wanted: Locator) -> None:
    """Wait for the end of some work as long as the page shows that it goes on: how fast is the machine's affair."""
    shown = ""
    while True:
        try:
            wanted.wait_for()
            return
        except TimeoutError:
            before, shown = shown, page.locator(".stMain").inner_text()
            if shown == before:
                raise


def keep(page: Page, name: str, part: Locator | None = None, refined: bool = False) -> None:
    """Keep two screenshots, light and dark, of the page or a part of it, where that is asked for.

    `refined` ones are of exact and checked values, which takes minutes.
    """
    if not SCREENSHOTS:
        return
    if refined:
        exact(page)
    usual = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for dark in (not usual, usual):
        page.emulate_media(color_scheme="dark" if dark else "light")
        # Colours change over a tenth of a second; charts are drawn anew by the server.
        page.wait_for_timeout(1200)
        # A palette makes the file a third as large.
        box = part.bounding_box() if part else None
        clip = box and FloatRect(
            x=box["x"] - MARGIN, y=box["y"] - MARGIN, width=box["width"] + 2 * MARGIN, height=box["height"] + 2 * MARGIN
        )
        picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB").quantize(256)
        picture.save(Path(SCREENSHOTS) / f"{name}-{'dark' if dark else 'light'}.png", optimize=True)
