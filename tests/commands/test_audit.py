"""`audit`: many prompts without a browser."""

import json
from pathlib import Path

import pytest

from tests.commands.running import Captured, answered, refused
from tests.conftest import Tiny

REPOSITORY = Path(__file__).parents[2]


def test_many_prompts_are_audited_without_a_browser(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "What is bright?"}\n{"prompt": ""}\n', encoding="utf-8")
    options = ["audit", tiny.cache, "--prompts", tmp_path / "prompts.jsonl", "--max-tokens", "3", "--device", "cpu"]
    found = json.loads(answered(capsys, *options, "--json", "--exact", "--planted", "sky"))
    first, second = found["prompts"]
    assert first["planted_share"] == pytest.approx(2 / 7) and "empty" in second["error"] and second["answer"] is None
    assert all(one["exact"] for one in first["answer"]["questions"][0]["examples"])
    lines = answered(capsys, *options, "--csv").splitlines()
    assert len(lines) == 3 and lines[1].startswith("What is bright?,")
    said = answered(capsys, *options)
    assert "1 prompt answered; 1 could not be answered." in said and "not answered: The prompt is empty" in said
    assert "values are: odd, sky" in refused(capsys, *options, "--planted", "moon")
    assert "--csv is not allowed with --json" in refused(capsys, *options, "--json", "--csv")
    assert "can't be read" in refused(capsys, "audit", tiny.cache, "--prompts", tmp_path / "none.txt")
