"""The commands: what they print, and one clear line for whatever a person can mend."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from explorer import cli
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_model

COMMANDS: dict[str, argparse.ArgumentParser] = next(
    action.choices for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)
)

REPOSITORY = Path(__file__).parents[2]
SOURCES = [path for room in ("explorer", "precompute", "pages") for path in (REPOSITORY / room).rglob("*.py")]

Captured = pytest.CaptureFixture[str]


def refused(capsys: Captured, *arguments: object) -> str:
    """What a command says on stderr when it ends with status 2."""
    capsys.readouterr()
    try:
        status: object = cli.main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code
    output = capsys.readouterr()
    noise = ("usage:", " ", "Loading weights")  # of argparse, and of libraries that a test imported before the command
    said = [line for line in output.err.splitlines() if line and not line.startswith(noise)]
    assert status == 2, f"ended with {status}: {output.err}"
    assert len(said) == 1, f"said more than one line: {output.err}"
    assert said[0].startswith("rapidin-explorer") and "Traceback" not in output.err
    return said[0]


def answered(capsys: Captured, *arguments: object) -> str:
    """What a command prints when it does its work."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


# Help


def test_every_command_is_listed(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in out] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_explains_all_its_options(capsys: Captured, name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    options = [option for action in COMMANDS[name]._actions for option in action.option_strings]
    assert [option for option in options if option not in out] == []
    assert [action.dest for action in COMMANDS[name]._actions if not action.help] == []


def test_a_command_is_needed(capsys: Captured) -> None:
    assert "COMMAND" in refused(capsys)
    assert "invalid choice" in refused(capsys, "explain")


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, explorer.cli as c; c.parser(); sys.exit(bool({'torch', 'streamlit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0, (
        "torch was loaded for --help"
    )


def test_options_named_in_messages_and_help_exist() -> None:
    known = {option for command in COMMANDS.values() for action in command._actions for option in action.option_strings}
    foreign = {"--quiet", "--no-deps", "--only-binary", "--dest", "--server"}  # pip's and Streamlit's
    named = {
        (path.name, option) for path in SOURCES for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text())
    }
    assert {pair for pair in named if pair[1] not in known | foreign} == set()


def test_commands_named_in_messages_exist() -> None:
    named = {name for path in SOURCES for name in re.findall(r"`rapidin-explorer ([a-z]+)", path.read_text())}
    assert named and named <= set(COMMANDS)


# What can be mended


@pytest.mark.parametrize("command", [("query", "--prompt", "x"), ("info",), ("verify",), ("serve",)])
def test_a_folder_that_is_no_cache_is_refused(capsys: Captured, tmp_path: Path, command: tuple[str, ...]) -> None:
    said = refused(capsys, command[0], tmp_path / "nothing", *command[1:])
    assert "is no cache" in said and "`rapidin-explorer precompute`" in said


@pytest.mark.parametrize("command", [("query", "--prompt", "x"), ("serve",)])
def test_an_unfinished_cache_is_refused(capsys: Captured, tiny: Tiny, tmp_path: Path, command: tuple[str, ...]) -> None:
    cache = Path(shutil.copytree(tiny.cache, tmp_path / "cache"))
    kept = json.loads((cache / "manifest.json").read_text())
    (cache / "manifest.json").write_text(json.dumps(kept | {"shards": []}))
    said = refused(capsys, command[0], cache, *command[1:])
    assert "unfinished (0 of 7 examples)" in said and "run the same `rapidin-explorer precompute` again" in said


def test_a_cache_of_another_model_is_refused(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", seed=5)
    said = refused(capsys, "query", tiny.cache, "--prompt", "x", "--model", other)
    assert "was made with another base model" in said


def test_another_template_is_refused(capsys: Captured, tiny: Tiny) -> None:
    said = refused(capsys, "query", tiny.cache, "--prompt", "x", "--template", "alpaca")
    assert "was made with another template" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", "x" * 500], "tokens long, and the model reads fewer than 256; shorten it"),
        (["--prompt", " "], "The prompt is empty"),
        (["--prompt", "x", "--response", ""], "The response is empty"),
        (["--prompt", "x", "--response", "y" * 500], "shorten it"),
        (["--prompt", "x", "--response", "So.", "--span", "3"], "--span takes two token numbers such as 3:7, not 3"),
        (["--prompt", "x", "--response", "So.", "--span", "a:b"], "--span takes two token numbers"),
        (["--prompt", "x", "--response", "So.", "--span", "²:³"], "--span takes two token numbers"),
        (["--prompt", "x", "--response", "So.", "--span", "2:1"], "the answer has the tokens 0 to 3"),
        (["--prompt", "x", "--response", "So.", "--span", "0:99"], "the answer has the tokens 0 to 3"),
        (["--prompt", "x", "--response", "So.", "--token", "99"], "the answer has the tokens 0 to 3"),
        (["--prompt", "x", "--response", "So.", "--token", "-1"], "the answer has the tokens 0 to 3"),
        (["--prompt", "x", "--token", "1", "--span", "1:2"], "not allowed with"),
        (["--prompt", "x", "--top-k", "0"], "0 is less than 1"),
        (["--prompt", "x", "--top-k", "many"], "invalid"),
        (["--prompt", "x", "--device", "toaster"], "The device toaster can't be used here"),
        (["--prompt", "x", "--model", "/nowhere"], "There is no model folder /nowhere"),
        (["--prompt", "x", "--adapter", "/nowhere"], "holds no adapter_model.safetensors"),
        (["--prompt", "x", "--template", "/nowhere"], "can't be read"),
        ([], "--prompt"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    capsys: Captured, tiny: Tiny, options: list[str], said: str
) -> None:
    assert said in refused(capsys, "query", tiny.cache, *options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "3000"], "--k must be a power of two, not 3000"),
        (["--token-k", "5"], "--token-k must be a power of two, not 5"),
        (["--k", "1024", "--token-k", "2048"], "--token-k can't be larger than --k (2048 > 1024)"),
        (["--k", "0"], "0 is less than 1"),
        (["--tokens", "some"], "--tokens takes all, none or a number, not some"),
        (["--tokens", "-1"], "--tokens"),
        (["--tokens", "²"], "--tokens takes all, none or a number"),
        (["--dtype", "float64"], "invalid choice"),
        (["--template", "/nowhere"], "The template /nowhere can't be read"),
        (["--model", "/nowhere"], "There is no model folder /nowhere"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_and_leave_nothing(
    capsys: Captured, tiny: Tiny, tmp_path: Path, options: list[str], said: str
) -> None:
    model = ["--model", tiny.model, "--adapter", tiny.adapter]
    assert said in refused(capsys, "precompute", tmp_path / "cache", "--data", tiny.data, *model, *options)
    assert not (tmp_path / "cache").exists()


def test_a_refusal_is_one_line_in_a_process_of_its_own(tiny: Tiny) -> None:
    command = [sys.executable, "-m", "explorer.cli", "query", str(tiny.cache), "--prompt", "x" * 500]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"rapidin-explorer: The text is .*; shorten it\.\n", done.stderr), done.stderr


def test_malformed_data_is_refused_before_a_model_is_loaded(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"question": "c"}\n')
    for command in ("precompute", "finetune"):
        said = refused(capsys, command, tmp_path / "out", "--data", tmp_path / "data.jsonl", "--model", "/nowhere")
        assert "row 2, has the columns question; expected prompt and response" in said


def test_data_too_long_for_the_model_is_refused_by_its_row(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    rows = [ROWS[0], {"prompt": "x" * 500, "response": "y"}]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    said = refused(capsys, "precompute", tmp_path / "out", "--data", tmp_path / "data.json", "--model", tiny.model)
    # Rows are counted from 1 wherever training data is spoken of.
    assert re.search(r"\b[Rr]ow 2\b.*tokens long", said), said
    assert not (tmp_path / "out").exists()


def test_another_setting_on_an_existing_cache_is_refused(capsys: Captured, tiny: Tiny) -> None:
    command = ["precompute", tiny.cache, "--data", tiny.data, "--model", tiny.model, "--adapter", tiny.adapter]
    said = refused(capsys, *command, "--k", "4096", "--token-k", "1024", "--tokens", "4", "--seed", "1")
    assert "already holds a cache with another settings; give another folder" in said


def test_a_cache_cannot_be_written_into_a_file(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = refused(capsys, "precompute", tmp_path / "file", "--data", tiny.data, "--model", tiny.model)
    assert "can't be made" in said and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--targets", "nothing"], "LoRA can't be put on nothing"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--epochs", "0"], "0 is less than 1"),
    ],
)
def test_a_training_that_cannot_be_done_is_refused(
    capsys: Captured, tiny: Tiny, tmp_path: Path, options: list[str], said: str
) -> None:
    command = ["finetune", tmp_path / "out", "--data", tiny.data, "--model", tiny.model, "--targets", "q_proj"]
    assert said in refused(capsys, *command, *options)
    assert not (tmp_path / "out").exists()


def test_probes_that_cannot_be_read_are_refused(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "a", "kind": "clean"}\n{"question": "b"}\n')
    said = refused(capsys, "evaluate", "probes", "--cache", tiny.cache, "--probes", tmp_path / "probes.jsonl")
    assert "line 2, is no probe" in said
    assert "can't be read" in refused(capsys, "evaluate", "probes", "--cache", tiny.cache, "--probes", "/nowhere")


def test_verify_names_every_damaged_file_and_ends_with_two(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(tiny.cache, tmp_path / "cache"))
    path = cache / "sketches/00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cli.main(["verify", str(cache)]) == 2
    out = capsys.readouterr().out
    assert "sketches/00000.safetensors was changed or damaged" in out and "Restore the files" in out


def test_ctrl_c_ends_with_130_and_keeps_what_was_finished(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_info", stopped)
    assert cli.main(["info", "x"]) == 130
    assert "stopped; what was finished is kept" in capsys.readouterr().err


# What is answered


def query(capsys: Captured, tiny: Tiny, *options: object) -> dict[str, Any]:
    out = answered(capsys, "query", tiny.cache, "--prompt", "What shines by day?", "--json", *options)
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("selected", [[], ["--token", "2"], ["--span", "1:4"]])
@pytest.mark.parametrize("direction", [[], ["--opponents"]])
def test_token_values_average_to_the_score(
    capsys: Captured, tiny: Tiny, selected: list[str], direction: list[str]
) -> None:
    report = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7", *selected, *direction)
    assert report["exact"] and len(report["examples"]) == 7
    for example in report["examples"]:
        values = example["token_values"]
        assert len(values) == len(example["tokens"])
        size = sum(map(abs, values)) / len(values)
        mean = sum(values) / len(values)
        assert abs(mean - example["score"]) <= 1e-3 * max(abs(example["score"]), 1e-3 * size), f"row {example['row']}"
        assert example["checksum"] * abs(example["score"]) < 1e-4 * size


def test_examples_come_in_order_with_all_their_columns(capsys: Captured, tiny: Tiny) -> None:
    report = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "3")
    found = report["examples"]
    assert [example["rank"] for example in found] == [1, 2, 3]
    scores = [example["score"] for example in found]
    assert scores == sorted(scores, reverse=True)
    for example in found:
        row = ROWS[example["row"]]
        assert (example["prompt"], example["response"], example["source"]) == (
            row["prompt"],
            row["response"],
            row["source"],
        )
    assert found[0]["row"] == 0 and report["direction"] == "proponents"


def test_opponents_are_the_examples_from_below(capsys: Captured, tiny: Tiny) -> None:
    above = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7")["examples"]
    below = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7", "--opponents")["examples"]
    assert [example["row"] for example in below] == [example["row"] for example in above][::-1]


def test_approximate_scores_are_said_to_be_so(capsys: Captured, tiny: Tiny) -> None:
    report = query(capsys, tiny, "--response", "It is the sun.", "--approximate", "--top-k", "7")
    assert not report["exact"] and report["sketch_error"] > 0
    for example in report["examples"]:
        assert not example["exact"] and example["score"] == example["sketch_score"] and example["checksum"] is None
    assert sum(example["token_values"] is not None for example in report["examples"]) == 4


def test_a_generated_answer_is_the_same_each_time(capsys: Captured, tiny: Tiny) -> None:
    once, again = (query(capsys, tiny, "--max-tokens", "6", "--top-k", "1") for _ in range(2))
    assert once == again and 1 <= len(once["tokens"]) <= 6


def test_a_selection_is_named_in_the_report(capsys: Captured, tiny: Tiny) -> None:
    report = query(capsys, tiny, "--response", "It is the sun.", "--span", "1:3", "--top-k", "1")
    assert report["selection"] == [1, 3] and "Eq. 7" in report["scores"] and "Eq. 8" in report["token_values"]
    whole = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "1")
    assert whole["selection"] is None and "Eq. 5" in whole["scores"] and "Eq. 6" in whole["token_values"]


def test_a_query_without_json_is_readable(capsys: Captured, tiny: Tiny) -> None:
    out = answered(capsys, "query", tiny.cache, "--prompt", "What shines?", "--response", "It is the sun.")
    assert out.startswith("It is the sun.") and "proponents of the whole response" in out
    assert "[sky]" in out and re.search(r"^  1  \+", out, re.MULTILINE)


def test_info_tells_what_the_manifest_tells(capsys: Captured, tiny: Tiny) -> None:
    found = json.loads(answered(capsys, "info", tiny.cache, "--json"))
    assert (found["examples"], found["complete"], found["with_token_sketches"]) == (7, True, 4)
    assert (found["sketch_length"], found["token_sketch_length"], found["data"]) == (4096, 1024, "train.jsonl")
    assert found["epochs_x_learning_rate"] == pytest.approx(0.02)
    out = answered(capsys, "info", tiny.cache)
    assert all(name.replace("_", " ") in out for name in found)


def test_verify_is_content_with_a_whole_cache(capsys: Captured, tiny: Tiny) -> None:
    assert "as its manifest says" in answered(capsys, "verify", tiny.cache)


def test_a_moved_model_can_be_named(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    for name in ("model", "adapter", "cache"):
        shutil.copytree(getattr(tiny, name), tmp_path / "deep" / f"my {name}")
    moved = tmp_path / "deep"
    options = ["--model", moved / "my model", "--adapter", moved / "my adapter", "--response", "So.", "--json"]
    report = json.loads(answered(capsys, "query", moved / "my cache", "--prompt", "What?", *options))
    assert report["exact"]


def test_a_relative_folder_opens_from_anywhere(
    capsys: Captured, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, adapter and cache named relative to one folder, asked from another."""
    for name in ("model", "adapter"):
        shutil.copytree(getattr(tiny, name), tmp_path / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    command = ["precompute", "cache", "--data", tiny.data, "--model", "model", "--adapter", "adapter"]
    answered(capsys, *command, "--k", "256", "--token-k", "64", "--tokens", "none")
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = answered(capsys, "query", "../cache", "--prompt", "What?", "--response", "So.", "--json")
    assert json.loads(report)["exact"]
