"""What a click costs in the browser, from the click to the cards drawn, beside an empty fragment on the same page.

`cached`: the token was clicked before. `fresh`: a selection that nobody could foresee, or the first click after
an answer. `long`: an answer of 1,000 tokens and ten cards of 300 tokens each, of a tiny random model.
"""

import argparse
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.common import Figures, show
from explorer.cache import CacheSettings
from explorer.model import embedded
from explorer.model.loading import load_model
from explorer.paths import DEMO
from explorer.serving.config import ServeSettings
from explorer.serving.place import Place
from explorer.serving.server import command
from precompute.build import build_cache
from precompute.data import read_examples
from tests.tiny import WORDS, save_tiny_adapter, save_tiny_data, save_tiny_model

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PROMPTS = (
    "Howdy! Why do we have seasons?",
    "In which country is the city of Guangzhou?",
    "What is the capital of Jamaica?",
)
ANSWER, CARDS, CARD_TOKENS = 1000, 10, 300

SINCE = "addEventListener('pointerup', () => { window.clicked = performance.now(); }, true)"
"""Times count from the moment the browser saw the click, so that nothing of Playwright's own counts."""
WHEN = """(element, [path, wanted]) => {
  window.drawn = new Promise((resolve) => {
    const look = () => {
      const there = path === "cards" ? element.dataset.viewId.includes(wanted) && element.querySelector(".card")
                                     : document.getElementById("empty_count")?.textContent === wanted;
      if (there) resolve(performance.now() - window.clicked);
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=20, help="clicks of each kind (20)")
    parser.add_argument("--only", choices=("demo", "long"), help="one of the two alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    figures: Figures = {}
    if chosen.only != "long":
        figures |= demo(chosen.clicks)
    if chosen.only != "demo":
        figures |= long(chosen.clicks)
    show(figures, chosen.json)


def demo(clicks: int) -> Figures:
    """On the demo: the first click after an answer, a span, then tokens that are known."""
    embedded.embedded_model()
    fresh = []
    with served(ServeSettings((str(DEMO / "cache"),))) as page:
        for prompt in PROMPTS:
            ask(page, prompt)
            fresh += [card_ms(page, 3), card_ms(page, 1, 4)]
        count = page.locator(".strip .token").count()
        cached, empty = in_turns(page, [token % count for token in range(5, 5 + clicks)])
    return {"fresh_median_ms": statistics.median(fresh), "fresh_most_ms": max(fresh)} | named("cached", cached, empty)


def long(clicks: int) -> Figures:
    """On a tiny model: a long answer with long cards."""
    with tempfile.TemporaryDirectory() as home:
        cache = long_cache(Path(home))
        with served(ServeSettings((str(cache),), device="cpu")) as page:
            ask(page, "Say much.")
            page.get_by_role("button", name="Edit the answer").click()
            page.get_by_label("Ask about this text").fill("".join(WORDS[i % 6] for i in range(ANSWER - 1)))
            page.get_by_role("button", name="Attribute this text").click()
            page.locator(f".strip .token[data-token-index='{ANSWER - 1}']").wait_for()
            page.locator(".cards[data-pending='false'] .card").first.wait_for()
            assert page.locator(".card .token").count() == CARDS * CARD_TOKENS
            tokens = [7 + 31 * turn for turn in range(clicks)]
            return named("long", *in_turns(page, tokens))


def long_cache(home: Path) -> Path:
    """A cache of examples of 300 tokens, by a random model."""
    model = save_tiny_model(home / "model", positions=2048)
    adapter = save_tiny_adapter(home / "adapter", model)
    # Random words tell the examples apart, or they would share a card; each is one token, and the end is another.
    chance = random.Random(0)
    rows = [
        {"prompt": f"Row {row}", "response": "".join(chance.choices(WORDS, k=CARD_TOKENS - 1))} for row in range(40)
    ]
    data = save_tiny_data(home / "train.jsonl", rows)
    loaded = load_model(str(model), adapter, device="cpu")
    build_cache(loaded, read_examples(data), home / "cache", CacheSettings(length=4096), tokens=0, data_name=data.name)
    return home / "cache"


@contextmanager
def served(settings: ServeSettings) -> Iterator[Page]:
    """The explorer with an empty fragment beneath it, in a browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    entry = Path(__file__).with_name("clicks_page.py")
    path = next(found for name in BROWSERS if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as data:
        environment = os.environ | settings.environment() | {"RAPIDIN_DATA": data}
        server = subprocess.Popen(command(Place("127.0.0.1", port), entry), env=environment)
        try:
            until_ready(f"http://127.0.0.1:{port}/_stcore/health")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
                page = browser.new_page(viewport={"width": 1400, "height": 1000})
                page.set_default_timeout(120_000)
                page.add_init_script(SINCE)
                page.goto(f"http://127.0.0.1:{port}")
                page.get_by_role("button", name="Rerun nothing").wait_for()
                yield page
                browser.close()
        finally:
            server.terminate()
            server.wait(20)


def until_ready(url: str) -> None:
    """Wait for the server."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server gave no answer")


def ask(page: Page, prompt: str) -> None:
    """Ask, and wait for the answer with its first cards."""
    page.get_by_label("Ask the model").fill(prompt)
    page.get_by_label("Ask the model").press("Enter")
    page.locator(".strip[data-streaming='false']").wait_for()
    page.locator(".cards[data-view-id*=':None:'] .card").first.wait_for()


def card_ms(page: Page, token: int, last: int | None = None) -> float:
    """Milliseconds from a click on a token, or with Shift on the last of a span, to its cards."""
    stop = token + 1 if last is None else last + 1
    page.locator(".cards").evaluate(WHEN, ["cards", f":({token}, {stop}):"])
    target = page.locator(f".strip .token[data-token-index='{token}']")
    if last is None:
        target.click()
    else:
        target.click()
        page.locator(f".strip .token[data-token-index='{last}']").click(modifiers=["Shift"])
    return float(page.evaluate("() => window.drawn"))


def empty_ms(page: Page) -> float:
    """Milliseconds from a click on the empty fragment's button to its rerun."""
    counter = page.locator("#empty_count")
    counter.evaluate(WHEN, ["empty", str(int(counter.inner_text()) + 1)])
    page.get_by_role("button", name="Rerun nothing").click()
    return float(page.evaluate("() => window.drawn"))


def in_turns(page: Page, tokens: list[int]) -> tuple[list[float], list[float]]:
    """Clicks on tokens that were clicked before, and on the empty fragment: both meet the machine in the same state."""
    for token in tokens:
        card_ms(page, token)
    pairs = [(card_ms(page, token), empty_ms(page)) for token in tokens]
    return [cards for cards, _ in pairs], [empty for _, empty in pairs]


def named(kind: str, clicks: list[float], empty: list[float]) -> Figures:
    """The figures of one kind of click."""
    middle, floor = statistics.median(clicks), statistics.median(empty)
    return {
        f"{kind}_ms": middle,
        f"{kind}_empty_ms": floor,
        f"{kind}_over_empty_ms": middle - floor,
        f"{kind}_most_ms": max(clicks),
    }


if __name__ == "__main__":
    main()
