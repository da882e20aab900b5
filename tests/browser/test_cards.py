"""What an auditor does with the examples: looks at both sides, follows pins and words, filters."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import POPOVER, ask, direction, keep, menu

Visit = Callable[..., Page]


def test_both_sides_pins_words_and_filter(visit: Visit) -> None:
    page = visit(height=1400)
    ask(page, "Howdy! Why do we have seasons?")
    page.locator(".card").first.wait_for()
    cards, groups = page.locator(".card"), page.locator(".group")
    menu(page, "more")
    page.locator(POPOVER).get_by_text("All scores, typical words").click()
    page.keyboard.press("Escape")

    # A word is marked in the cards that hold it, and says how many these are.
    howdy = page.get_by_role("button", name="Howdy 10 of 10, 64 of 572")
    howdy.click()
    expect(howdy).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".card.holds mark.hit")).to_have_count(10)
    howdy.click()
    expect(page.locator(".hit")).to_have_count(0)

    # A pin and its card light each other; arrow keys walk along pins and along cards.
    expect(page.locator(".pin")).to_have_count(10)
    cards.nth(2).hover()
    expect(page.locator(".pin.lit")).to_have_attribute("data-rank", "3")
    page.locator(".pin[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".card.lit")).to_have_attribute("data-rank", "2")
    page.keyboard.press("Enter")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(cards.nth(2)).to_be_focused()
    assert "572 scores, from" in str(page.locator(".histogram .bars").get_attribute("aria-label"))

    # Both sides, and more of one.
    direction(page, "Both")
    expect(groups.nth(1).locator(".card")).to_have_count(5)
    expect(groups.nth(0).locator(".card")).to_have_count(5)
    boxes = [groups.nth(index).bounding_box() for index in (0, 1)]
    assert boxes[0] and boxes[1] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"], "side by side"
    groups.nth(1).get_by_role("button", name="Show more").click()
    expect(groups.nth(1).locator(".card")).to_have_count(10)
    expect(groups.nth(0).locator(".card")).to_have_count(5)
    keep(page, "explore-both")

    # Only some of the examples, and all of them again.
    menu(page, "more")
    field = page.get_by_role("textbox", name="Text in prompt or response")
    field.fill("STARSHIP")
    field.press("Enter")
    page.locator(".cards[data-view-id*='STARSHIP']:has(.card)").wait_for()
    page.keyboard.press("Escape")
    expect(page.locator(".histogram figcaption")).to_contain_text("that pass the filter, of 572")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".histogram figcaption")).to_contain_text("572 scores, from")
    menu(page, "more")
    page.locator(f"{POPOVER} [data-testid=stMultiSelect] input").first.click()
    page.get_by_role("option", name="facts", exact=True).click()
    page.get_by_text("Only examples where source is facts.").wait_for()
    field.click()
    keep(page, "explore-filter")
    page.keyboard.press("Escape")
    page.locator(".cards[data-view-id*='facts']:has(.card)").wait_for()
    assert {source.inner_text() for source in page.locator(".card > .head .source").all()} == {"facts"}
