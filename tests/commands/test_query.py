"""`query` and `methods`: what they print, and one clear line for whatever a person can mend."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest

from explorer.cache.store import open_cache
from explorer.commands.main import main
from tests.commands.running import Captured, answered, refused
from tests.conftest import Tiny
from tests.tiny import ROWS, SYSTEM, save_tiny_change, save_tiny_model, spoken

REPOSITORY = Path(__file__).parents[2]


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
        (["--prompt", "x" * 500], "tokens long, and the model reads 255 of them at most; shorten it"),
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
        (["--prompt", "x", "--token", "1", "--span", "1:2"], "--span is not allowed with --token"),
        (["--prompt", "x", "--response", "So.", "--by", "7"], "There is no example 7; the cache has the rows 0 to 6"),
        (["--prompt", "x", "--response", "So.", "--by", "-1"], "There is no example -1; the cache has the rows 0 to 6"),
        (["--prompt", "x", "--response", "So.", "--by", "one"], "'one' is not a valid integer"),
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
        (["--prompt", "x", "--top-k", "many"], "many is no whole number"),
        (["--prompt", "x", "--device", "toaster"], "The device toaster can't be used here"),
        (["--prompt", "x", "--model", "/nowhere"], "There is no model folder /nowhere"),
        (["--prompt", "x", "--adapter", "/nowhere"], "holds no adapter_model.safetensors"),
        (["--prompt", "x", "--template", "/nowhere"], "can't be read"),
        ([], "There is no question; give one with --prompt, or a file with --messages"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    capsys: Captured, tiny: Tiny, options: list[str], said: str
) -> None:
    assert said in refused(capsys, "query", tiny.cache, *options)


def query(capsys: Captured, tiny: Tiny, *options: object) -> dict[str, Any]:
    out = answered(capsys, "query", tiny.cache, "--prompt", "What shines by day?", "--json", *options)
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_verdict_is_told_where_the_cache_knows_unrelated_prompts(capsys: Captured, tiny: Tiny) -> None:
    cache = tiny.cache.parent / "cache_with_verdict"
    shutil.copytree(tiny.cache, cache, dirs_exist_ok=True)
    small = np.random.default_rng(0).normal(size=(len(ROWS), 199)).astype(np.float32) * 1e-9
    open_cache(cache).add_shard("nulls", {"response": small, "token": small}, len(ROWS))
    asked = ["--prompt", "What shines?", "--response", "It is the sun."]
    report = json.loads(answered(capsys, "query", cache, *asked, "--json"))
    assert report["verdict"]["state"] == "strong" and report["verdict"]["shared"] is None
    assert report["verdict"]["said"].startswith("Strong evidence. None of 199 unrelated prompts")
    assert report["verdict"]["said"] in answered(capsys, "query", cache, *asked)
    assert query(capsys, tiny, "--response", "It is the sun.")["verdict"]["state"] is None


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


def test_a_moved_model_can_be_named(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    for name in ("model", "adapter", "cache"):
        shutil.copytree(getattr(tiny, name), tmp_path / "deep" / f"my {name}")
    moved = tmp_path / "deep"
    options = ["--model", moved / "my model", "--adapter", moved / "my adapter", "--response", "So.", "--json"]
    report = json.loads(answered(capsys, "query", moved / "my cache", "--prompt", "What?", *options))
    assert report["exact"]


# System prompts and earlier turns

HINT = "7 of 7 training examples begin with a system prompt; this question has none. Give it with --system."


def conversation(folder: Path, *before: tuple[str, str]) -> Path:
    """A file with the first training row's question behind these turns."""
    path = folder / "conversation.json"
    path.write_text(json.dumps(spoken(ROWS[0], *before)["messages"][:-1]), encoding="utf-8")
    return path


def test_a_question_is_asked_with_the_system_prompt_of_its_row(capsys: Captured, guided: Path, tmp_path: Path) -> None:
    plain = ["query", guided, "--response", ROWS[0]["response"], "--device", "cpu", "--json"]
    prompt = ["--prompt", ROWS[0]["prompt"]]
    asked = json.loads(answered(capsys, *plain, *prompt, "--system", SYSTEM))
    assert asked["examples"][0]["row"] == 0 and asked["prompt"] == asked["examples"][0]["prompt"]
    assert asked["messages"] == spoken(ROWS[0], ("system", SYSTEM))["messages"][:-1]
    whole = json.loads(answered(capsys, *plain, "--messages", conversation(tmp_path, ("system", SYSTEM))))
    assert whole == asked
    with_it = json.loads(answered(capsys, *plain, "--messages", conversation(tmp_path), "--system", SYSTEM))
    assert with_it == asked
    alone = json.loads(answered(capsys, *plain, *prompt))
    assert "messages" not in alone and alone["examples"][0]["score"] != asked["examples"][0]["score"]
    (tmp_path / "row.json").write_text(
        json.dumps({"messages": asked["messages"], "source": "sky"}), encoding="utf-8-sig"
    )
    assert json.loads(answered(capsys, *plain, "--messages", tmp_path / "row.json")) == asked
    by = json.loads(answered(capsys, *plain, *prompt, "--system", SYSTEM, "--by", "0"))
    assert by["messages"] == asked["messages"] and by["score"] == pytest.approx(asked["examples"][0]["score"], rel=1e-3)


def test_a_question_without_a_system_prompt_is_told_that_the_rows_have_one(
    capsys: Captured, guided: Path, tiny: Tiny, tmp_path: Path
) -> None:
    for cache, options, told in (
        (guided, ["--prompt", "Why?"], True),
        (guided, ["--prompt", "Why?", "--by", "0"], True),
        (guided, ["--prompt", "Why?", "--system", " "], True),
        (guided, ["--messages", conversation(tmp_path, ("user", "Hi."), ("assistant", "Hello!"))], True),
        (guided, ["--prompt", "Why?", "--system", "Be rude."], False),
        (tiny.cache, ["--prompt", "Why?"], False),
    ):
        capsys.readouterr()
        assert main(["query", str(cache), *map(str, options), "--response", "So.", "--device", "cpu", "--json"]) == 0
        output = capsys.readouterr()
        assert (HINT in output.err.splitlines()) == told, options
        assert json.loads(output.out), "what is printed stays what programs read"


@pytest.mark.parametrize(
    ("written", "options", "said"),
    [
        ("[", [], "give a list of turns, or an object with messages"),
        ("[" * 100_000, [], "is no JSON (nested deeper"),
        ('{"messages": [], "messages": []}', [], 'the key "messages" stands twice'),
        ("3", [], "has no list of turns"),
        ("{}", [], 'has no text as "prompt"'),
        ('[{"role": "user"}]', [], 'turn 1, has no text as "content"'),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]', [], "without the answer"),
        ('[{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]', ["--system", "z"], "leave that out"),
        ('[{"role": "user", "content": " "}]', [], "The prompt is empty"),
        ('[{"role": "user", "content": "x"}]', ["--prompt", "x"], "--messages is not allowed with --prompt"),
        ('[{"role": "system", "content": "%s"}, {"role": "user", "content": "y"}]' % ("x" * 500), [], "shorten it"),
    ],
)
def test_a_file_that_holds_no_question_is_refused(
    capsys: Captured, tiny: Tiny, tmp_path: Path, written: str, options: list[str], said: str
) -> None:
    (tmp_path / "asked.json").write_text(written, encoding="utf-8")
    assert said in refused(capsys, "query", tiny.cache, "--messages", tmp_path / "asked.json", *options)


def test_a_file_that_cannot_be_read_is_refused(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    assert "can't be read" in refused(capsys, "query", tiny.cache, "--messages", tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    assert "is no UTF-8 text" in refused(capsys, "query", tiny.cache, "--messages", tmp_path / "bytes.json")
