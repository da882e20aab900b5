"""A newcomer's way in: the saved example, the tour, the help sheet; all of it by keyboard alone."""

from collections.abc import Callable

from playwright.sync_api import Browser, Page, expect

from explorer.app.explore.welcome import TOUR
from explorer.app.widgets.glossary import WORDS
from explorer.app.widgets.help_sheet import KEYS
from tests.browser.conftest import go, keep, more_of, walk_to

Visit = Callable[..., Page]


def test_the_saved_example_and_its_tour_by_keyboard(visit: Visit) -> None:
    page = visit()
    # A result is there before anything is pressed.
    page.locator(".card").first.wait_for()
    page.get_by_text("of these 10 examples are swap-china-canada").wait_for()
    walk_to(page, page.get_by_role("button", name="Take the tour"))
    page.keyboard.press("Enter")
    for step, (place, title, _) in enumerate(TOUR, start=1):
        page.get_by_text(f"{title} · {step} of {len(TOUR)}").wait_for()
        frame = page.locator(f".st-key-{place}").evaluate("part => getComputedStyle(part).outlineStyle")
        assert frame == "solid", "the step's part of the page stands in a frame"
        box, told = page.locator(f".st-key-{place}").bounding_box(), page.locator(".st-key-tour").bounding_box()
        assert box and told and 0 <= box["y"] < told["y"], "the step's part of the page is in view, above what is told"
        if step == 2:
            keep(page, "tour")
        walk_to(page, page.get_by_role("button", name="Done" if step == len(TOUR) else "Next"))
        page.keyboard.press("Enter")
    expect(page.get_by_text("Your turn")).to_have_count(0)

    # The saved values are all exact and checked, and say that they are saved.
    page.get_by_text("A saved answer of").first.wait_for()
    cards = page.locator(".card")
    expect(cards).to_have_count(10)
    assert all("swap-china-canada" in text for text in cards.all_inner_texts()[:5])
    assert all("average to the score" in text for text in page.locator(".card .facts").all_text_contents())
    more_of(cards.first)
    expect(page.locator(".card .action:visible")).to_have_count(0)

    # Screen readers hear the token, its value and the card's rank.
    heard = cards.first.aria_snapshot()
    score = cards.first.locator(".score").inner_text()
    assert f"Example 1, influence {score}" in (cards.first.get_attribute("aria-label") or "")
    assert "Canada: +" in heard, heard
    option = page.locator(".strip [role=option][aria-selected=true]")
    expect(option).to_have_text("Canada")

    page.locator(".strip").focus()
    page.keyboard.press("Escape")
    page.get_by_text("What pushed the model towards the whole response").wait_for()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.get_by_text("No result is saved for that").wait_for()

    # The model gives the same answer now, and the prompt box says to what.
    page.get_by_role("button", name="Ask the model now").click()
    page.get_by_role("button", name="Regenerate").wait_for()
    expect(page.get_by_label("Ask the model")).to_have_value("In which country is the city of Guangzhou?")
    expect(page.locator(".strip")).to_contain_text("Canada")


def test_each_step_of_the_tour_is_in_view_on_a_phone(visit: Visit) -> None:
    page = visit(width=375, height=812)
    page.get_by_role("button", name="Take the tour").click()
    for step, (place, title, _) in enumerate(TOUR, start=1):
        told = page.get_by_text(f"{title} · {step} of {len(TOUR)}")
        told.wait_for()
        part = page.locator(f".st-key-{place}")
        page.wait_for_function(
            "([place, told]) => { const top = document.querySelector('.st-key-' + place).getBoundingClientRect().top;"
            " return top >= 0 && top < document.querySelector(told).getBoundingClientRect().top; }",
            arg=[place, ".st-key-tour"],
        )
        expect(part).to_be_in_viewport()
        expect(told).to_be_in_viewport()
        page.get_by_role("button", name="Done" if step == len(TOUR) else "Next").click()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"


def test_the_skip_link_goes_past_the_navigation(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Help: keys and words").wait_for()
    link = page.get_by_test_id("stSkipToContent")
    link.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Ask the model")).to_be_focused()


def test_a_question_mark_opens_the_help_sheet_unless_it_is_typed(visit: Visit) -> None:
    page = visit()
    sheet = page.get_by_role("dialog", name="Keys and words")
    box = page.get_by_label("Ask the model")
    box.press("?")
    expect(box).to_have_value("?")
    expect(sheet).to_have_count(0)
    page.get_by_role("button", name="Help: keys and words").focus()
    page.keyboard.press("?")
    expect(sheet).to_be_visible()
    text = sheet.inner_text()
    assert all(does in text for _, does in KEYS) and all(meaning in text for meaning in WORDS.values())
    keep(page, "help")
    for _ in range(8):
        page.keyboard.press("Tab")
        # Within the sheet, or with the browser itself.
        focus = "document.activeElement === document.body || document.activeElement.shadowRoot !== null"
        assert page.evaluate(focus), "the focus stays within the sheet"
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    expect(page.get_by_role("button", name="Help: keys and words")).to_be_focused()

    # It is there on the other pages, too.
    go(page, "Data")
    page.get_by_text("Click a row to see it in full").wait_for()
    page.keyboard.press("?")
    expect(sheet).to_be_visible()
    page.keyboard.press("Escape")


def test_nothing_moves_for_those_who_want_it_still(browser: Browser, address: str) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address)
    page.locator(".card").first.wait_for()
    page.get_by_text("Lowered it", exact=True).click()
    page.get_by_text("away from “Canada”").wait_for()
    moving = "[...document.querySelectorAll('*')].flatMap(e => e.shadowRoot ? e.shadowRoot.getAnimations() : []).length"
    assert page.evaluate(moving) == 0
    context.close()
