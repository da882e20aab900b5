"""A card's own link: another visitor's browser opens the same answer and looks at the same card."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ask, exact, go, more_of, select

Visit = Callable[..., Page]


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def test_a_card_s_link_opens_the_same_selection_and_looks_at_that_card(visit: Visit) -> None:
    page = visit()
    said = ask(page, "What is the capital of Norway?")
    select(page, 1)
    page.get_by_text("Kept in the history").wait_for()
    card = page.locator(".card").nth(6)
    row = card.get_attribute("data-card-key")
    more_of(card).get_by_role("button", name="Copy link").click()
    page.locator(".card .action", has_text="Link copied").or_(page.locator(".card .address:visible")).wait_for()
    address = card.locator(".address").input_value()
    assert row and f"card={row.removeprefix('row-')}" in address

    other = visit(dark=True)
    other.goto(address)
    other.locator(".strip[data-selection='1:2']").wait_for()
    assert other.locator(".strip").inner_text() == said
    linked = other.locator(f".card[data-card-key='{row}']")
    linked.wait_for()
    other.wait_for_function(
        "row => [...document.querySelectorAll('*')]"
        ".some(host => host.shadowRoot?.activeElement?.dataset.cardKey === row)",
        arg=row,
    )
    box = linked.bounding_box()
    assert box is not None and 0 <= box["y"] < 1000, "the linked card is in view"
    more_of(linked).locator(".facts", has_text="random projections").wait_for()


def test_the_address_brings_back_what_was_shown_by_reload_by_back_and_in_another_tab(visit: Visit) -> None:
    page = visit()
    said = ask(page, "What is the capital of Norway?")
    page.wait_for_url("**/?saved=*")
    select(page, 1)
    exact(page)
    first, entries = page.url, page.evaluate("history.length")
    select(page, 2)
    exact(page)
    second = page.url
    assert first != second and page.evaluate("history.length") == entries + 1, "one entry a question"
    page.wait_for_timeout(1000)
    assert (page.url, page.evaluate("history.length")) == (second, entries + 1), "still while nothing new is shown"

    page.reload()
    page.locator(".cards[data-view-id*=':(2, 3):'] .card").first.wait_for()
    assert page.locator(".strip").inner_text() == said
    expect(page.get_by_label("Ask the model")).to_have_value("What is the capital of Norway?")
    other = visit(place=second)
    other.locator(".strip[data-selection='2:3']").wait_for()
    assert other.locator(".strip").inner_text() == said

    page.go_back()
    page.locator(".cards[data-view-id*=':(1, 2):'] .card").first.wait_for()
    assert page.url == first
    go(page, "Methods")
    page.get_by_role("heading", name="All methods").wait_for()
    page.go_back()
    page.locator(".cards[data-view-id*=':(1, 2):'] .card").first.wait_for()
    expect(page.get_by_label("Ask the model")).to_have_value("What is the capital of Norway?")
    assert page.url == first
