"""Two caches with a model each, chosen on the page: a small one, and one whose rows are near-duplicates."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import POPOVER, ask, go, keep, menu, more_of
from tests.conftest import Tiny
from tests.serving.command import served

Visit = Callable[..., Page]


def choose(page: Page, cache: str) -> None:
    page.get_by_role("combobox", name="Cache and model").click()
    page.get_by_role("option", name=cache).click()
    page.locator(".stApp[data-test-script-state='notRunning']").wait_for()


def test_of_two_caches_one_is_chosen_and_near_duplicates_share_a_card(visit: Visit, tiny: Tiny, twins: Path) -> None:
    with served("serve", str(tiny.cache), str(twins), "--device", "cpu") as place:
        page = visit(height=1900, place=place)
        expect(page.get_by_role("combobox", name="Cache and model")).to_have_value(re.compile(", 7 rows$"))
        choose(page, twins.parent.name)
        expect(page.get_by_role("combobox", name="Cache and model")).to_have_value(re.compile(", 13 rows$"))
        ask(page, "Where was the Terracotta Army discovered?")
        page.locator(".card").first.wait_for()
        menu(page, "more")
        page.locator(POPOVER).get_by_text("All scores, typical words").click()
        page.keyboard.press("Escape")
        expect(page.locator(".histogram figcaption")).to_contain_text("13 scores")

        # Seven rows say nearly the same: one card lists the other six.
        more_of(page.locator(".card", has_text="+6 alike"))
        folded = page.locator(".card .duplicates", has_text="and 6 near-duplicates")
        expect(folded).to_be_visible()
        folded.locator("summary").click()
        expect(folded.locator("li")).to_have_count(6)
        expect(page.locator(".card")).to_have_count(7)
        keep(page, "explore-caches")

        # The other one is as it was; what was asked of this one is in the history.
        choose(page, tiny.cache.parent.name)
        expect(page.get_by_role("combobox", name="Cache and model")).to_have_value(re.compile(", 7 rows$"))
        expect(page.locator(".strip")).to_have_count(0)
        ask(page, "What is the capital of Chile?")
        expect(page.locator(".histogram figcaption")).to_contain_text("7 scores")
        go(page, "History")
        page.get_by_text("newest first").wait_for()
