"""Every page before axe-core, in light and in dark."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.axe import problems, violations
from tests.browser.conftest import POPOVER, ask, colour, go, keep, more_of, ranks, select

Visit = Callable[..., Page]

PAGES = (
    ("Compare", "Choose what to compare"),
    ("Audit", "Prompts, one a line"),
    ("Methods", "How well each method finds"),
    ("History", "newest first"),
    ("Data", "Click a row to see it in full"),
    ("Cache", "What it holds and how it was made"),
)
"""What leads to a page, and what it shows once it is drawn."""


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def test_no_page_has_a_serious_or_critical_violation_in_light_or_dark(visit: Visit) -> None:
    page = visit()
    found = list(problems(page, "Explore, empty"))
    page.get_by_role("button", name="Take the tour").click()
    page.get_by_text("The answer · 1 of").wait_for()
    found += problems(page, "Explore, the tour", ".st-key-tour")
    page.keyboard.press("?")
    found += problems(page, "Explore, the help sheet", ".st-key-help_sheet")
    page.keyboard.press("Escape")
    ask(page, "Which planet is known for its rings?")
    colour(page, "Fine-tuning")
    page.locator(".strip[data-coloured='nats']").wait_for()
    select(page, 3)
    for name in ("Settings", "Filter", "More", "Examples", "Raised it", "Another word", "Colour"):
        page.get_by_role("button", name=re.compile(rf"(^|\s){name}\b(?! the)")).first.click()
        found += problems(page, f"Explore, {name}", POPOVER)
        page.keyboard.press("Escape")
    more_of(page.locator(".card").first).get_by_role("button", name="Token × token").click()
    page.locator(".js-plotly-plot:visible").first.wait_for()
    keep(page, "explore-matrix")
    found += problems(page, "Explore, an answer")
    ranks(page)
    # While it is drawn anew, the one before stands there hidden.
    page.locator(".st-key-agreement_panel .js-plotly-plot:visible").first.wait_for()
    found += problems(page, "Explore, ranks by other methods", ".st-key-agreement_panel")
    page.get_by_text("Kept in the history").click()
    page.get_by_text("All saved questions").wait_for()
    found += problems(page, "History, an answer")
    for name, sign in PAGES:
        go(page, name)
        page.get_by_text(sign).first.wait_for()
        found += problems(page, name)
        # The Cache page says in which of this machine's folders the cache lies; the others are kept full elsewhere.
        if name not in ("Cache", "Compare", "Audit"):
            keep(page, name.lower())
    page.goto(page.url.replace("/cache", "/data?row=3"))
    page.get_by_text("Response, token by token").wait_for()
    found += problems(page, "Data, a row")
    keep(page, "data-row")
    assert not found, "\n".join(found)


def test_what_is_hard_to_read_within_a_component_is_found(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<html lang='en'><title>t</title><main><h1>t</h1><div id='host'></div></main></html>")
    page.evaluate(
        "document.getElementById('host').attachShadow({mode: 'open'}).innerHTML = '<p style=\"color: #bbb\">pale</p>'"
    )
    assert [told.split(" ")[0] for told in violations(page)] == ["color-contrast"]
    page.close()
