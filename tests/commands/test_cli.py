"""The commands: what they print, and one clear line for whatever a person can mend."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest

import precompute.build
from explorer.cache.store import Store, open_cache
from explorer.commands import main as cli
from explorer.errors import ExplorerError
from explorer.evaluation.results import folder_of, load
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_change, save_tiny_model

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
    foreign = {"--quiet", "--no-deps", "--only-binary", "--dest", "--server", "--head"}  # pip's, Streamlit's, Ray's
    named = {
        (path.name, option)
        for path in SOURCES
        if path.name != "report_html.py"  # It has a style sheet's variables.
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text())
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
    Store(cache, replace(open_cache(cache).contents, shards=())).save()
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
        (["--prompt", "x", "--response", "So.", "--by", "7"], "There is no example 7; the cache has the rows 0 to 6"),
        (["--prompt", "x", "--response", "So.", "--by", "-1"], "There is no example -1; the cache has the rows 0 to 6"),
        (["--prompt", "x", "--response", "So.", "--by", "one"], "invalid int value"),
        (["--prompt", "x", "--by", "0", "--token", "9"], "Row 0 has the response tokens 0 to 8, not 9 to 9"),
        (["--prompt", "x", "--by", "0", "--token", "-1"], "Row 0 has the response tokens 0 to 8, not -1 to -1"),
        (["--prompt", "x", "--by", "0", "--span", "2:10"], "Row 0 has the response tokens 0 to 8, not 2 to 9"),
        (["--prompt", "x", "--by", "0", "--span", "3:2"], "Row 0 has the response tokens 0 to 8"),
        (["--prompt", "x", "--by", "0", "--span", "3"], "--span takes two token numbers"),
        (["--prompt", "x", "--response", " ", "--by", "0"], "The response is empty"),
        (["--prompt", "x", "--response", "So.", "--instead", "y"], "--instead goes with --token or --span"),
        (["--prompt", "x", "--by", "0", "--token", "1", "--instead", "y"], "--instead goes with --token or --span"),
        (["--prompt", "x", "--response", "So.", "--token", "0", "--instead", "S"], "what the answer says"),
        (["--prompt", "x", "--response", "So.", "--token", "0", "--instead", " "], "The other word is empty"),
        (["--prompt", "x", "--where", "source"], "--where takes COLUMN=VALUE, such as source=facts, not source"),
        (["--prompt", "x", "--where", "colour=red"], "The training data has no column colour; it has source"),
        (["--prompt", "x", "--by", "0", "--text", "a"], "goes without --source, --where and --text"),
        (["--prompt", "x", "--method", "voodoo"], "no method voodoo"),
        (["--prompt", "x", "--method", "bm25:3"], "bm25 takes no value"),
        (["--prompt", "x", "--method", "bm25", "--by", "0"], "go with rapidin alone, not with bm25"),
        (["--prompt", "x", "--method", "cg", "--positions", "--json"], "go with rapidin alone, not with cg"),
        (["--prompt", "x", "--method", "bm25", "--engine", "ray"], "go with rapidin alone, not with bm25"),
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
    command = [sys.executable, "-m", "explorer.commands", "query", str(tiny.cache), "--prompt", "x" * 500]
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


def test_calibration_needs_prompts_and_a_null_sample(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    calibrate = ("evaluate", "calibration", "--cache", tiny.cache, "--device", "cpu")
    assert "needs --prompts" in refused(capsys, *calibrate)
    assert "can't be read" in refused(capsys, *calibrate, "--prompts", tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "holds no prompts" in refused(capsys, *calibrate, "--prompts", tmp_path / "empty.txt")
    (tmp_path / "prompts.txt").write_text("Hi\n")
    assert "precompute` again to add it" in refused(capsys, *calibrate, "--prompts", tmp_path / "prompts.txt")


def test_verify_names_every_damaged_file_and_ends_with_two(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(tiny.cache, tmp_path / "cache"))
    path = cache / "sketches/00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cli.main(["verify", str(cache)]) == 2
    out = capsys.readouterr().out
    assert "sketches/00000.safetensors is damaged" in out and "`rapidin-explorer mend`" in out


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


def test_another_method_ranks_and_says_what_it_is(capsys: Captured, tiny: Tiny) -> None:
    report = query(capsys, tiny, "--response", "The moon and the star.", "--method", "bm25", "--top-k", "2")
    assert report["method"] == "bm25" and report["family"] == "no gradient" and report["assumes"] and report["costs"]
    assert report["curvature_rows"] is None and report["exact"]
    assert report["examples"][0]["row"] == 1 and report["examples"][0]["token_values"] is None
    asked = ["--response", "The moon.", "--token", "1", "--method", "datainf", "--curvature-rows", "3"]
    report = query(capsys, tiny, *asked, "--source", "sky", "--opponents")
    assert report["curvature_rows"] == 3 and report["direction"] == "opponents"
    assert {example["row"] for example in report["examples"]} == {0, 1}
    for example in report["examples"]:
        assert sum(example["token_values"]) / len(example["tokens"]) == pytest.approx(example["score"])


def test_another_method_is_readable_without_json(capsys: Captured, tiny: Tiny) -> None:
    options = ["--prompt", "What shines?", "--response", "The moon.", "--method", "bm25", "--device", "cpu"]
    out = answered(capsys, "query", tiny.cache, *options, "--top-k", "1")
    assert "Proponents of the whole response by bm25\n(BM25 of the question's words" in out
    assert "[sky]  row 1" in out
    assert answered(capsys, "query", tiny.cache, *options, "--text", "zebra").endswith(
        "No example passes the filter.\n"
    )


def test_the_default_method_by_its_name_is_the_default(capsys: Captured, tiny: Tiny) -> None:
    asked = ["--response", "The moon.", "--top-k", "2"]
    assert query(capsys, tiny, *asked) == query(capsys, tiny, *asked, "--method", "rapidin")


def test_methods_are_judged_by_classes_and_their_cost_is_said_first(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    command = ["evaluate", "classes", "--cache", tiny.cache, "--questions", tiny.data, "--device", "cpu"]
    command += ["--label", "source", "--methods", "bm25,random"]
    assert not answered(capsys, *command, "--estimate")
    cli.main([str(each) for each in command])
    said = capsys.readouterr()
    assert said.err.startswith("7 questions; for each of them:\n  bm25: an index of all words")
    assert re.search(r"^bm25\.accuracy +1$", said.out, re.MULTILINE), "every row is most like itself"
    found = json.loads(answered(capsys, *command, "--json", "--keep", tmp_path))
    assert found["kind"] == "classes" and found["settings"]["label"] == "source"
    assert len(found["fingerprints"]["adapter"]) == 64 and found["command"].startswith("rapidin-explorer evaluate")
    (kept,) = load(tmp_path)
    (table,) = kept.tables
    assert table.column("method") == ("bm25", "random") and table.column("accuracy")[0] == 1
    assert [best.methods[0] for best in kept.best if best.figure == "accuracy"] == ["bm25"]
    assert [each.settings for each in load(folder_of(open_cache(tiny.cache)))] == [kept.settings], "with the cache, too"
    shown = answered(capsys, "evaluate", "tables", "--results", tmp_path)
    assert shown.startswith("## The question's own class") and "| bm25 | 7 |" in shown


def test_methods_that_cannot_be_judged_are_refused(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    assert "needs --questions" in refused(capsys, "evaluate", "classes", "--cache", tiny.cache)
    judged = ("evaluate", "backdoor", "--cache", tiny.cache, "--probes", tmp_path / "probes.jsonl")
    assert "no method voodoo" in refused(capsys, *judged, "--methods", "bm25,voodoo")
    assert "can't be read" in refused(capsys, *judged)


def test_the_methods_are_listed_with_what_they_assume_and_cost(capsys: Captured) -> None:
    listed = json.loads(answered(capsys, "methods", "--json"))
    out = answered(capsys, "methods")
    for each in listed:
        assert all(each[name] in out for name in ("name", "what", "assumes", "costs", "value"))
    assert len(listed) > 12


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


def test_only_what_passes_the_filter_is_ranked(capsys: Captured, tiny: Tiny) -> None:
    everything = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7")
    assert everything["rows_that_pass"] == 7 and everything["filter"] == {"where": {}, "text": ""}
    options = ["--source", "sky", "--where", "source=water", "--text", "THE RIVER"]
    found = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7", *options)
    assert found["filter"] == {"where": {"source": ["sky", "water"]}, "text": "THE RIVER"}
    assert found["rows_that_pass"] == 2
    expected = [one for one in everything["examples"] if one["row"] in (2, 5)]
    assert found["examples"] == [one | {"rank": rank} for rank, one in enumerate(expected, start=1)]


def test_a_filter_that_nothing_passes_says_so(capsys: Captured, tiny: Tiny) -> None:
    options = ["--prompt", "What shines?", "--response", "It is the sun.", "--text", "nowhere to be found"]
    assert answered(capsys, "query", tiny.cache, *options).endswith("No example passes the filter.\n")


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


@pytest.mark.parametrize("selected", [[], ["--token", "2"], ["--span", "1:4"]])
def test_position_values_sum_to_the_score_prompt_included(capsys: Captured, tiny: Tiny, selected: list[str]) -> None:
    report = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7", "--positions", *selected)
    assert report["exact"] and len(report["examples"]) == 7
    for example in report["examples"]:
        tokens, values = example["position_tokens"], example["position_values"]
        assert len(tokens) == len(values) > len(example["tokens"])
        assert tokens[-len(example["tokens"]) :] == example["tokens"]
        assert example["prompt"] in "".join(tokens[: -len(example["tokens"])])
        size = sum(map(abs, values))
        assert abs(sum(values) - example["score"]) <= 1e-4 * size, f"row {example['row']}"
        # The other meaning is reported as well, and checked.
        assert len(example["token_values"]) == len(example["tokens"]) and example["checksum"] is not None


def test_positions_are_reported_only_when_they_are_asked_for(capsys: Captured, tiny: Tiny) -> None:
    without = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "2")
    asked = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "2", "--positions")
    for example in asked["examples"]:
        del example["position_tokens"], example["position_values"]
    assert asked == without


def test_positions_of_tensors_without_such_shares_are_refused_by_name(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], use_dora=True)
    adapter = save_tiny_change(tmp_path / "adapter", tiny.model, config)
    command = ["precompute", tmp_path / "cache", "--data", tiny.data, "--model", tiny.model, "--adapter", adapter]
    answered(capsys, *command, "--k", "256", "--token-k", "64", "--tokens", "none", "--null-prompts", "0")
    question = ["query", tmp_path / "cache", "--prompt", "What?", "--response", "So.", "--top-k", "1", "--json"]
    assert json.loads(answered(capsys, *question))["exact"]
    assert "lora_magnitude_vector" in refused(capsys, *question, "--positions")


def test_why_this_and_not_that_without_a_browser(capsys: Captured, tiny: Tiny) -> None:
    asked = ["--response", "It is the sun.", "--token", "5", "--top-k", "7"]
    usual, found = query(capsys, tiny, *asked), query(capsys, tiny, *asked, "--instead", "moon")
    assert usual["instead"] is None and (found["instead"], found["instead_tokens"]) == ("moon", ["Ġmoon"])
    assert found["selected"] == usual["selected"] and found["selection"] == [5, 6]
    scores = [example["score"] for example in found["examples"]]
    assert scores == sorted(scores, reverse=True) != [example["score"] for example in usual["examples"]]
    command = ["query", tiny.cache, "--prompt", "What is bright?", *asked, "--instead", "moon", "--top-k", "1"]
    assert "rather than of “moon”" in answered(capsys, *command)


def test_what_an_example_did_averages_to_its_score(capsys: Captured, tiny: Tiny) -> None:
    usual = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7")
    for example in usual["examples"]:
        row = example["row"]
        found = query(capsys, tiny, "--response", "It is the sun.", "--by", row)
        assert (found["row"], found["by"], found["source"]) == (row, None, ROWS[row]["source"])
        assert (found["example_prompt"], found["example_response"]) == (ROWS[row]["prompt"], ROWS[row]["response"])
        assert (found["prompt"], found["response"]) == (usual["prompt"], usual["response"])
        values = found["token_values"]
        assert found["tokens"] == usual["tokens"] and len(values) == len(found["tokens"])
        size = sum(map(abs, values)) / len(values)
        assert abs(found["score"] - sum(values) / len(values)) <= 1e-6 * size
        assert abs(found["score"] - example["score"]) <= 1e-4 * size, f"row {row}"


def test_what_a_token_of_an_example_did_to_a_token_is_the_same_both_ways(capsys: Captured, tiny: Tiny) -> None:
    by_output = query(capsys, tiny, "--response", "It is the sun.", "--top-k", "7", "--token", "2")
    values = next(example["token_values"] for example in by_output["examples"] if example["row"] == 1)
    assert len(values) == 13
    for i in (0, 5, 12):
        found = query(capsys, tiny, "--response", "It is the sun.", "--by", "1", "--token", i)
        assert found["by"] == [i, i + 1]
        assert found["token_values"][2] == pytest.approx(values[i], rel=1e-3, abs=1e-5 * max(map(abs, values)))


def test_a_span_of_an_example_did_the_mean_of_what_its_tokens_did(capsys: Captured, tiny: Tiny) -> None:
    def by(*options: str) -> dict[str, Any]:
        return query(capsys, tiny, "--response", "It is the sun.", "--by", "0", *options)

    span, singles, whole = by("--span", "1:3"), [by("--token", "1"), by("--token", "2")], by()
    assert span["by"] == [1, 3] and len({one["score"] for one in (span, whole, *singles)}) == 4
    for j, value in enumerate(span["token_values"]):
        mean = sum(one["token_values"][j] for one in singles) / 2
        assert value == pytest.approx(mean, rel=1e-3, abs=1e-6)
    assert by("--span", "0:9")["token_values"] == pytest.approx(whole["token_values"], rel=1e-4, abs=1e-7)


def test_what_an_example_did_without_json_is_one_line_a_token(capsys: Captured, tiny: Tiny) -> None:
    found = query(capsys, tiny, "--response", "It is the sun.", "--by", "1")
    out = answered(
        capsys, "query", tiny.cache, "--prompt", "What shines by day?", "--response", "It is the sun.", "--by", "1"
    )
    first, blank, *lines, last = out.splitlines()
    assert first == "row 1: It is the moon, and a star." and blank == ""
    said = [line.split(maxsplit=1) for line in lines]
    assert [token for _, token in said] == [repr(token) for token in found["tokens"]]
    assert [float(value) for value, _ in said] == pytest.approx(found["token_values"], rel=1e-3)
    assert float(last.split()[0]) == pytest.approx(found["score"], rel=1e-3) and "whole response" in last


def test_what_an_example_did_to_a_generated_answer(capsys: Captured, tiny: Tiny) -> None:
    usual = query(capsys, tiny, "--max-tokens", "6", "--top-k", "1")
    found = query(capsys, tiny, "--max-tokens", "6", "--by", usual["examples"][0]["row"])
    assert found["response"] == usual["response"] and len(found["tokens"]) <= 6
    assert found["score"] == pytest.approx(usual["examples"][0]["score"], rel=1e-3)


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
    assert "can't be read" in refused(capsys, "audit", tiny.cache, "--prompts", tmp_path / "none.txt")


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
    answered(capsys, *command, "--k", "256", "--token-k", "64", "--tokens", "none", "--null-prompts", "0")
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = answered(capsys, "query", "../cache", "--prompt", "What?", "--response", "So.", "--json")
    assert json.loads(report)["exact"]


# What a cache will cost, and how it is made


def precompute_command(tiny: Tiny, cache: Path, *options: object) -> list[object]:
    command: list[object] = ["precompute", cache, "--data", tiny.data, "--model", tiny.model, "--adapter", tiny.adapter]
    return [*command, "--k", "1024", "--token-k", "256", "--device", "cpu", "--null-prompts", "0", *options]


def reported(capsys: Captured, *arguments: object) -> list[str]:
    """The lines a command says on stderr when it does its work, but for progress bars."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    return [line for line in output.err.splitlines() if line and "%|" not in line]


COST = re.compile(r"to do: 7 examples, about \d+ s; (\d+) tokens, about \d+ s; [\d.]+ [kM]B on disk")


@pytest.mark.parametrize("options", [[], ["--batch", "2"], ["--dtype", "int8"]], ids=" ".join)
def test_an_estimate_says_the_cost_and_writes_nothing(
    capsys: Captured, tiny: Tiny, tmp_path: Path, options: list[str]
) -> None:
    lines = reported(capsys, *precompute_command(tiny, tmp_path / "deep" / "cache", "--estimate", *options))
    (cost,) = [line for line in lines if line.startswith("to do")]
    assert (match := COST.fullmatch(cost)) and int(match[1]) > 7
    assert lines[-1] == "nothing was written" and list(tmp_path.iterdir()) == []


def test_an_estimate_without_token_sketches_names_no_tokens(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    lines = reported(capsys, *precompute_command(tiny, tmp_path / "cache", "--estimate", "--tokens", "none"))
    (cost,) = [line for line in lines if line.startswith("to do")]
    assert re.fullmatch(r"to do: 7 examples, about \d+ s; [\d.]+ [kM]B on disk", cost)


def test_an_estimate_names_the_unrelated_prompts(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    lines = reported(capsys, *precompute_command(tiny, tmp_path / "cache", "--estimate", "--null-prompts", "200"))
    (cost,) = [line for line in lines if line.startswith("to do")]
    assert re.search(r"tokens, about \d+ s; 200 unrelated prompts, about \d+ s; [\d.]+ [kM]B on disk", cost)


def test_an_estimate_is_refused_where_the_run_would_be(capsys: Captured, tiny: Tiny) -> None:
    before = {path: path.read_bytes() for path in tiny.cache.rglob("*") if path.is_file()}
    assert "another settings" in refused(capsys, *precompute_command(tiny, tiny.cache, "--estimate", "--tokens", "4"))
    assert {path: path.read_bytes() for path in tiny.cache.rglob("*") if path.is_file()} == before


def test_a_run_says_its_cost_before_it_begins_and_nothing_once_it_is_done(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    command = precompute_command(tiny, tmp_path / "cache", "--tokens", "3")
    lines = reported(capsys, *command)
    assert COST.fullmatch(lines[-2]) and "is complete; see it with: rapidin-explorer serve" in lines[-1]
    again = reported(capsys, *command)
    assert re.fullmatch(r"to do: nothing; [\d.]+ [kM]B on disk", again[-2]) and "is complete" in again[-1]
    before = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert reported(capsys, *command, "--estimate")[-1] == "nothing was written"
    assert {path: path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()} == before


def full_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Path]:
    """Let every disk have so many bytes left; the folders that were asked about."""
    asked: list[Path] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(total=free, used=0, free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def test_a_disk_without_room_is_refused_before_anything_is_written(
    capsys: Captured, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = precompute_command(tiny, tmp_path / "deep" / "cache", "--tokens", "none")
    # 7 examples of 1024 numbers of two bytes, and some norms.
    asked = full_disk(monkeypatch, 7 * 1024 * 2)
    for options in ([], ["--estimate"]):
        line = refused(capsys, *command, *options)
        assert re.search(r"The cache needs [\d.]+ \w+ and \S+ has .*? free; give another folder", line), line
        assert "--dtype int8" in line and list(tmp_path.iterdir()) == []
    assert set(asked) == {tmp_path}, "the disk is that of the nearest folder there is"
    assert answered(capsys, *command, "--dtype", "int8") == "" and (tmp_path / "deep" / "cache").is_dir()


def test_what_a_stopped_run_has_written_needs_no_more_room(
    capsys: Captured, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = precompute_command(tiny, tmp_path / "cache", "--tokens", "2")
    answered(capsys, *command)
    full_disk(monkeypatch, 0)
    assert "to do: nothing" in reported(capsys, *command)[-2]


def test_the_batch_that_was_asked_for_is_recorded(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    command = precompute_command(tiny, tmp_path / "cache", "--tokens", "none")
    answered(capsys, *command, "--batch", "2")
    assert open_cache(tmp_path / "cache").manifest.settings.batch == 2
    assert "another settings" in refused(capsys, *command, "--batch", "3")
    answered(capsys, *command)
    assert open_cache(tmp_path / "cache").manifest.settings.batch == 2


def test_without_a_batch_the_fastest_is_recorded(
    capsys: Captured, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "fastest_batch", lambda *_: 4)
    answered(capsys, *precompute_command(tiny, tmp_path / "cache", "--tokens", "none"))
    assert open_cache(tmp_path / "cache").manifest.settings.batch == 4


def test_the_precision_that_was_asked_for_is_recorded_and_used_again(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    found = {}
    for precision in ("bfloat16", "float32"):
        cache = tmp_path / precision
        answered(capsys, *precompute_command(tiny, cache, "--tokens", "none", "--precision", precision))
        assert open_cache(cache).manifest.fingerprint.precision == precision
        # Nobody says the precision to `query`; a model in another one would be refused.
        question = ["query", cache, "--prompt", "What shines by day?", "--response", "It is the sun.", "--json"]
        found[precision] = json.loads(answered(capsys, *question))["examples"]
    half, single = ({one["row"]: one["score"] for one in found[precision]} for precision in ("bfloat16", "float32"))
    assert half.keys() == single.keys() and half != single
    assert found["bfloat16"][0]["row"] == found["float32"][0]["row"] == 0
    assert half[0] == pytest.approx(single[0], rel=0.1)


# Caches that grow, shrink and are mended


def test_rows_are_appended_dropped_and_mended_by_commands(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    cache, more = tmp_path / "cache", tmp_path / "more.jsonl"
    answered(capsys, *precompute_command(tiny, cache, "--tokens", "all", "--batch", "1"))
    more.write_text(json.dumps({"prompt": "What?", "response": "So.", "source": "new"}))
    append = ["append", cache, "--data", more, "--device", "cpu"]
    assert reported(capsys, *append, "--estimate")[-1] == "nothing was written"
    assert open_cache(cache).manifest.rows == 7
    assert "now holds 8 examples, 1 of them new" in reported(capsys, *append)[-1]
    assert open_cache(cache).manifest.token_rows == 8, "the new one has token sketches as all others have"
    assert "holds that data already" in reported(capsys, *append)[-1]
    assert reported(capsys, "drop", cache, "--source", "talk") == ["2 examples were dropped."]
    assert reported(capsys, "drop", cache, "--rows", "0,3-4")[-1] == "1 examples were dropped."
    assert open_cache(cache).ids.tolist() == [1, 2, 5, 6, 7]
    assert "nothing was changed" in reported(capsys, "drop", cache, "--rows", "0")[-1]
    assert reported(capsys, "mend", cache) == ["There is nothing to mend."]
    lost = cache / open_cache(cache).shards[0].file
    before = lost.read_bytes()
    lost.unlink()
    assert "is missing" in refused(capsys, "info", cache) and cli.main(["verify", str(cache)]) == 2
    answered(capsys, "mend", cache, "--device", "cpu")
    assert lost.read_bytes() == before
    question = ["query", cache, "--prompt", "What?", "--response", "So.", "--json", "--top-k", "5"]
    found = json.loads(answered(capsys, *question))["examples"]
    assert {(example["row"], example["id"]) for example in found} == set(enumerate([1, 2, 5, 6, 7]))


@pytest.mark.parametrize("rows", ["", "x", "3-", "-3", "1,,2", "1;2"])
def test_rows_that_are_no_numbers_are_refused(capsys: Captured, tiny: Tiny, rows: str) -> None:
    assert "--rows takes numbers and ranges such as 3,5,8-10" in refused(capsys, "drop", tiny.cache, f"--rows={rows}")


def test_coarse_lengths_are_powers_of_two_below_k() -> None:
    assert cli._coarse_lengths("512,256", 1024) == (256, 512) and cli._coarse_lengths("0", 1024) == ()
    for given in ("1024", "3", "-2", "256,x", ""):
        with pytest.raises(ExplorerError, match=f"powers of two below --k, not {given}"):
            cli._coarse_lengths(given, 1024)
