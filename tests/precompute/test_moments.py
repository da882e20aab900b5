"""Where gradients are taken when nobody says, and caches of points on the way from the base to the model."""

from pathlib import Path

import numpy as np
import peft
import pytest
import torch

from explorer import gradients
from explorer.cache.files import file_sha256
from explorer.cache.store import open_cache
from explorer.model.checkpoints import taken_at
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.model.way import point_of
from explorer.records import Encoded
from explorer.training.recipe import FinetuneSettings
from precompute.data import read_examples
from precompute.finetune import finetune
from precompute.moments import SHARES, TOLERANCE, moments_by_rule
from tests.commands.running import Captured, answered, precompute_command, reported
from tests.conftest import Tiny
from tests.tiny import save_tiny_change


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learnt its data."""
    out = tmp_path_factory.mktemp("trained") / "adapter"
    settings = FinetuneSettings(rank=4, epochs=30, learning_rate=0.01, batch_size=2)
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(tiny.data), out, settings, lambda step, of, loss: None)
    return out


def encoded(model: LanguageModel, tiny: Tiny) -> list[Encoded]:
    return [model.encode(each.messages, each.response) for each in read_examples(tiny.data)]


def mean_loss(model: LanguageModel, point: str, rows: list[Encoded]) -> float:
    (moment,) = taken_at(model, point).checkpoints
    with torch.no_grad():
        losses = [gradients.token_losses(model, [row], moment.standing_in())[0].mean() for row in rows]
    return float(torch.stack(losses).mean())


def test_the_rule_s_points_are_where_the_loss_has_fallen_by_a_third_and_by_two_thirds(
    tiny: Tiny, trained: Path
) -> None:
    model = load_model(str(tiny.model), trained, device="cpu")
    rows = encoded(model, tiny)
    found = moments_by_rule(model, dict(enumerate(rows)))
    names = found.names.split(",")
    base, final = mean_loss(model, "0%", rows), mean_loss(model, "100%", rows)
    assert len(names) == 2 and base - final > 0.05
    for name, share in zip(names, SHARES, strict=True):
        fallen = (base - mean_loss(model, name, rows)) / (base - final)
        # Names are rounded to two digits.
        assert fallen == pytest.approx(share, abs=TOLERANCE + 0.03)
    assert f"{names[0]} and {names[1]} of the way from the base" in found.reason
    assert f"from {base:.3g} to {final:.3g}" in found.reason
    assert moments_by_rule(model, dict(enumerate(rows))) == found


def test_a_model_that_expects_the_data_no_better_than_its_base_is_doubted(tiny: Tiny, trained: Path) -> None:
    model = load_model(str(tiny.model), trained, device="cpu")
    strange = [model.encode(({"role": "user", "content": "zq"},), text) for text in ("%%&&((", "^^^~~~~", "QXQXQX")]
    found = moments_by_rule(model, dict(enumerate(strange)))
    assert found.names == "33%,67%"
    assert "expects these examples no better than its base" in found.reason and "template" in found.reason


def test_where_there_is_no_way_gradients_are_taken_at_the_model_and_that_is_said(tiny: Tiny, tmp_path: Path) -> None:
    oft = peft.OFTConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=0, oft_block_size=4)
    model = load_model(str(tiny.model), save_tiny_change(tmp_path / "oft", tiny.model, oft), device="cpu")
    found = moments_by_rule(model, dict(enumerate(encoded(model, tiny))))
    assert found.names == "final" and "the final model alone" in found.reason and "of the kind OFT" in found.reason


@pytest.fixture(scope="module")
def made(tiny: Tiny, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, Path]:
    """A cache that was made without flags."""
    own = Tiny(tiny.model, trained, tiny.data, tiny.cache)
    cache = tmp_path_factory.mktemp("points") / "cache"
    from explorer.commands.main import main

    assert main([str(each) for each in command(own, cache)]) == 0
    return own, cache


def command(tiny: Tiny, cache: Path, *options: object) -> list[object]:
    return precompute_command(tiny, cache, "--null-prompts", "3", "--batch", "2", *options)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_without_flags_a_cache_is_of_the_rule_s_points(made: tuple[Tiny, Path]) -> None:
    own, cache = made
    kept = open_cache(cache).manifest
    names = [name for name, _ in kept.training.checkpoints]
    model = load_model(str(own.model), own.adapter, device="cpu")
    assert ",".join(names) == moments_by_rule(model, dict(enumerate(encoded(model, own)))).names
    assert all(0 < (point_of(name) or 0) < 1 for name in names)
    assert (kept.settings.normalisation, kept.settings.tensors) == ("cosine", "lora_B")
    weights = [weight for _, weight in kept.training.checkpoints]
    spent = load_model(str(own.model), own.adapter, device="cpu", checkpoints="all").training.scale
    assert weights[0] == weights[1] and sum(weights) == pytest.approx(spent)


def test_the_same_command_again_keeps_to_the_points_of_the_cache(
    made: tuple[Tiny, Path], capsys: Captured, tmp_path: Path
) -> None:
    own, _ = made
    cache = tmp_path / "cache"
    reported(capsys, *command(own, cache, "--checkpoints", "10%,40%"))
    before = contents(cache)
    assert reported(capsys, *command(own, cache))[-1].endswith(f"see it with: rapidin-explorer serve {cache}")
    assert contents(cache) == before


def test_a_cache_of_points_is_mended_to_the_bytes_it_had(
    made: tuple[Tiny, Path], capsys: Captured, tmp_path: Path
) -> None:
    _, cache = made
    before = contents(cache)
    for kind in ("sketches", "tokens"):
        damaged = next((cache / kind).iterdir())
        damaged.write_bytes(damaged.read_bytes()[:-4] + b"\0\0\0\1")
    assert contents(cache) != before
    reported(capsys, "mend", cache)
    assert contents(cache) == before


def test_a_cache_of_points_grows_by_the_same_gradients(
    made: tuple[Tiny, Path], capsys: Captured, tmp_path: Path
) -> None:
    own, cache = made
    points = ",".join(name for name, _ in open_cache(cache).manifest.training.checkpoints)
    lines = own.data.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, some in (("first", lines[:4]), ("rest", lines[4:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(some), encoding="utf-8")
    grown = tmp_path / "grown"
    first = Tiny(own.model, own.adapter, tmp_path / "first.jsonl", own.cache)
    reported(capsys, *command(first, grown, "--checkpoints", points))
    reported(capsys, "append", grown, "--data", tmp_path / "rest.jsonl")
    whole, parts = open_cache(cache), open_cache(grown)
    assert parts.manifest.training == whole.manifest.training
    np.testing.assert_allclose(parts.norms, whole.norms, rtol=1e-5)
    with_all, with_parts = (store.sketches_of(np.arange(7), 1024) for store in (whole, parts))
    np.testing.assert_allclose(with_parts, with_all, atol=2e-3 * np.abs(with_all).max())


def test_what_is_asked_of_a_cache_of_points_says_where_gradients_were_taken(
    made: tuple[Tiny, Path], capsys: Captured
) -> None:
    _, cache = made
    names = [name for name, _ in open_cache(cache).manifest.training.checkpoints]
    said = f"gradients at           {names[0]} and {names[1]} of the way from the base to the fine-tuned model"
    assert said in answered(capsys, "info", cache)
