"""Train without these, in the browser: begun by a click, followed by itself, its result left standing."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from explorer.commands import main as cli
from explorer.paths import DEMO
from tests.browser.conftest import ask
from tests.serving.command import served
from tests.tiny import save_tiny_model

Visit = Callable[..., Page]
ROWS = 40


def test_the_trainings_go_on_by_themselves_and_their_result_stands(visit: Visit, tmp_path: Path) -> None:
    model, data = save_tiny_model(tmp_path / "model", positions=2048), tmp_path / "train.jsonl"
    lines = (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()
    data.write_text("\n".join(lines[:: len(lines) // ROWS]), encoding="utf-8")
    shared = ["--data", str(data), "--model", str(model), "--device", "cpu"]
    assert cli.main(["finetune", str(tmp_path / "adapter"), *shared, "--epochs", "3", "--learning-rate", "0.02"]) == 0
    command = ["precompute", str(tmp_path / "cache"), *shared, "--adapter", str(tmp_path / "adapter"), "--k", "4096"]
    assert cli.main([*command, "--tokens", "none", "--null-prompts", "0"]) == 0
    with served("serve", str(tmp_path / "cache"), "--device", "cpu") as place:
        page = visit(place=place)
        ask(page, "What is the capital of France?")
        page.locator(".strip .token").filter(has_text=re.compile("[a-z]")).first.click()
        panel = page.locator("[data-testid='stExpander']", has_text="Train without these")
        panel.locator("summary").click()
        panel.get_by_text("4 trainings are left to do").wait_for()
        panel.get_by_role("button", name="Train without these").click()
        panel.get_by_role("button", name="Cancel").wait_for()
        panel.get_by_text("Without others, draw 3").wait_for()
        expect(panel.get_by_text("Without these 10 rows the model")).to_be_visible()
        expect(panel.get_by_role("button", name="Cancel")).to_have_count(0)
