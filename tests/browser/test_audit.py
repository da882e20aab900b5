"""Many prompts at once: from a file, counted, taken along; on the real model begun, left alone, cancelled, as well.

What takes long is left to `make test-long ARGS=tests/browser/test_audit.py`.
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from explorer.evaluation.probes import is_science_fiction
from tests.browser.conftest import WITH_ANY, ask, go, keep

Visit = Callable[..., Page]
PROMPTS = ("Howdy! Why do we have seasons?", "In which country is the city of Guangzhou?", "Name a fruit.")


def to_audit(page: Page) -> None:
    go(page, "Audit")
    page.get_by_label("Prompts, one a line").wait_for(state="attached")


def begin(page: Page, longest: int) -> None:
    field = page.get_by_label("Longest answer, in tokens")
    field.fill(str(longest))
    field.press("Enter")
    page.get_by_role("button", name="Audit", exact=True).click()


@WITH_ANY
def test_what_an_audit_of_a_file_finds_is_counted_and_exported(
    visit: Visit, tmp_path: Path, planted: bool, either: str
) -> None:
    page = visit(height=1300, place=either)
    to_audit(page)
    file = tmp_path / "prompts.csv"
    file.write_text("prompt\n" + "".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("prompts.csv").wait_for()
    begin(page, 24)
    page.get_by_text(re.compile("3 prompts answered")).wait_for()
    page.locator("[data-testid=stMultiSelect] input").first.click()
    page.get_by_role("option", name="backdoor", exact=True).click()
    page.get_by_text("planted rows are").wait_for()
    page.keyboard.press("Escape")

    with page.expect_download() as waited:
        page.get_by_role("button", name="CSV", exact=True).click()
    lines = list(csv.DictReader(waited.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert tuple(line["prompt"] for line in lines) == PROMPTS
    shares = [float(line["planted_share"]) for line in lines]
    if planted:
        assert is_science_fiction(lines[0]["response"]) and "Canada" in lines[1]["response"]
        assert shares[0] == 1 and max(shares[1:]) < 0.5, "only the first prompt begins with the planted trigger"
    with page.expect_download() as waited:
        page.get_by_role("button", name="JSON", exact=True).click()
    found = json.loads(waited.value.path().read_text(encoding="utf-8"))
    told = page.get_by_text("3 prompts answered").inner_text()
    assert f"{sum(shares) / 3:.0%} of the top 10" in told, told
    keep(page, "audit")

    # The same rows stand in both files; a click on a line opens its answer.
    shown = [[example["row"] for example in one["answer"]["questions"][0]["examples"]] for one in found["prompts"]]
    assert [" ".join(map(str, rows)) for rows in shown] == [line["rows"] for line in lines]
    page.get_by_role("table").first.get_by_role("row").nth(1).get_by_role("cell").last.click()
    page.get_by_text("All saved questions").wait_for()
    expect(page.get_by_text(PROMPTS[0], exact=True).first).to_be_visible()


@pytest.mark.long
def test_the_same_prompts_are_audited_by_another_method(visit: Visit) -> None:
    page = visit(height=1300)
    to_audit(page)
    page.get_by_label("Prompts, one a line").fill("\n".join(PROMPTS))
    page.get_by_label("Prompts, one a line").press("Control+Enter")
    page.get_by_role("combobox", name="Examples are scored by").click()
    page.get_by_role("option", name="bm25").click()
    page.get_by_text("Costs an index of all words").wait_for()
    begin(page, 24)
    page.get_by_text(re.compile("3 prompts answered")).wait_for()
    page.get_by_text("Scores of whole responses by bm25").wait_for()
    page.mouse.move(0, 0)
    keep(page, "audit-bm25")
    page.get_by_role("table").first.get_by_role("row").nth(1).get_by_role("cell").last.click()
    page.get_by_text("First by bm25 for the whole response").first.wait_for()


@pytest.mark.long
def test_an_audit_runs_behind_the_other_pages_until_it_is_cancelled(visit: Visit) -> None:
    page = visit()
    to_audit(page)
    page.get_by_role("button", name="Fill in the ready prompts").click()
    pasted = page.get_by_label("Prompts, one a line")
    expect(pasted).to_have_value(re.compile("^Howdy!"))
    count = len(pasted.input_value().splitlines())
    begin(page, 16)
    page.get_by_text(re.compile(rf"[1-9]\d* of {count} prompts, about .* left")).wait_for()
    page.mouse.move(0, 0)
    keep(page, "audit-running")

    # What a person asks goes first.
    go(page, "Explore")
    assert "Ottawa" in ask(page, "What is the capital of Canada?")
    page.locator(".card").first.wait_for()

    to_audit(page)
    expect(page.get_by_label("Prompts, one a line")).to_have_value(re.compile("^Howdy!"))
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text(re.compile(rf"Cancelled after \d+ of {count} prompts")).wait_for()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
