"""What can be compared: prompts, settings, an edited answer, saved answers, all of it by another method, too."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import go, keep
from tests.browser.test_methods import choose

Visit = Callable[..., Page]


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def kind(page: Page, name: str) -> None:
    """Choose what is compared, on the Compare page, whose form is folded once there are answers."""
    change = page.get_by_text(re.compile("^Compared: .* Change$"))
    if change.count() and not page.locator(".st-key-compare_kind").is_visible():
        change.click()
    page.get_by_role("radio", name=name).or_(page.get_by_role("button", name=name)).first.click()


def compared(page: Page) -> list[str]:
    """Press the form's button, and wait for both answers and what is behind them."""
    before = shown(page)
    press(page)
    return both(page, before)


def press(page: Page) -> None:
    button = page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Compare", exact=True)
    # The form of another kind is still there for a moment.
    expect(button).to_have_count(1)
    page.locator(".stApp[data-test-script-state='notRunning']").wait_for()
    button.click()


def shown(page: Page) -> str:
    """What the cards are about, or nothing."""
    cards = page.locator(".cards[data-view-id]")
    return str(cards.get_attribute("data-view-id")) if cards.count() else ""


def both(page: Page, before: str) -> list[str]:
    """The texts of both answers, once they and the examples behind them are there and not those of before."""
    page.locator(f".cards[data-pending='false']:not([data-view-id='{before}']) .card").first.wait_for()
    return [page.locator(".strip").nth(side).inner_text() for side in (0, 1)]


def test_prompts_settings_edits_and_saved_answers_are_compared(visit: Visit) -> None:
    page = visit(height=1500)
    go(page, "Compare")
    page.get_by_text("Choose what to compare").wait_for()

    page.get_by_role("textbox", name="Prompt of A").fill("What is the capital of Chile?")
    page.get_by_role("textbox", name="Prompt of B").fill("What is the capital of Peru?")
    chile, peru = compared(page)
    assert chile != peru
    page.get_by_text("of the first 10 are the same").wait_for(state="attached")
    keep(page, "compare-prompts")

    kind(page, "Two settings")
    page.get_by_role("textbox", name="Prompt", exact=True).fill("Tell me about rivers.")
    page.get_by_role("spinbutton", name="Temperature of B").fill("1.5")
    page.get_by_role("spinbutton", name="Seed of B").fill("7")
    sure, drawn = compared(page)
    assert sure != drawn and "Drawn at temperature 1.5 with the seed 7." in page.locator("body").inner_text()
    keep(page, "compare-settings")

    kind(page, "An edited answer")
    expect(page.get_by_role("spinbutton", name="Temperature of B")).to_have_count(0)
    page.get_by_role("textbox", name="Prompt", exact=True).fill("What is the capital of Peru?")
    before = shown(page)
    press(page)
    edit = page.get_by_role("textbox", name="Ask about this text").last
    edit.fill("The capital of Peru is Lima.")
    page.get_by_role("button", name="Attribute this text").last.click()
    said, edited = both(page, before)
    # A token that is a space alone is shown as a dot.
    assert said == peru and edited.replace("·", " ").startswith("The capital of Peru is Lima.")
    expect(page.locator(".strip .token.differs").first).to_be_visible()
    keep(page, "compare-edited")

    kind(page, "Saved answers")
    for side, prompt in (("A", "capital of Chile"), ("B", "Tell me about rivers")):
        page.get_by_role("combobox", name=f"Saved answer {side}").click()
        page.get_by_role("option", name=prompt).first.click()
    first, second = compared(page)
    assert first == chile and second in (sure, drawn)
    keep(page, "compare-saved")

    before = shown(page)
    choose(page, "bm25")
    assert both(page, before) == [first, second]
    page.get_by_text("Scores by bm25").first.wait_for(state="attached")
    page.keyboard.press("Escape")
    keep(page, "compare-bm25")
