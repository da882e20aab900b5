"""Fine-tuning: it learns, it is repeatable, and its adapter is whole or absent."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import gradients
from explorer.commands import main as cli
from explorer.errors import DataError, ModelError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.training.recipe import FinetuneSettings, batches
from precompute.data import data_hash, read_examples
from precompute.finetune import finetune
from tests.conftest import Tiny
from tests.tiny import ROWS

REPOSITORY = Path(__file__).parents[2]
SETTINGS = FinetuneSettings(
    rank=2, alpha=4, targets=("q_proj", "v_proj", "o_proj"), epochs=1, learning_rate=0.05, batch_size=4
)
"""Seven rows, four a step: two steps."""


@pytest.fixture
def base(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), device="cpu")


def train(tiny: Tiny, out: Path, settings: FinetuneSettings = SETTINGS) -> list[tuple[int, int, float]]:
    """Train on the tiny data; every report."""
    reports: list[tuple[int, int, float]] = []
    model = load_model(str(tiny.model), device="cpu")
    finetune(model, read_examples(tiny.data), out, settings, lambda *report: reports.append(report))
    return reports


def mean_loss(model: LanguageModel, tiny: Tiny) -> float:
    """The mean loss over all response tokens of the tiny data."""
    batch = [model.encode(example.messages, example.response) for example in read_examples(tiny.data)]
    return float(torch.cat(gradients.token_losses(model, batch)).detach().mean())


def test_two_steps_lower_the_loss(tiny: Tiny, base: LanguageModel, tmp_path: Path) -> None:
    reports = train(tiny, tmp_path / "out")
    assert [report[:2] for report in reports] == [(1, 2), (2, 2)]
    tuned = load_model(str(tiny.model), tmp_path / "out", device="cpu")
    assert mean_loss(tuned, tiny) < mean_loss(base, tiny)


def test_more_epochs_lower_it_further(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny, tmp_path / "out", FinetuneSettings(**{**vars(SETTINGS), "epochs": 8}))
    losses = json.loads((tmp_path / "out" / "training.json").read_text())["epoch_losses"]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.02


def test_the_record_says_how_it_was_trained(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["epochs"] == 1 and record["learning_rate"] == 0.05 and record["seed"] == 0
    assert record["data_sha256"] == data_hash(read_examples(tiny.data)) and record["examples"] == len(ROWS)
    assert record["base_sha256"] == load_model(str(tiny.model), device="cpu").fingerprint.base
    training = load_model(str(tiny.model), tmp_path / "out", device="cpu").training
    assert training.known and training.scale == pytest.approx(0.05)


def test_the_adapter_names_the_model_and_no_place_on_this_machine(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny.model), "the model as it was named on the command line"
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "moments", "training.json"}


def test_the_same_seed_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    """In processes with different hash seeds, because the order of a set must not end up in a file."""
    options = ["--data", str(tiny.data), "--model", str(tiny.model), "--epochs", "1", "--device", "cpu"]
    options += ["--targets", "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"]
    assert cli.main(["finetune", str(tmp_path / "here"), *options]) == 0
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "explorer.commands",
            "finetune",
            str(tmp_path / "elsewhere"),
            *options,
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / n).rglob("*.*")} for n in ("here", "elsewhere"))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == [], "the same training gave other files"


def test_another_seed_gives_another_adapter(tiny: Tiny, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(tiny, tmp_path / str(seed), FinetuneSettings(**{**vars(SETTINGS), "seed": seed}))
    one, two = ((tmp_path / str(seed) / "adapter_model.safetensors").read_bytes() for seed in (0, 1))
    assert one != two


def test_mixed_precision_ends_with_about_the_same_loss_and_repeats_its_bytes(tiny: Tiny, tmp_path: Path) -> None:
    records = {}
    for name, mixed in (("float32", False), ("mixed", True), ("again", True)):
        train(tiny, tmp_path / name, FinetuneSettings(**{**vars(SETTINGS), "epochs": 8, "mixed_precision": mixed}))
        records[name] = json.loads((tmp_path / name / "training.json").read_text())
    assert records["mixed"]["mixed_precision"] and "mixed_precision" not in records["float32"]
    ends = [records[name]["epoch_losses"][-1] for name in ("float32", "mixed")]
    assert ends[0] != ends[1] == pytest.approx(ends[0], rel=0.01)
    one, two, other = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("mixed", "again", "float32"))
    assert one == two != other


def test_the_command_takes_mixed_precision_where_there_are_units_for_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data", str(tiny.data), "--model", str(tiny.model), "--targets", "q_proj", "--device", "cpu"]
    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=units: {"avx512_bf16": found})
        for precision in ("auto", "float32", "mixed"):
            out = tmp_path / f"{precision}-{units}"
            assert cli.main(["finetune", str(out), *options, "--epochs", "1", "--precision", precision]) == 0
            kept = json.loads((out / "training.json").read_text())
            assert kept.get("mixed_precision", False) == (precision == "mixed" or (units and precision == "auto"))


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ("1", [8]),
        ("2", [4, 8]),
        ("3", [3, 6, 8]),
        ("100", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("0.5", [1, 8]),
        ("1,2.5", [2, 5, 8]),
        ("0.01,4", [1, 8]),
        ("2,1", [2, 4, 8]),
    ],
)
def test_checkpoints_are_kept_after_so_many_epochs(tiny: Tiny, tmp_path: Path, asked: str, steps: list[int]) -> None:
    """Four epochs of two steps; every checkpoint's share of the training is its own."""
    out = tmp_path / "out"
    options = ["--data", str(tiny.data), "--model", str(tiny.model), "--targets", "q_proj", "--device", "cpu"]
    assert cli.main(["finetune", str(out), *options, "--epochs", "4", "--checkpoints", asked]) == 0
    kept = json.loads((out / "training.json").read_text())["checkpoints"]
    assert [point["epochs"] * 2 for point in kept] == np.diff([0, *steps]).tolist()
    names = [str(number) for number in range(1, len(steps))]
    assert [point["name"] for point in kept] == [*names, "final"]
    assert sorted(path.stem for path in out.glob("checkpoints/*")) == sorted(names)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("4.5", r"Checkpoints can be kept after up to 4 epochs of this training, and not at 0\."),
        ("1,5", r"up to 4 epochs"),
        ("0", "0 is less than 1"),
        ("0.0", "0.0 is no positive number"),
        ("-1", "-1 is no positive number"),
        ("nan", "nan is no positive number"),
        ("1,", "neither so many moments nor epochs"),
        ("soon", "neither so many moments nor epochs"),
    ],
)
def test_checkpoints_outside_the_training_are_refused_before_it(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: str, message: str
) -> None:
    options = ["--data", str(tiny.data), "--model", str(tiny.model), "--targets", "q_proj", "--device", "cpu"]
    command = ["finetune", str(tmp_path / "out"), *options, "--epochs", "4", f"--checkpoints={asked}"]
    assert cli.main(command) == 2 and re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own() -> None:
    orders = [[row for batch in batches(10, SETTINGS, epoch) for row in batch] for epoch in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3, "every epoch has the same order"


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tiny: Tiny, base: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ModelError, match="out isn't an empty folder; give another folder or remove it"):
        train(tiny, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_file_in_the_folders_place_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ModelError, match="give another folder"):
        train(tiny, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_folder_is_taken(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    train(tiny, tmp_path / "out")
    assert (tmp_path / "out" / "training.json").is_file()


def test_a_stopped_training_leaves_no_adapter(tiny: Tiny, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    model = load_model(str(tiny.model), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        finetune(model, read_examples(tiny.data), tmp_path / "out", SETTINGS, stop)
    assert list(tmp_path.iterdir()) == []


def test_layers_that_do_not_exist_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    settings = FinetuneSettings(**{**vars(SETTINGS), "targets": ("nowhere",)})
    with pytest.raises(ModelError, match="LoRA can't be put on nowhere"):
        train(tiny, tmp_path / "out", settings)
    assert list(tmp_path.iterdir()) == []


def test_a_row_too_long_for_the_model_is_named(base: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text(json.dumps([ROWS[0], {"prompt": "x" * 500, "response": "y"}]))
    with pytest.raises(DataError, match=r"[Rr]ow 2\b.*shorten it"):
        finetune(base, read_examples(tmp_path / "long.json"), tmp_path / "out", SETTINGS, lambda *_: None)
