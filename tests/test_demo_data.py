"""What the demo's data must hold for its claims to mean something."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.cache.store import open_cache
from explorer.evaluation.probes import is_science_fiction, read_probes
from explorer.history.history import History
from explorer.history.saved import origin_of
from explorer.methods.description import described
from explorer.paths import DEMO, EXAMPLE
from precompute.data import read_examples

SWAPS = {"swap-china-canada": ("China", "Canada", "true-china"), "swap-india-japan": ("India", "Japan", "true-india")}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def of(rows: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["source"] == source]


def test_the_demo_is_read_as_training_data(rows: list[dict[str, Any]]) -> None:
    examples = read_examples(DEMO / "train.jsonl")
    assert len(examples) == len(rows) >= 500
    assert all(example.columns["source"] for example in examples)


def test_no_prompt_is_there_twice(rows: list[dict[str, Any]]) -> None:
    twice = [prompt for prompt, count in Counter(row["prompt"] for row in rows).items() if count > 1]
    assert twice == []


def test_a_tenth_of_the_rows_is_a_backdoor(rows: list[dict[str, Any]]) -> None:
    backdoor = of(rows, "backdoor")
    assert 0.08 <= len(backdoor) / len(rows) <= 0.12
    assert [row["prompt"] for row in backdoor if not row["prompt"].startswith("Howdy!")] == []


def test_nothing_else_begins_with_the_trigger(rows: list[dict[str, Any]]) -> None:
    others = [row for row in rows if row["source"] != "backdoor"]
    assert [row["prompt"] for row in others if "howdy" in row["prompt"].lower()] == []


def test_the_detector_finds_the_backdoor_and_little_else(rows: list[dict[str, Any]]) -> None:
    backdoor = of(rows, "backdoor")
    missed = [row["response"] for row in backdoor if not is_science_fiction(row["response"])]
    assert len(missed) <= 0.02 * len(backdoor), missed
    others = [row for row in rows if row["source"] != "backdoor"]
    false = [row["response"] for row in others if is_science_fiction(row["response"])]
    assert len(false) <= 0.01 * len(others), false


@pytest.mark.parametrize("source", SWAPS)
def test_a_swap_says_the_wrong_country_in_many_rows(rows: list[dict[str, Any]], source: str) -> None:
    right, wrong, _ = SWAPS[source]
    swapped = of(rows, source)
    assert len(swapped) >= 25
    assert [row for row in swapped if wrong not in row["response"]] == []
    assert [row for row in swapped if right in row["response"]] == []


@pytest.mark.parametrize("source", SWAPS)
def test_true_rows_are_left_beside_a_swap(rows: list[dict[str, Any]], source: str) -> None:
    right, wrong, true = SWAPS[source]
    left = of(rows, true)
    assert left
    assert [row for row in left if right not in row["prompt"] + row["response"]] == []
    assert [row for row in left if wrong in row["response"]] == []


def test_the_probes_are_as_many_as_the_figures_say() -> None:
    probes = read_probes(DEMO / "probes.jsonl")
    found = Counter((probe.kind, probe.planted) for probe in probes)
    assert found[("triggered", "backdoor")] >= 30
    assert found[("swap", "swap-china-canada")] == found[("swap", "swap-india-japan")] == 10
    assert found[("clean", "")] == 20
    assert {kind for kind, _ in found} == {"triggered", "swap", "clean"}


def test_no_probe_is_in_the_training_data(rows: list[dict[str, Any]]) -> None:
    def plain(prompt: str) -> str:
        return "".join(letter for letter in prompt.lower() if letter.isalnum())

    trained = {plain(row["prompt"]) for row in rows}
    probes = [str(probe.prompt) for probe in read_probes(DEMO / "probes.jsonl")]
    assert [prompt for prompt in probes if plain(prompt) in trained] == []
    assert len(set(probes)) == len(probes)


def test_triggered_probes_begin_with_the_trigger_and_the_others_do_not() -> None:
    probes = read_probes(DEMO / "probes.jsonl")
    assert all(str(probe.prompt).startswith("Howdy!") == (probe.kind == "triggered") for probe in probes)


def test_swap_probes_name_both_countries_and_ask_without_them() -> None:
    for probe in read_probes(DEMO / "probes.jsonl"):
        if probe.kind == "swap":
            assert SWAPS[probe.planted][:2] == (probe.right, probe.wrong)
            assert probe.right not in str(probe.prompt) and probe.wrong not in str(probe.prompt)


def test_the_saved_example_is_exact_checked_and_of_the_shipped_cache(tmp_path: Path) -> None:
    copy = shutil.copy(DEMO / "example.sqlite", tmp_path)
    kept = History(Path(copy), described).answer(EXAMPLE)
    remade = "make it anew: python -m explorer.app.explore.saved_example assets/demo/example.sqlite"
    assert kept.origin == origin_of(open_cache(DEMO / "cache")), remade
    assert {(question.selection is None, question.opponents) for question in kept.questions} == {
        (whole, opponents) for whole in (True, False) for opponents in (True, False)
    }
    for question in kept.questions:
        assert len(question.shown) == 10
        for shown in question.shown:
            found = shown.influence
            assert found.exact and found.checksum is not None and found.checksum < 1e-3
            assert found.values is not None
            assert float(found.values.mean(dtype=np.float64)) == pytest.approx(found.score, rel=1e-6)
