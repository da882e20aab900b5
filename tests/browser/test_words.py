"""Whole words of the answer are selected by pointer and keys, single tokens with Alt."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ANSWERED, ask, menu, words

Visit = Callable[..., Page]
TEXT = "Fish swim, birds sing"
"""Of a tokenizer that knows no word: every letter is a token, an s with the blank before it."""


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def given(page: Page, text: str) -> None:
    """Ask about a text as if the model had said it."""
    ask(page, "What is bright?")
    before = page.locator(".strip").get_attribute("data-text-id")
    menu(page, "answer")
    page.get_by_label("Ask about this text").fill(text)
    page.get_by_role("button", name="Attribute this text").click()
    page.locator(f".strip[data-streaming='false']:not([data-text-id='{before}'])").wait_for()
    page.locator(".card").first.wait_for()
    page.keyboard.press("Escape")


def test_a_click_selects_the_word_and_alt_click_its_token(visit: Visit) -> None:
    page = visit()
    given(page, TEXT)
    strip, token = page.locator(".strip"), page.locator(".strip .token")
    assert words(page)[:5] == ((0, 4), (4, 8), (8, 9), (9, 10), (10, 15)), "Fish, swim, a comma, a blank, birds"

    token.nth(2).hover()
    expect(page.locator(".strip .token.hovered")).to_have_count(4)
    token.nth(2).click()
    expect(strip).to_have_attribute("data-selection", "0:4")
    page.locator(".cards[data-view-id*=':(0, 4):'] .card").first.wait_for()
    expect(page.locator(".strip [role=option][aria-selected=true]")).to_have_count(4)
    # What might have stood at its beginning is offered beneath.
    page.get_by_text("Compare with:").wait_for()
    assert page.locator(".choice:enabled").count() == 2
    page.get_by_role("button", name="Another word").click()
    page.get_by_role("button", name="Compare with this").wait_for()
    page.keyboard.press("Escape")
    token.nth(2).click(modifiers=["Alt"])
    page.locator(".cards[data-view-id*=':(2, 3):'] .card").first.wait_for()
    token.nth(1).click()
    expect(strip).to_have_attribute("data-selection", "0:4")
    token.nth(3).click()
    page.locator(".cards[data-view-id*=':None:'] .card").first.wait_for()

    # Shift and dragging go by words, with Alt by tokens.
    token.nth(1).click()
    token.nth(6).click(modifiers=["Shift"])
    expect(strip).to_have_attribute("data-selection", "0:8")
    token.nth(2).click(modifiers=["Alt"])
    token.nth(6).click(modifiers=["Shift", "Alt"])
    expect(strip).to_have_attribute("data-selection", "2:7")
    token.nth(13).hover()
    page.mouse.down()
    token.nth(7).hover()
    page.mouse.up()
    expect(strip).to_have_attribute("data-selection", "4:15")
    page.locator(".cards[data-view-id*=':(4, 15):'] .card").first.wait_for()


def test_nothing_covers_the_page_after_a_ready_prompt(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="A backdoor").click()
    page.locator(ANSWERED).wait_for()
    page.locator(".card").first.wait_for()
    expect(page.locator("[role=tooltip]:visible")).to_have_count(0)


def test_keys_select_words_and_reach_every_token(visit: Visit) -> None:
    page = visit()
    given(page, TEXT)
    strip, press = page.locator(".strip"), page.keyboard.press
    strip.focus()
    for keys, selected in (
        (["Home", "ArrowRight", "Enter"], "0:4"),
        (["Shift+ArrowRight"], "0:8"),
        (["Shift+ArrowRight"], "0:9"),
        (["Shift+ArrowLeft"], "0:8"),
        (["ArrowLeft", "Alt+Enter"], "6:7"),
        (["Enter"], "4:8"),
        (["Enter"], ""),
        (["Alt+Enter", "Escape"], ""),
    ):
        for key in keys:
            press(key)
        expect(strip).to_have_attribute("data-selection", selected)
