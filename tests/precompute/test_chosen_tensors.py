"""Gradients of some of the trainable tensors: the others are held constant, each at its own checkpoint's values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.errors import MismatchError, ModelError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.conftest import Tiny


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "adapter"
    settings = FinetuneSettings(rank=2, targets=("q_proj", "o_proj"), epochs=2, learning_rate=0.05, checkpoints=2)
    model = load_model(str(tiny.model), device="cpu")
    finetune(model, read_examples(tiny.data), out, settings, lambda step, of, loss: None)
    return out


@pytest.fixture(scope="module", params=["final", "1,final"])
def both(request: pytest.FixtureRequest, tiny: Tiny, trained: Path) -> tuple[LanguageModel, LanguageModel]:
    """The model with gradients of all trainable tensors, and of the B matrices alone."""
    whole, chosen = (
        load_model(str(tiny.model), trained, device="cpu", checkpoints=request.param, tensors=tensors)
        for tensors in ("", "lora_B")
    )
    return whole, chosen


@pytest.fixture(scope="module")
def encoded(tiny: Tiny, both: tuple[LanguageModel, LanguageModel]) -> list[Encoded]:
    return [both[0].encode(e.messages, e.response) for e in read_examples(tiny.data)[:3]]


def test_the_layout_holds_the_chosen_tensors_alone(both: tuple[LanguageModel, LanguageModel]) -> None:
    whole, chosen = both
    assert chosen.fingerprint.layout == tuple(entry for entry in whole.fingerprint.layout if "lora_B" in entry[0])
    assert 0 < len(chosen.fingerprint.layout) < len(whole.fingerprint.layout)


def test_gradients_are_those_of_all_tensors_without_the_others(
    both: tuple[LanguageModel, LanguageModel], encoded: list[Encoded]
) -> None:
    whole, chosen = both
    expected = gradients.gradient(whole, encoded[0])
    found = gradients.gradient(chosen, encoded[0])
    assert found.keys() == {name for name in expected if "lora_B" in name}
    for name, part in found.items():
        torch.testing.assert_close(part, expected[name])


def test_a_batch_gives_the_same_gradients(both: tuple[LanguageModel, LanguageModel], encoded: list[Encoded]) -> None:
    _, chosen = both
    found: list[gradients.Gradient] = [{} for _ in encoded]
    for checkpoint in chosen.checkpoints:
        gradients.example_gradients(chosen, checkpoint, encoded, lambda place, parts: found[place].update(parts))
    for item, in_batch in zip(encoded, found, strict=True):
        for name, part in gradients.gradient(chosen, item).items():
            torch.testing.assert_close(in_batch[name], part, rtol=1e-4, atol=1e-7)


def test_token_values_and_positions_are_inner_products_with_the_chosen_gradients(
    both: tuple[LanguageModel, LanguageModel], encoded: list[Encoded]
) -> None:
    _, chosen = both
    direction = gradients.gradient(chosen, encoded[1])
    explicit = [gradients.inner_product(g, direction) for g in gradients.token_gradients(chosen, encoded[0])]
    values = gradients.directional_token_losses(chosen, encoded[0], direction)
    np.testing.assert_allclose(values, explicit, rtol=1e-3, atol=1e-5 * np.abs(explicit).max())
    shares = gradients.position_shares(chosen, encoded[0], direction)
    assert shares.sum() == pytest.approx(np.mean(explicit), rel=1e-3)


def test_a_cache_opens_with_the_tensors_it_was_made_of(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    settings = CacheSettings(4096, 1024, tensors="lora_B")
    model = load_model(str(tiny.model), trained, device="cpu", checkpoints="all", tensors="lora_B")
    build_cache(model, read_examples(tiny.data), tmp_path / "cache", settings, tokens=0, data_name="train.jsonl")
    assert open_engine(tmp_path / "cache", device="cpu").model.fingerprint == model.fingerprint

    other = load_model(str(tiny.model), trained, device="cpu", checkpoints="all")
    with pytest.raises(MismatchError):
        build_cache(other, read_examples(tiny.data), tmp_path / "cache", CacheSettings(4096, 1024), 0, "train.jsonl")


@pytest.mark.parametrize(
    ("pattern", "says"), [("nothing_like_it", "No trainable tensor"), ("lora_(", "regular expression")]
)
def test_a_pattern_that_selects_nothing_is_refused(tiny: Tiny, trained: Path, pattern: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load_model(str(tiny.model), trained, device="cpu", tensors=pattern)
