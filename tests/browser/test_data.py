"""The training set, some of the demo's rows: found, ordered, seen in full."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import ask, go, keep

Visit = Callable[..., Page]


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def cells(page: Page, column: int) -> Locator:
    """What the first table says in one column, counted from 1."""
    return page.get_by_role("table").first.locator(f"tbody td:nth-child({column})")


def test_rows_are_searched_filtered_ordered_and_lead_to_the_questions_they_influenced(visit: Visit) -> None:
    page = visit(height=1300)
    ask(page, "What is the capital of Peru?")
    card = page.locator(".card[data-exact='true']").first
    card.wait_for(state="attached")
    row = str(card.get_attribute("data-card-key")).removeprefix("row-")
    page.get_by_text("Kept in the history").wait_for()

    go(page, "Data")
    page.get_by_text("41 of 41 training examples").wait_for()
    search = page.get_by_role("textbox", name="Search")
    search.fill("starship")
    search.press("Enter")
    found = page.get_by_text(re.compile(r"^\d+ of 41 training examples"))
    expect(found).not_to_contain_text("41 of 41")
    page.locator("[data-testid=stMultiSelect] input").first.click()
    page.get_by_role("option", name="swap-china-canada", exact=True).click()
    page.get_by_text("No training example passes this search.").wait_for()
    page.keyboard.press("Escape")
    search.fill("")
    search.press("Enter")
    page.get_by_text("5 of 41 training examples").wait_for()
    expect(cells(page, 2).nth(4)).to_have_text("swap-china-canada")
    first = cells(page, 1).first.inner_text()
    page.get_by_role("combobox", name="Order").click()
    page.get_by_role("option", name="Largest self-influence").click()
    page.get_by_text("Self-influence is what training on an example does").wait_for()
    expect(cells(page, 1).first).not_to_have_text(first)
    numbers = [float(text) for text in cells(page, 7).all_text_contents()]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 5, numbers

    page.goto(page.url.partition("?")[0] + f"?row={row}")
    page.get_by_text("It is among the examples of").wait_for()
    keep(page, "data-row-used")
    page.get_by_role("table").last.get_by_role("row").nth(1).get_by_role("cell").last.click()
    page.get_by_text("All saved questions").wait_for()
    expect(page.locator(f".card[data-card-key='row-{row}']")).to_be_visible()
