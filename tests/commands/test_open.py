"""`open`: what it finds in a run's folder, says, assumes, makes and serves."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from explorer.cache import open_cache, so_far
from explorer.commands import open as opening
from explorer.commands.options import Options
from explorer.errors import ModelError
from explorer.model.checkpoints import taken_at
from explorer.model.loading import load_model
from explorer.records import Counting
from precompute.runs import open_run
from tests.commands.running import Captured, answered, refused, reported
from tests.conftest import Tiny
from tests.tiny import save_tiny_data, save_tiny_model
from tests.trained import chats, in_turns, save_learnt_model, train

SMALL = ("--device", "cpu", "--k", "1024", "--token-k", "256", "--null-prompts", "0", "--tokens", "none")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of transformers' Trainer on conversations, all of whose answers were in the loss."""
    folder = tmp_path_factory.mktemp("trained")
    base = save_learnt_model(folder / "base")
    tokens = [in_turns(row, "all") for row in chats(12)]
    save_tiny_data(folder / "chats.jsonl", chats(12))
    return train(folder / "run", base, tokens, epochs=6, save_strategy="steps", save_steps=9)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Options]]:
    """What would have been served."""
    kept: list[Options] = []

    @contextmanager
    def beside(options: Options) -> Iterator[Any]:
        so_far(open_cache(options.cache[0]))
        kept.append(options)
        yield SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(opening, "served_beside", beside)
    yield kept


def scores(capsys: Captured, cache: Path) -> list[tuple[int, float]]:
    found = json.loads(answered(capsys, "query", cache, "--prompt", "Where?", "--response", "It is.", "--json"))
    return [(example["row"], example["score"]) for example in found["examples"]]


def test_inspect_says_what_was_found_and_stops(capsys: Captured, run: Path, served: list[Options]) -> None:
    found: dict[str, Any] = json.loads(
        answered(capsys, "open", run, "--data", run.parent / "chats.jsonl", "--inspect", "--json", *SMALL)
    )
    assert [(each["step"], each["epoch"]) for each in found["checkpoints"]] == [(9, 3.0), (18, 6.0)]
    assert all(0 < each["learning_rate"] < 0.02 for each in found["checkpoints"])
    assert (found["template"], found["mask"], found["end"], found["batch_size"]) == ("chat", "all", "template", 4)
    assert found["match"]["reading"] == "the tokenizer's chat template, all answers in the loss, the template's own end"
    assert found["match"]["loss"] == pytest.approx(found["match"]["expected"], rel=0.15)
    assert found["warnings"] == [] and "training_args.bin" in found["left_alone"]
    assert not served and not (run.parent / "run-cache").exists()
    lines = reported(capsys, "open", run, "--inspect")
    assert lines[1] == "Training: 6 epochs, learning rate 0.0177778 at most, batch size 4."
    assert lines[-1] == "Assumed: how the data was read can't be told without it (--data)."


def test_a_run_has_the_scores_that_its_own_record_would_give_it(
    capsys: Captured, run: Path, served: list[Options], tmp_path: Path
) -> None:
    data = ("--data", run.parent / "chats.jsonl")
    answered(capsys, "open", run, *data, "--cache", tmp_path / "opened", *SMALL)
    (options,) = served
    assert options.cache == [str(tmp_path / "opened")]
    manifest = open_cache(tmp_path / "opened").manifest
    assert manifest.counting == Counting("all") and manifest.template == "chat" and manifest.training.known
    # The same run, described by hand.
    described = tmp_path / "described"
    shutil.copytree(run, described)
    found = json.loads(answered(capsys, "open", run, "--inspect", "--json"))
    kept = [
        {"name": each["name"], "epochs": 3.0, "learning_rate": each["epochs_x_learning_rate"] / 3}
        for each in found["checkpoints"]
    ]
    record = {"epochs": found["epochs"], "learning_rate": found["learning_rate"], "checkpoints": kept}
    (described / "training.json").write_text(json.dumps(record))
    model = ("--model", run.parent / "base", "--adapter", described, "--loss", "all")
    answered(capsys, "precompute", tmp_path / "made", *data, *model, *SMALL)
    assert open_cache(tmp_path / "made").manifest.training.scale == pytest.approx(manifest.training.scale)
    first, second = scores(capsys, tmp_path / "opened"), scores(capsys, tmp_path / "made")
    assert [row for row, _ in first] == [row for row, _ in second]
    assert [score for _, score in first] == pytest.approx([score for _, score in second], rel=1e-4)


def test_a_trainers_checkpoints_can_be_where_gradients_are_taken(run: Path) -> None:
    found = open_run(run)
    base, known = str(run.parent / "base"), found.training
    model = load_model(base, found.adapter, "chat", "cpu", checkpoints="all", training=known)
    early, final = model.checkpoints
    assert (early.name, final.name) == ("checkpoint-9", "final")
    written = load_file(run / "checkpoint-9" / "adapter_model.safetensors")
    assert len(written) == len(early.tensors) > 0
    for name, tensor in early.tensors.items():
        assert torch.equal(tensor, written[name.replace(".default", "")])
        assert not torch.equal(tensor, final.tensors[name])
    # e·η of each is its epochs times the mean of the rates that were logged in them.
    weights = [3 * sum(0.02 * (18 - step) / 18 for step in steps) / 3 for steps in ((2, 5, 8), (11, 14, 17))]
    assert [early.share, final.share] == pytest.approx([weight / sum(weights) for weight in weights])
    assert model.training.scale == pytest.approx(sum(weights))
    assert load_model(base, run / "checkpoint-9", "chat", "cpu").training.scale == 1
    with pytest.raises(ModelError, match="lists no checkpoint checkpoint-10; it has: checkpoint-9, final"):
        taken_at(model, "checkpoint-10", known)


def test_what_our_own_record_says_is_not_decided_anew(capsys: Captured, tiny: Tiny) -> None:
    answers = ("open", tiny.adapter, "--data", tiny.data, "--inspect", "--json", "--device", "cpu")
    found = json.loads(answered(capsys, *answers))
    assert (found["kind"], found["mask"], found["end"]) == ("rapidin-explorer finetune", "last", "template")
    assert (found["epochs"], found["learning_rate"], found["match"]["expected_by"]) == (2, 0.01, "base")
    # Its adapter is random, and never saw the rows.
    (said,) = found["warnings"]
    assert said.startswith("The rows don't match the run") and found["match"]["next"]["reading"] in said
    given = json.loads(answered(capsys, *answers, "--loss", "prompt", "--end", "none", "--template", "alpaca"))
    assert (given["template"], given["mask"], given["end"]) == ("alpaca", "prompt", "none")


def test_what_a_run_lacks_is_assumed_or_asked_for(capsys: Captured, tiny: Tiny, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny.adapter, bare)
    (bare / "training.json").unlink()
    lines = reported(capsys, "open", bare, "--inspect")
    assert any(line.startswith("Assumed: epochs × learning rate is 1") for line in lines)
    lines = reported(capsys, "open", bare, "--inspect", "--epochs", "2", "--learning-rate", "0.1")
    assert "Training: 2 epochs, learning rate 0.1 at most." in lines
    assert "give the data as --data" in refused(capsys, "open", bare)
    config = bare / "adapter_config.json"
    config.write_text(config.read_text().replace(str(tiny.model), "/elsewhere/base"))
    said = refused(capsys, "open", bare, "--data", tiny.data)
    assert "names /elsewhere/base as the base, which isn't here; give it as --model" in said
    whole = save_tiny_model(tmp_path / "whole")
    lines = reported(capsys, "open", whole, "--data", tiny.data, "--inspect", "--device", "cpu")
    assert any(
        "gradients are taken at the final model alone, for the base isn't given (--base)" in line for line in lines
    )
    assert any(line.startswith("Warning: Whether the rows match the run can't be told") for line in lines)
