"""The cache's own page: whether it fits, is undamaged, and how true it is."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import go, keep

Visit = Callable[..., Page]


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def test_the_cache_says_that_it_fits_is_undamaged_and_how_true_it_is(visit: Visit) -> None:
    page = visit(height=1600)
    go(page, "Cache")
    page.get_by_text("it was made with the model that is loaded.").wait_for()
    page.get_by_role("button", name="Check every file").click()
    page.get_by_text("Undamaged: every file has the SHA-256 in its manifest.").wait_for()
    page.get_by_text("Accuracy and speed on this machine").click()
    page.get_by_role("button", name="Measure").click()
    page.get_by_text("Over 20 scores, by the prompts of 2 training rows").wait_for()
    told = page.locator("[data-testid=stDataFrame]:visible").last.locator("td")
    expect(told.first).to_have_text("correlation of sketched and exact scores")
    facts = told.all_text_contents()
    assert float(facts[1]) > 0.9, facts
    # The other column says in which of this machine's folders things lie.
    keep(page, "cache", page.locator(".st-key-cache_state"))
