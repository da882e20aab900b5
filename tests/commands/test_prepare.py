"""`finetune` and `precompute`: what they cost, write and refuse."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import precompute.build
from explorer.cache.store import open_cache
from explorer.commands import prepare
from explorer.errors import ExplorerError
from explorer.records import Counting
from tests.commands.running import Captured, answered, precompute_command, refused, reported
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_data, spoken

REPOSITORY = Path(__file__).parents[2]


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
        (["--dtype", "float64"], "'float64' is not one of 'float16', 'int8'"),
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


def test_malformed_data_is_refused_before_a_model_is_loaded(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"question": "c"}\n')
    for command in ("precompute", "finetune"):
        said = refused(capsys, command, tmp_path / "out", "--data", tmp_path / "data.jsonl", "--model", "/nowhere")
        assert "row 2 (line 2), has the columns question; expected prompt and response" in said


def test_data_too_long_for_the_model_is_refused_by_its_row(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    rows = [ROWS[0], {"prompt": "x" * 500, "response": "y"}]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    said = refused(capsys, "precompute", tmp_path / "out", "--data", tmp_path / "data.json", "--model", tiny.model)
    # Rows are counted from 1 wherever training data is spoken of.
    assert re.search(r"\b[Rr]ow 2\b.*tokens long", said), said
    assert not (tmp_path / "out").exists()


MIXED = [
    "{",
    {"question": "What shines by day?", "reply": "The sun.", "source": "sky"},
    {"question": "Why?", "reply": "x" * 500},
    {"question": "Why?", "reply": ""},
    {"question": "What shines by night?", "reply": "The moon.", "source": "sky"},
]
"""Rows of which two can be used, the first and the last."""
NAMED = ("--column", "prompt=question", "--column", "response=reply")


def mixed(folder: Path) -> Path:
    path = folder / "mixed.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in MIXED))
    return path


def test_all_bad_rows_are_named_and_left_out_by_every_command_that_reads_data(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    data, cache, good = mixed(tmp_path), tmp_path / "cache", tmp_path / "good.jsonl"
    made = ("--tokens", "none", "--batch", "1", "--checkpoints", "final")
    command = [*precompute_command(tiny, cache, *made), "--data", data, *NAMED]
    assert "has 2 rows that can't be used: row 1 (line 1): is not JSON" in refused(capsys, *command)
    assert "--skip-bad" in refused(capsys, *command)
    lines = [line for line in reported(capsys, *command, "--skip-bad") if "left out" in line]
    assert len(lines) == 1 and lines[0].startswith(f"3 rows of {data} left out: row 1 (line 1): is not JSON")
    assert "row 4 (line 4): has an empty response; row 3 (line 3): can't be read by the model: The text is" in lines[0]
    good.write_text("".join(json.dumps(MIXED[row]) + "\n" for row in (1, 4)))
    answered(capsys, *precompute_command(tiny, tmp_path / "same", *made), "--data", good, *NAMED)
    for name in ("examples.parquet", "sketches/00000.safetensors"):
        assert (cache / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    (cache / "examples.parquet").unlink()
    assert "only the training data can mend it" in refused(capsys, "mend", cache, "--device", "cpu")
    assert "has 2 rows that can't be used" in refused(capsys, "mend", cache, "--device", "cpu", "--data", data, *NAMED)
    lines = reported(capsys, "mend", cache, "--device", "cpu", "--data", data, *NAMED, "--skip-bad")
    assert any(line.startswith(f"3 rows of {data} left out") for line in lines)
    assert (cache / "examples.parquet").read_bytes() == (tmp_path / "same" / "examples.parquet").read_bytes()


def test_bad_rows_are_left_out_of_a_training_and_of_what_is_appended(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    data, cache, out = mixed(tmp_path), Path(shutil.copytree(tiny.cache, tmp_path / "cache")), tmp_path / "adapter"
    train = ["finetune", out, "--data", data, *NAMED, "--model", tiny.model, "--rank", "2", "--device", "cpu"]
    append = ["append", cache, "--data", data, *NAMED, "--model", tiny.model, "--adapter", tiny.adapter]
    for command in (train, append):
        assert "has 2 rows that can't be used" in refused(capsys, *command)
        assert any("3 rows" in line and "left out" in line for line in reported(capsys, *command, "--skip-bad"))
    assert json.loads((out / "training.json").read_text())["examples"] == 2
    assert open_cache(cache).manifest.rows == 9


def test_rows_that_only_the_model_cannot_read_are_all_named(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "response": "x" * (500 * (row % 2) + 1)} for row in range(30)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    # The rule that finds the points on the way asks some of the rows alone.
    said = refused(capsys, *precompute_command(tiny, tmp_path / "cache"), "--data", tmp_path / "data.json")
    assert "has 15 rows that can't be used: row 2, row 4" in said and "and 5 more" in said and "--skip-bad" in said


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
    assert re.search(r"tokens, about \d+ \w+; 200 unrelated prompts, about \d+ \w+; [\d.]+ [kM]B on disk", cost)


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


def test_mixed_precision_is_taken_where_it_is_asked_for_and_kept(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    def made(name: str, *options: object) -> bool:
        answered(capsys, *precompute_command(tiny, tmp_path / name, "--tokens", "none", "--batch", "1", *options))
        manifest = open_cache(tmp_path / name).manifest
        assert manifest.fingerprint.precision == "float32", "the weights are what they are"
        return manifest.settings.mixed_precision

    assert not made("auto") and made("mixed", "--precision", "mixed")
    assert made("mixed"), "a cache is finished as it was begun"
    command = precompute_command(tiny, tmp_path / "mixed", "--tokens", "none", "--batch", "1")
    assert "another settings" in refused(capsys, *command, "--precision", "float32")
    assert re.search(r"precision +mixed", answered(capsys, "info", tmp_path / "mixed"))
    whole = ["precompute", tmp_path / "whole", "--data", tiny.data, "--model", tiny.model, "--device", "cpu"]
    assert "no frozen linear layer in float32" in refused(capsys, *whole, "--precision", "mixed")
    assert not (tmp_path / "whole").exists()


def test_coarse_lengths_are_powers_of_two_below_k() -> None:
    assert prepare._coarse_lengths("512,256", 1024) == (256, 512) and prepare._coarse_lengths("0", 1024) == ()
    for given in ("1024", "3", "-2", "256,x", ""):
        with pytest.raises(ExplorerError, match=f"powers of two below --k, not {given}"):
            prepare._coarse_lengths(given, 1024)


def test_a_cache_of_all_answers_grows_and_is_mended_as_it_was_made(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    cache, (first, more) = tmp_path / "cache", (tmp_path / "first.jsonl", tmp_path / "more.jsonl")
    for path, rows in ((first, ROWS[:3]), (more, ROWS[3:5])):
        save_tiny_data(path, [spoken(row, ("user", "Hi."), ("assistant", "Hello.")) for row in rows])
    made = precompute_command(tiny, cache, "--loss", "all", "--batch", "1")
    said = reported(capsys, *[first if each == tiny.data else each for each in made])
    assert not any("Only the last answer" in line for line in said)
    answered(capsys, "append", cache, "--data", more, "--device", "cpu")
    store = open_cache(cache)
    assert store.manifest.counting == Counting("all")
    for example in store.examples:
        assert len(example.encoded.gaps) == 1 and len(example.tokens) == example.encoded.response_length
        ids = example.encoded.ids[example.encoded.positions]
        assert [token.special for token in example.tokens] == [token == 1 for token in ids]
        assert "".join(token.text for token in example.tokens) == f"Hello.<|end|>{example.response}<|end|>"
    table = cache / store.contents.examples.file
    before = table.read_bytes()
    table.unlink()
    answered(capsys, "mend", cache, "--data", first, more, "--device", "cpu")
    assert table.read_bytes() == before
    # Another reading of the same rows is another cache.
    other = ["--loss", "prompt", *made[made.index("--batch") :]]
    command = [*made[: made.index("--loss")], *other]
    assert "with another counting" in refused(capsys, *[first if each == tiny.data else each for each in command])


def test_a_corpus_is_cached_before_its_fine_tuning_and_traced_by_commands(
    tiny: Tiny, tmp_path: Path, capsys: Captured
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The sun shines by day. The moon and a star shine by night. " * 3)
    command: list[object] = ["precompute", tmp_path / "cache", "--data", corpus, "--model", tiny.model]
    command += ["--template", "chat", "--tensors", r"(attn|mlp)\.", "--chunk", "48", "--tokens", "none"]
    command += ["--k", "1024", "--token-k", "256", "--device", "cpu", "--null-prompts", "0"]
    answered(capsys, *command, "--followed-by", tiny.cache)
    # Finished by the same command without it, it names the fine-tuning still.
    answered(capsys, *command)
    asked = ["query", tmp_path / "cache", "--prompt", "What shines?", "--response", "The moon.", "--device", "cpu"]
    found = json.loads(answered(capsys, *asked, "--method", "multi-stage", "--curvature-rows", "2", "--json"))
    assert all(row["passage"].endswith(" of the document corpus.txt") for row in found["examples"])
    assert "followed_by" in answered(capsys, "info", tmp_path / "cache", "--json")
