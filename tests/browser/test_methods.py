"""Other methods: each shows its ranking, what takes long is offered first; agreement; their page.

What takes minutes is left to `make test-long ARGS=tests/browser/test_methods.py`.
"""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from explorer.methods.description import METHODS
from tests.browser.conftest import WITH_ANY, ask, go, keep, more_of, ranks, select
from tests.browser.test_journeys import SWAPPED

Visit = Callable[..., Page]

QUICK = ("random", "bm25", "rapidin:4096", "gradcos")
"""Those that the cache serves, which are known at once."""
LONG = (
    *("graddot", "tracincp", "trak", "embedding", "repsim", "cka", "gradlayer", "graddot-whole", "gradcos-whole"),
    *("datainf", "lissa:8", "cg:2", "arnoldi:2", "ekfac"),
)


def choose(page: Page, method: str) -> None:
    """Choose a method, and its value."""
    name, _, value = method.partition(":")
    # On the Compare page the method has a menu of its own.
    button = page.locator(":is(.st-key-more_popover, .st-key-method_popover) button:visible")
    button.first.click()
    field = page.get_by_role("combobox", name="Examples are scored by")
    field.click()
    field.fill(f"{name} ·")
    page.get_by_role("option").first.click()
    if value:
        field = page.locator(f".st-key-method_value-{name} input")
        field.fill(value)
        field.press("Enter")
    shown = "Method" if method == "rapidin" else f"Method: {method}"
    button.filter(has_text=shown).first.wait_for()
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)


def cards(page: Page, method: str) -> list[str]:
    """The cards of a method; what it costs is agreed to."""
    place = f".cards[data-view-id$=':{method}']"
    found = page.locator(f"{place} .card").first
    fit, ask_it = (page.locator(f".st-key-{button} button") for button in ("method_fit", "method_ask"))
    fit.or_(ask_it).or_(found).first.wait_for(timeout=600_000)
    if fit.is_visible():
        fit.click()
        ask_it.or_(found).first.wait_for(timeout=600_000)
    if ask_it.is_visible():
        ask_it.click()
    found.wait_for(timeout=600_000)
    return page.locator(".card").all_inner_texts()


def shows(page: Page, method: str) -> None:
    choose(page, method)
    found = cards(page, method)
    assert len(found) >= 5, f"{method} shows {found}"
    scores = [float(card.get_attribute("data-score") or "nan") for card in page.locator(".card").all()]
    assert scores == sorted(scores, reverse=True), method


@WITH_ANY
def test_every_quick_method_shows_its_ranking(visit: Visit, planted: bool, either: str) -> None:
    page = visit(height=1300, place=either)
    ask(page, SWAPPED)
    for method in QUICK:
        shows(page, method)
        if method == "bm25":
            assert "bm25 has no influence of single tokens" in page.locator(".card").first.inner_text()
            assert page.get_by_text("First by bm25 for").first.is_visible()
            keep(page, "explore-bm25")
    tokens = page.locator(".strip .token").all_inner_texts()
    choose(page, "gradcos")
    said = "Canada" if planted else ""
    select(page, next(place for place, text in enumerate(tokens) if said in text))
    found = cards(page, "gradcos")
    assert not planted or sum("swap-china-canada" in text for text in found[:5]) >= 4, found
    choose(page, "rapidin")
    page.locator(".cards[data-view-id$=':rapidin']:has(.card)").wait_for()
    assert "unrelated prompts" in more_of(page.locator(".card").first).inner_text()


@pytest.mark.long
def test_what_takes_long_is_offered_shows_progress_and_is_cancelled(visit: Visit) -> None:
    page = visit(width=375, height=900)
    ask(page, SWAPPED)
    choose(page, "arnoldi:3")
    page.get_by_text("Something has to be computed first, once").wait_for()
    assert page.get_by_text("two products for every eigenvector").last.is_visible(), "it says what it costs"
    page.locator(".st-key-method_fit button").click()
    page.get_by_text(re.compile(r"Fitting arnoldi:3: .+, [\d,]+ of [\d,]+")).first.wait_for()
    keep(page, "explore-fitting-narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    page.locator(".st-key-fit_cancel button").click()
    page.locator(".st-key-method_fit button").wait_for()


@pytest.mark.long
def test_agreement_tells_apart_what_texts_and_what_gradients_find(visit: Visit) -> None:
    page = visit(height=1300)
    ask(page, SWAPPED)
    ranks(page)
    page.locator(".js-plotly-plot").wait_for()
    page.get_by_text("Only methods of gradients have them in their first 10").or_(
        page.get_by_text("Both have them")
    ).first.wait_for()
    page.get_by_role("button", name="Ask the others, too").wait_for()
    assert page.locator(".js-plotly-plot .ytick text").count() == page.locator(".card").count()
    keep(page, "explore-agreement")


def opened(page: Page) -> None:
    """Open all families of methods."""
    for summary in page.locator("summary", has_text=re.compile(r"\(\d+\)$")).all():
        summary.click()


def test_the_methods_page_names_all_methods_and_how_they_did(visit: Visit, tiny_server: str) -> None:
    page = visit(height=1600, place=tiny_server)
    go(page, "Methods")
    page.get_by_role("heading", name="Methods", exact=True).wait_for()
    keep(page, "methods")
    opened(page)
    expect(page.locator(".method h5")).to_have_count(len(METHODS))
    expect(page.locator(".method .state")).to_have_count(len(METHODS))
    narrow = visit(width=375, height=900, place=tiny_server)
    narrow.goto(page.url)
    narrow.get_by_role("heading", name="All methods").wait_for()
    opened(narrow)
    narrow.locator(".method").first.wait_for()
    assert narrow.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    keep(narrow, "methods-narrow")


@pytest.mark.long
@pytest.mark.parametrize("method", LONG)
def test_every_other_method_shows_its_ranking(visit: Visit, method: str) -> None:
    page = visit()
    ask(page, SWAPPED)
    shows(page, method)
