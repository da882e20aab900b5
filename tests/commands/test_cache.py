"""`info`, `verify`, `mend`, `append` and `drop`."""

import json
import shutil
from pathlib import Path

import click
import pytest

from explorer.cache.store import open_cache
from explorer.commands.main import main, parse
from tests.commands.running import Captured, answered, precompute_command, refused, reported
from tests.conftest import Tiny

REPOSITORY = Path(__file__).parents[2]


def test_verify_names_every_damaged_file_and_ends_with_two(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(tiny.cache, tmp_path / "cache"))
    path = cache / "sketches/00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["verify", str(cache)]) == 2
    out = capsys.readouterr().out
    assert "sketches/00000.safetensors is damaged" in out and "`rapidin-explorer mend`" in out


def test_info_tells_what_the_manifest_tells(capsys: Captured, tiny: Tiny) -> None:
    found = json.loads(answered(capsys, "info", tiny.cache, "--json"))
    assert (found["examples"], found["complete"], found["with_token_sketches"]) == (7, True, 4)
    assert (found["sketch_length"], found["token_sketch_length"], found["data"]) == (4096, 1024, "train.jsonl")
    assert found["epochs_x_learning_rate"] == pytest.approx(0.02)
    out = answered(capsys, "info", tiny.cache)
    assert all(name.replace("_", " ") in out for name in found)


def test_verify_is_content_with_a_whole_cache(capsys: Captured, tiny: Tiny) -> None:
    assert "as its manifest says" in answered(capsys, "verify", tiny.cache)


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
    assert "is missing" in refused(capsys, "info", cache) and main(["verify", str(cache)]) == 2
    answered(capsys, "mend", cache, "--device", "cpu")
    assert lost.read_bytes() == before
    question = ["query", cache, "--prompt", "What?", "--response", "So.", "--json", "--top-k", "5"]
    found = json.loads(answered(capsys, *question))["examples"]
    assert {(example["row"], example["id"]) for example in found} == set(enumerate([1, 2, 5, 6, 7]))


def test_one_of_rows_and_source_chooses_what_is_dropped(capsys: Captured, tiny: Tiny) -> None:
    assert "One of --rows and --source is needed" in refused(capsys, "drop", tiny.cache)
    said = refused(capsys, "drop", tiny.cache, "--rows", "0", "--source", "sky")
    assert "--source is not allowed with --rows" in said and open_cache(tiny.cache).manifest.rows == 7


def test_all_files_of_training_data_follow_one_name() -> None:
    for typed in (["cache", "--data", "a", "b", "--device", "cpu"], ["--data", "a", "--data", "b", "--", "cache"]):
        found = parse(["mend", *typed]).params
        assert (found["cache"], found["data"]) == ("cache", ("a", "b"))
    with pytest.raises(click.UsageError):
        parse(["mend", "cache", "--data"])


@pytest.mark.parametrize("rows", ["", "x", "3-", "-3", "1,,2", "1;2"])
def test_rows_that_are_no_numbers_are_refused(capsys: Captured, tiny: Tiny, rows: str) -> None:
    assert "--rows takes numbers and ranges such as 3,5,8-10" in refused(capsys, "drop", tiny.cache, f"--rows={rows}")
