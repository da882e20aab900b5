"""Two caches with a model each, chosen on the page: the demo's, and a small one whose rows are near-duplicates."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from explorer.paths import DEMO
from tests.browser.conftest import ask, keep, served

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the demo's model: six rows of its data, and six near-duplicates of the first."""
    folder = tmp_path_factory.mktemp("twins")
    lines = (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    first = json.loads(lines[0])
    lines += [json.dumps(first | {"response": first["response"] + "!" * times}) for times in range(1, 7)]
    data = folder / "train.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "explorer.commands", "precompute", str(folder / "cache"), "--data", str(data)]
    settings = ["--adapter", str(DEMO / "adapter"), "--checkpoints", "1", "--k", "4096", "--token-k", "1024"]
    settings += ["--tokens", "none", "--null-prompts", "0", "--batch", "4", "--device", "cpu"]
    subprocess.run([*command, *settings], check=True, capture_output=True)
    return folder / "cache"


def choose(page: Page, cache: str) -> None:
    page.get_by_role("combobox", name="Cache and model").click()
    page.get_by_role("option", name=cache).click()
    page.locator(".stApp[data-test-script-state='notRunning']").wait_for()


def test_of_two_caches_one_is_chosen_and_near_duplicates_share_a_card(visit: Visit, twins: Path) -> None:
    with served("serve", str(DEMO / "cache"), str(twins), "--device", "cpu") as place:
        page = visit(height=1900, place=place)
        page.get_by_text("572 training examples").wait_for()
        choose(page, twins.parent.name)
        page.get_by_text("12 training examples").wait_for()
        ask(page, "Where was the Terracotta Army discovered?")
        page.locator(".card").first.wait_for()
        expect(page.locator(".histogram figcaption")).to_contain_text("12 scores")

        # Seven rows say nearly the same: one card lists the other six.
        folded = page.locator(".card .duplicates", has_text="and 6 near-duplicates")
        expect(folded).to_be_visible()
        folded.locator("summary").click()
        expect(folded.locator("li")).to_have_count(6)
        expect(page.locator(".card")).to_have_count(6)
        keep(page, "explore-caches")

        # The other one is as it was; what was asked of this one is in the history.
        choose(page, "demo")
        page.get_by_text("572 training examples").wait_for()
        expect(page.locator(".strip")).to_have_count(0)
        ask(page, "What is the capital of Chile?")
        expect(page.locator(".histogram figcaption")).to_contain_text("572 scores")
        page.get_by_role("link", name="History", exact=True).click()
        page.get_by_text("newest first").wait_for()
