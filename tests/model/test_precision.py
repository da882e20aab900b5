"""Weights in other number formats: loaded as asked, their values close to those of float32, caches kept apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.cache.store import open_cache
from explorer.engine import Engine
from explorer.errors import MismatchError
from explorer.gradients.losses import _HALF_SCALE
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.serving.session import open_engine
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import asking
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_adapter, save_tiny_relative

HALVES = ["bfloat16", "float16"]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose gradients are no small differences of large numbers, as those of freshly made weights are."""
    return save_tiny_relative(tmp_path_factory.mktemp("steady") / "model", "llama")


@pytest.fixture(params=["adapter", "all parameters"], scope="module")
def adapter(request: pytest.FixtureRequest, steady: Path) -> Path | None:
    return save_tiny_adapter(steady.parent / "adapter", steady) if request.param == "adapter" else None


def exact_values(model: LanguageModel) -> NDArray[np.float32]:
    """Influence of every response token of all rows on an answer, one after the other."""
    answer = model.encode([{"role": "user", "content": "What is bright?"}], "It is the sun.")
    question = gradients.gradient(model, answer)
    question = gradients.divided(question, gradients.norms(question))
    found = []
    for row in ROWS:
        example = model.encode([{"role": "user", "content": row["prompt"]}], row["response"])
        direction = gradients.divided(question, gradients.norms(gradients.gradient(model, example)))
        found.append(gradients.directional_token_losses(model, example, direction))
    return np.concatenate(found)


def cosine(u: NDArray[np.float32], v: NDArray[np.float32]) -> float:
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


@pytest.mark.parametrize("precision", ["float32", *HALVES, "float64"])
def test_weights_are_loaded_in_the_format_that_was_asked_for(
    steady: Path, adapter: Path | None, precision: str
) -> None:
    model = load_model(str(steady), adapter, device="cpu", precision=precision)
    assert model.dtype == getattr(torch, precision) and model.fingerprint.precision == precision
    frozen = {tensor.dtype for name, tensor in model.network.named_parameters() if name not in model.trainable}
    assert frozen <= {getattr(torch, precision)}


def test_weights_are_loaded_as_they_are_stored_unless_asked_otherwise(tiny: Tiny, tmp_path: Path) -> None:
    load_model(str(tiny.model), device="cpu", precision="bfloat16").network.save_pretrained(tmp_path / "half")
    for file in [*tiny.model.glob("tokenizer*"), tiny.model / "chat_template.jinja"]:
        (tmp_path / "half" / file.name).write_bytes(file.read_bytes())
    assert load_model(str(tmp_path / "half"), device="cpu").fingerprint.precision == "bfloat16"
    assert load_model(str(tiny.model), device="cpu").fingerprint.precision == "float32"
    assert load_model(str(tmp_path / "half"), device="cpu", precision="float32").dtype == torch.float32


@pytest.mark.parametrize("precision", HALVES)
def test_exact_values_in_half_precision_point_where_those_in_float32_do(
    steady: Path, adapter: Path | None, precision: str
) -> None:
    half, single = (
        exact_values(load_model(str(steady), adapter, device="cpu", precision=one)) for one in (precision, "float32")
    )
    assert np.isfinite(half).all() and not np.array_equal(half, single)
    assert cosine(half, single) > 0.99


def test_values_in_float32_are_those_of_float64_to_one_in_ten_thousand(steady: Path, adapter: Path | None) -> None:
    single, double = (
        exact_values(load_model(str(steady), adapter, device="cpu", precision=one)) for one in ("float32", "float64")
    )
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-4 * float(np.abs(double).max()))


@pytest.mark.parametrize("precision", HALVES)
def test_gradients_in_half_precision_are_about_those_in_float32(
    steady: Path, adapter: Path | None, precision: str
) -> None:
    half, single = (load_model(str(steady), adapter, device="cpu", precision=one) for one in (precision, "float32"))
    batch = [single.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:3]]
    together: list[gradients.Gradient] = [{} for _ in batch]
    gradients.example_gradients(half, half.checkpoints[0], batch, lambda place, parts: together[place].update(parts))
    for item, in_batch in zip(batch, together, strict=True):
        expected = gradients.gradient(single, item)
        for found in (gradients.gradient(half, item), in_batch):
            for name, part in expected.items():
                near = torch.nn.functional.cosine_similarity(found[name].float().ravel(), part.ravel(), dim=0)
                assert near > 0.98, f"{name} points elsewhere: {float(near):.3f}"
                assert float(found[name].float().norm() / part.norm()) == pytest.approx(1, abs=0.1), name


@pytest.mark.parametrize("precision", HALVES)
def test_shares_of_positions_in_half_precision_sum_to_the_inner_product(
    steady: Path, adapter: Path | None, precision: str
) -> None:
    model = load_model(str(steady), adapter, device="cpu", precision=precision)
    item, other = (model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:2])
    direction = gradients.gradient(model, other)
    direction = gradients.divided(direction, gradients.norms(direction))
    shares = gradients.position_shares(model, item, direction)
    expected = gradients.inner_product(gradients.gradient(model, item), direction)
    assert shares.sum() == pytest.approx(expected, abs=0.03 * float(np.abs(shares).sum()))


def test_small_gradients_of_float16_weights_survive_the_division_by_the_scale(
    steady: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(steady), device="cpu", precision="float16")
    item = model.encode([{"role": "user", "content": "Say hi."}], "Hi.")
    expected = gradients.gradient(model, item)
    # A loss so many times smaller, and a scale so many times larger: the backward pass is the same to the bit.
    true, smaller = gradients.token_losses, 2.0**-24

    def small(model: LanguageModel, batch: Sequence[Encoded], tensors: Any = None) -> list[torch.Tensor]:
        return [smaller * losses for losses in true(model, batch, tensors)]

    monkeypatch.setattr("explorer.gradients.losses.token_losses", small)
    monkeypatch.setattr("explorer.gradients.losses._HALF_SCALE", _HALF_SCALE / smaller)
    found = gradients.gradient(model, item)
    for name, part in expected.items():
        left = float(found[name].double().norm()) / (smaller * float(part.double().norm()))
        assert left == pytest.approx(1, abs=0.01), f"{left:.0%} of {name} is left"


def test_a_cache_of_another_precision_is_refused(tiny: Tiny) -> None:
    half = load_model(str(tiny.model), tiny.adapter, device="cpu", precision="bfloat16")
    with pytest.raises(MismatchError, match="was made with another precision"):
        open_cache(tiny.cache).check_model(half.fingerprint)
    with pytest.raises(MismatchError, match="was made with another precision"):
        Engine(half, open_cache(tiny.cache))


@pytest.mark.parametrize("precision", HALVES)
def test_a_cache_in_half_precision_opens_with_the_model_in_that_precision(
    tiny: Tiny, tmp_path: Path, precision: str
) -> None:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu", precision=precision)
    settings = CacheSettings(length=4096, token_length=1024, batch=2)
    build_cache(model, read_examples(tiny.data), tmp_path / "cache", settings, 1, "train.jsonl")
    engine = open_engine(tmp_path / "cache", device="cpu")
    assert engine.model.fingerprint.precision == precision
    answer = engine.given_answer("What shines by day?", "It is the sun.")
    asking(engine).ask(answer, None)
    scores = asking(engine).ranking(answer, None).scores
    exact = np.array([asking(engine).refine(answer, None, row).score for row in range(len(ROWS))])
    assert np.corrcoef(scores, exact)[0, 1] > 0.9
