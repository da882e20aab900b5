"""Results of evaluations: kept whole, found again, and never in the way when damaged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from explorer.cache.generations import drop
from explorer.cache.store import open_cache
from explorer.cache.verify import verify
from explorer.errors import DataError
from explorer.evaluation.results import Best, Result, Table, best_of, folder_of, load, made_with, save
from explorer.evaluation.tables import markdown
from tests.conftest import Tiny

FOUND = {"rapidin": {"auPRC_5": 0.5, "questions": 2}, "bm25": {"auPRC_5": 0.25, "questions": 2, "word_5": float("nan")}}


@pytest.fixture
def result(tiny: Tiny) -> Result:
    table = Table.of(FOUND)
    best = (best_of(table, "auPRC_5", "the five rows at either end"),)
    return made_with(
        open_cache(tiny.cache),
        "backdoor",
        "rapidin-explorer evaluate backdoor --methods rapidin,bm25",
        {"python": "3.11", "explorer": "1"},
        settings={"methods": ["rapidin", "bm25"]},
        tables=(table,),
        best=best,
        notes=("Two answers were attacked.",),
    )


def test_a_table_has_all_columns_and_no_value_where_there_is_no_figure() -> None:
    table = Table.of(FOUND)
    assert table.columns == ("method", "auPRC_5", "questions", "word_5")
    assert table.rows == (("rapidin", 0.5, 2, None), ("bm25", 0.25, 2, None))
    assert table.column("auPRC_5") == (0.5, 0.25)


def test_the_best_are_all_that_have_the_highest_value() -> None:
    table = Table.of({"a": {"x": 1.0}, "b": {"x": 1}, "c": {"x": 0.5, "y": 2.0}, "d": {"x": None}})
    assert best_of(table, "x", "being high") == Best("being high", "x", ("a", "b"), 1.0)
    assert best_of(table, "x", "being high", without=["a", "b"]).methods == ("c",)
    with pytest.raises(DataError, match="No method has a figure for being wide"):
        best_of(table, "y", "being wide", without=["c"])


def test_what_is_saved_is_loaded_and_says_what_made_it(result: Result, tmp_path: Path, tiny: Tiny) -> None:
    path = save(tmp_path / "results", result)
    assert path.name.startswith("backdoor-") and load(path.parent) == [result]
    assert result.fits(open_cache(tiny.cache)) and result.fingerprints["data"]
    assert load(tmp_path / "nowhere") == []


def test_the_same_evaluation_again_takes_the_place_of_the_one_before(result: Result, tmp_path: Path) -> None:
    save(tmp_path, result)
    later = replace(result, made="2100-01-01T00:00:00+00:00", tables=())
    save(tmp_path, later)
    other = replace(later, settings={"methods": ["bm25"]})
    save(tmp_path, other)
    assert load(tmp_path) == sorted([later, other], key=lambda each: each.name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace('"questions"', "3"),
        lambda text: text.replace("0.25,", ""),
        lambda text: text.replace('"kind": "backdoor"', '"kind": null'),
    ],
)
def test_a_damaged_or_foreign_file_is_passed_over_by_name(result: Result, tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    save(tmp_path, result)
    good = (next(tmp_path.glob("*.json"))).read_text(encoding="utf-8")
    assert damage(good) != good
    (tmp_path / "broken.json").write_text(damage(good), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("mine")
    said: list[str] = []
    assert load(tmp_path, said.append) == [result]
    (line,) = said
    assert line.startswith("broken.json can't be read as a result")


def test_results_in_a_cache_are_no_strangers_and_outlive_a_drop_as_those_of_earlier_data(
    result: Result, tiny: Tiny, tmp_path: Path
) -> None:
    store = open_cache(tiny.cache)
    copy = Path(shutil.copytree(tiny.cache, tmp_path / "cache", ignore=shutil.ignore_patterns("methods")))
    save(folder_of(open_cache(copy)), result)
    assert verify(copy) == []
    drop(copy, [0])
    (kept,) = load(folder_of(open_cache(copy)))
    assert kept.fits(store) and not kept.fits(open_cache(copy))


def test_a_result_holds_plain_values_alone(result: Result, tmp_path: Path) -> None:
    plain = json.loads(save(tmp_path, result).read_text(encoding="utf-8"))
    assert plain["tables"][0]["rows"][0] == ["rapidin", 0.5, 2, None]
    assert plain["best"][0]["methods"] == ["rapidin"]


def test_results_are_shown_by_kind_with_their_command_and_what_was_best(result: Result) -> None:
    table = Table("Sizes", ("what | where", "bytes_kept", "share"), (("a|b", 12_345, None), ("c", 7, 0.12345)))
    shown = markdown([replace(result, kind="cost", best=(), tables=(table,), notes=("A note.",)), result])
    first, second = shown.split("\n\n## ")
    assert first.startswith("## Planted backdoor (`backdoor`)\n\n### train.jsonl\n\n```sh\nrapidin-explorer evaluate")
    assert "| method | auPRC 5 | questions | word 5 |\n| --- | --: | --: | --: |\n| rapidin | 0.500 | 2 |  |" in first
    assert "- Best, the five rows at either end: **rapidin** (auPRC 5 0.500)." in first
    assert "Sizes:\n\n" in second and "| a\\|b | 12,345 |  |\n| c | 7 | 0.123 |\n\nA note." in second
