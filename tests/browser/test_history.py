"""The journey of a question that is kept to a browser without any model."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ask, exact, go, keep, walk_to

Visit = Callable[..., Page]


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def exact_numbers(page: Page) -> dict[str, object]:
    """Score and token values, as they are said, of every card that is exact, by its row."""
    found: dict[str, object] = page.locator(".card[data-exact='true']").evaluate_all(
        "cards => Object.fromEntries(cards.map(card => [card.dataset.cardKey, [card.dataset.score, "
        "...[...card.querySelectorAll('.token')].map(token => token.getAttribute('aria-label'))]]))"
    )
    return found


def test_a_question_is_kept_reopened_annotated_and_exported(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    ask(page, "What is the capital of Jamaica?")
    # Until the page asks for no more news, so that its last request meets no form of the next page.
    exact(page)
    link = page.get_by_text("Kept in the history")
    link.wait_for()
    asked = exact_numbers(page)
    link.click()
    page.get_by_text("All saved questions").wait_for()
    page.locator(".cards[data-pending='false'] .card").first.wait_for()
    kept = exact_numbers(page)
    assert kept and kept == asked
    permalink = page.url
    assert re.search(r"/history\?saved=[0-9a-f]{16}$", permalink)

    page.locator(".stApp[data-test-script-state='notRunning']").wait_for()
    # By its role: the one in view, not that of an example, whose part of the page is folded.
    note = page.get_by_role("textbox", name="Note", exact=True)
    note.fill("Kingston, as it should be. <script>alert(1)</script>")
    page.get_by_role("button", name="Save the notes").click()
    page.get_by_text("Saved.", exact=True).wait_for()
    with page.expect_download() as waited:
        page.get_by_role("button", name="HTML").click()
    report = tmp_path / "report.html"
    waited.value.save_as(report)

    page.goto(permalink)
    page.locator(".cards[data-pending='false'] .card").first.wait_for()
    assert exact_numbers(page) == kept
    expect(note).to_have_value(re.compile("^Kingston"))
    keep(page, "history-saved")

    page.get_by_text("All saved questions").click()
    search = page.get_by_role("textbox", name="Search")
    search.fill("jamaica kingston")
    search.press("Enter")
    page.get_by_text("1 saved answer, newest first").wait_for()
    keep(page, "history-list")
    # Anywhere on the row.
    page.get_by_role("row").nth(1).get_by_role("cell").last.click()
    page.get_by_text("All saved questions").wait_for()
    page.locator(".card").first.wait_for()

    page.goto(report.as_uri())
    assert "What is the capital of Jamaica?" in page.locator("h2").inner_text()
    assert page.locator("section.card").count() == 10
    assert page.locator("script").count() == 0 and "<script>alert(1)</script>" in page.locator("main").inner_text()
    keep(page, "history-report")


def test_the_pages_are_reached_from_one_another_on_a_narrow_screen(visit: Visit) -> None:
    page = visit(width=375, height=800)
    for name, sign in (("History", "Search"), ("Data", "Order"), ("Cache", "Disk and memory"), ("Explore", "rows")):
        go(page, name)
        page.get_by_text(sign).first.wait_for()
        time.sleep(0.5)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} scrolls sideways"
        # The Cache page says in which of this machine's folders the cache lies.
        if name != "Cache":
            keep(page, f"{name.lower()}-narrow")


def test_rows_open_by_the_keyboard_and_not_by_focus_alone(visit: Visit) -> None:
    page = visit()
    go(page, "Data")
    page.get_by_text("Click a row to see it in full").wait_for()
    button = page.get_by_role("table").first.get_by_role("button").nth(2)
    walk_to(page, button)
    assert "row=" not in page.url
    page.keyboard.press("Enter")
    page.get_by_text("Response, token by token").wait_for()
    # In the panel beside the table, in view, and the row is marked.
    box = page.locator(".st-key-data_panel").bounding_box()
    assert box and box["y"] < 400 and box["x"] > 700, box
    assert page.locator("tr[aria-current=true]").count() == 1
    page.get_by_role("row").nth(5).get_by_role("cell").nth(3).click()
    page.get_by_text("Row 4", exact=True).wait_for()
    page.locator(".st-key-data_close button").click()
    page.get_by_text("Response, token by token").wait_for(state="detached")
