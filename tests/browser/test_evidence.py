"""What the training data say themselves: passages word for word. Rows against a word are in `test_journeys`."""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from explorer.paths import DEMO
from tests.browser.conftest import ask, menu

Visit = Callable[..., Page]


@pytest.fixture
def address(tiny_server: str) -> str:
    return tiny_server


def test_a_sentence_of_the_data_is_underlined_and_its_row_a_click_away(visit: Visit) -> None:
    with (DEMO / "train.jsonl").open(encoding="utf-8") as lines:
        sentence = json.loads(next(lines))["response"]
    page = visit()
    ask(page, "Tell me something.")
    menu(page, "answer")
    page.get_by_label("Ask about this text as if the model had said it").fill(f"I have read this. {sentence}")
    page.get_by_role("button", name="Attribute this text").click()
    page.locator(".strip .token.verbatim").first.wait_for()
    underlined = "".join(page.locator(".strip .token.verbatim").all_inner_texts())
    assert underlined.replace("·", " ").strip() == sentence.rstrip("."), underlined
    line = page.locator("[data-testid='stExpander']", has_text="1 passage stands word for word in the training data")
    line.locator("summary").click()
    line.get_by_text(f"“{sentence.rstrip('.')}”").wait_for()
    line.get_by_role("link", name="Row 0 ").click()
    page.get_by_role("heading", name="Row 0").wait_for()
