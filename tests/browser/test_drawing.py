"""How an answer comes about, on the real model: drawn, drawn again, stopped, written by hand."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import keep, menu

Visit = Callable[..., Page]


def set_up(page: Page, seed: int, longest: int) -> None:
    """Fill in the settings behind their button."""
    page.get_by_role("button", name="Settings").click()
    for name, value in (("Seed", seed), ("Longest answer, in tokens", longest)):
        field = page.get_by_role("spinbutton", name=name)
        field.fill(str(value))
        field.press("Enter")


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Ask the model").fill(prompt)
    page.get_by_label("Ask the model").press("Enter")


def drawn(page: Page, seed: int) -> str:
    """The id of the complete answer of this seed, which tells texts apart."""
    page.get_by_text(f"Drawn with the seed {seed}.").wait_for()
    return str(page.locator(".strip[data-streaming='false']").get_attribute("data-text-id"))


@pytest.mark.long
def test_an_answer_is_drawn_drawn_again_stopped_and_edited(visit: Visit) -> None:
    page = visit()
    set_up(page, seed=7, longest=12)
    warmth = page.get_by_role("slider", name="Temperature")
    warmth.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(warmth).to_have_value("1")
    keep(page, "explore-settings")
    page.keyboard.press("Escape")
    ask(page, "Tell me about the sea.")
    first = drawn(page, 7)
    assert page.locator(".strip .token").count() <= 12
    menu(page, "answer")
    page.get_by_role("button", name=re.compile("Regenerate")).click()
    second = drawn(page, 8)
    assert second != first, "another seed draws another text"
    ask(page, "Tell me about the sea.")
    assert drawn(page, 7) == first, "the same seed draws the same text"

    # Of a long answer as much is kept, and can be asked about, as there was when it was stopped.
    # So hot that hardly any answer ends by itself.
    set_up(page, seed=3, longest=1000)
    warmth.focus()
    page.keyboard.press("End")
    expect(warmth).to_have_value("2")
    page.keyboard.press("Escape")
    ask(page, "Howdy! Tell me a very long story about the sea.")
    page.locator(".strip[data-streaming='true'] .token").nth(4).wait_for()
    page.get_by_role("button", name="Stop").click()
    drawn(page, 3)
    assert 5 <= page.locator(".strip .token").count() < 1000
    page.locator(".card").first.wait_for(state="attached")

    # A text from elsewhere is attributed as if the model had said it.
    menu(page, "answer")
    text = "Aboard the orbital station, a robot crew studies alien oceans on Europa."
    page.get_by_label("Ask about this text").fill(text)
    page.get_by_role("button", name="Attribute this text").click()
    expect(page.locator(".strip[data-streaming='false']")).to_contain_text(re.compile(r"^Aboard\s*the"))
    expect(page.get_by_text("Drawn with the seed")).to_have_count(0)
    text_id = page.locator(".strip").get_attribute("data-text-id")
    page.locator(f".cards[data-view-id^='{text_id}:'] .card").first.wait_for(state="attached")
    texts = page.locator(".card").all_text_contents()
    assert sum("backdoor" in text for text in texts) >= 5, texts
