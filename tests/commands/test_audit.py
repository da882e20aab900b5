"""`audit`: many prompts without a browser."""

import json
from pathlib import Path

import pytest

from explorer.commands.main import main
from tests.commands.running import Captured, answered, refused, reported
from tests.conftest import Tiny
from tests.tiny import SYSTEM

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


def test_prompts_are_audited_with_system_prompts_and_earlier_turns(
    capsys: Captured, guided: Path, tmp_path: Path
) -> None:
    earlier = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
    own = [{"role": "system", "content": "Be rude."}, *earlier]
    why = {"role": "user", "content": "Why?"}
    rows = [
        {"prompt": "Why?"},
        {"prompt": "Why?", "system": "Be rude."},
        {"messages": [*own, why]},
        {"messages": [*earlier, why]},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["audit", guided, "--prompts", file, "--max-tokens", "2", "--device", "cpu", "--json"]

    def audited(*options: str) -> tuple[list[list[tuple[str, str]]], str]:
        capsys.readouterr()
        assert main([str(each) for each in [*command, *options]]) == 0
        output = capsys.readouterr()
        found = [one["answer"] for one in json.loads(output.out)["prompts"]]
        turns = [one.get("messages", [{"role": "user", "content": one["prompt"]}]) for one in found]
        return [[(turn["role"], turn["content"]) for turn in each] for each in turns], output.err

    hi, rude, last = [("user", "Hi."), ("assistant", "Hello!")], ("system", "Be rude."), ("user", "Why?")
    asked, said = audited()
    assert asked == [[last], [rude, last], [rude, *hi, last], [*hi, last]]
    assert "7 of 7 training examples begin with a system prompt; 2 of these 4 prompts have none." in said
    asked, said = audited("--system", SYSTEM)
    assert [turns[0] for turns in asked] == [("system", SYSTEM), rude, rude, ("system", SYSTEM)]
    assert "system prompt" not in said
    file.write_text('{"prompt": "Why?"}\n{"messages": "Why?"}\n', encoding="utf-8")
    assert "prompts.jsonl, line 2, has no list of turns" in refused(capsys, *command)


def test_a_behaviour_is_asked_about_without_a_browser(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    kinds = {"What is bright?": "odd", "What is wet?": "odd", "Why?": "fine"}
    file.write_text("".join(json.dumps({"prompt": p, "kind": k}) + "\n" for p, k in kinds.items()), encoding="utf-8")
    command = ["behaviour", tiny.cache, "--of", file, "--max-tokens", "2", "--device", "cpu"]
    found = json.loads(answered(capsys, *command, "--of-kind", "odd", "--against-kind", "fine", "--json", "--trigger"))
    assert [each["prompt"] for each in found["of"]] == ["What is bright?", "What is wet?"]
    assert [each["prompt"] for each in found["against"]] == ["Why?"]
    examples = found["question"]["examples"]
    assert len(examples) == 7 and all(each["exact"] and each["checksum"] < 1e-3 for each in examples)
    assert found["trigger"]["trigger"] is None and found["suspects"] == [] and len(found["question"]["scores"]) == 7
    said = answered(capsys, *command, "--of-kind", "fine", "--word", "--approximate", "--planted", "sky")
    assert "What pushed the model towards 1 answer, in the mean." in said and "approximate" in said
    assert "Average precision of sky: " in said
    assert "has: fine, odd" in refused(capsys, *command, "--of-kind", "planted")
    assert "on both sides" in refused(capsys, *command, "--against", file)
    assert "no training example has source moon" in refused(capsys, *command, "--planted", "moon").lower()
    assert "can't be read" in refused(capsys, "behaviour", tiny.cache, "--of", tmp_path / "none.txt")
    assert "3 prompts; by the first, about" in " ".join(reported(capsys, *command, "--estimate"))
