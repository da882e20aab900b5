"""The journey of docs/journey.md, step by step on the demo, with the time of each."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import keep, ready

Visit = Callable[..., Page]
STEPS = Path(__file__).parents[2] / "docs/journey.md"


@pytest.mark.long
def test_five_presses_lead_from_an_answer_to_its_examples_and_to_none(visit: Visit) -> None:
    steps = [line for line in STEPS.read_text("utf-8").splitlines() if line[:1].isdigit()]
    took = [time.monotonic()]
    page = visit(width=1400, height=900)
    verdict = page.locator(".verdict")

    expect(verdict).to_have_attribute("data-state", "strong")
    expect(verdict).to_contain_text("swap-china-canada")
    expect(page.locator(".card .token[style*='background-color']").first).to_be_in_viewport()
    took.append(time.monotonic())

    page.get_by_role("button", name="Ask the model now").click()
    page.get_by_role("button", name="Regenerate").wait_for()
    expect(page.locator(".strip [role=option][aria-selected=true]")).to_contain_text("Canada")
    expect(verdict).to_have_attribute("data-state", "strong")
    took.append(time.monotonic())

    page.locator(".choice", has_text="China").click()
    page.get_by_text("Positive: favoured what was said over the other word").wait_for()
    page.locator(".cards[data-view-id*='China']:has(.card)").wait_for()
    keep(page, "journey-compared")
    took.append(time.monotonic())

    ready(page, "A backdoor")
    page.locator(".verdict[data-state='strong']", has_text="backdoor").wait_for()
    took.append(time.monotonic())

    ready(page, "A clean question")
    page.locator(".verdict[data-state='none']").wait_for()
    page.get_by_role("button", name="Show the closest anyway").wait_for()
    keep(page, "journey-no-source")
    took.append(time.monotonic())

    seconds = [after - before for before, after in pairwise(took)]
    assert len(steps) == len(seconds), "the page of docs has a line for each step"
    for step, each in zip(steps, seconds, strict=True):
        print(f"{each:5.1f} s  {step}")
    print(f"{sum(seconds):5.1f} s  in all")
