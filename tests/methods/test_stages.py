"""Influence over two stages against a plain float64 implementation with whole matrices."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from explorer.cache import CacheSettings, FollowedBy, open_cache
from explorer.engine import Engine
from explorer.errors import CacheError, MethodError, MismatchError
from explorer.methods import method as methods
from explorer.methods.opening import open_method
from explorer.methods.second_order.curvature import curvature_rows
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Answer, Counting, Encoded, Example
from explorer.serving.session import open_engine
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.stages import following
from tests.conftest import Tiny
from tests.explicit import Explicit
from tests.explicit_factors import explicit_ekfac
from tests.tiny import disturb

ROWS, SHARE = 2, 0.03
"""Curvature rows of each stage, and λ as a share of the mean eigenvalue."""
LINEAR = r"layers\.0\.self_attn\.[qo]_|layers\.1\.mlp\.(up|down)_"
"""Weights that the adapter changes, and others."""
Inverse = Callable[[NDArray[np.float64]], NDArray[np.float64]]
LOSSLESS = 1 << 20
"""A sketch this long has a number for every parameter of a tiny model."""
TEXT = "The sun shines by day and the moon by night. A star fell into the river of the town. "


@dataclass(frozen=True)
class Stages:
    """A pre-training cache in float64 that names its fine-tuning, and both models written out."""

    engine: Engine
    before: Explicit
    after: Explicit
    tuned_on: list[Encoded]
    tuned_data: str

    @cached_property
    def answer(self) -> Answer:
        return self.engine.given_answer("What shines?", "The moon and the sun.")

    @cached_property
    def examples(self) -> list[Encoded]:
        return [example.encoded for example in self.engine.store.examples]

    @cached_property
    def through_later(self) -> Inverse:
        rows = curvature_rows(self.tuned_data, len(self.tuned_on), ROWS)
        return explicit_ekfac(self.after, rows, self.tuned_on, SHARE)

    @cached_property
    def through_earlier(self) -> Inverse:
        rows = curvature_rows(self.engine.store.manifest.data_sha256, len(self.examples), ROWS)
        return explicit_ekfac(self.before, rows, self.examples, SHARE)


@pytest.fixture(scope="module", autouse=True)
def norms_in_float64() -> Iterator[None]:
    """Norms that don't round to float32 on their way: else what is compared would differ by that alone."""

    def forward(norm: LlamaRMSNorm, x: torch.Tensor) -> torch.Tensor:
        return norm.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LlamaRMSNorm, "forward", forward)
        yield


def merged_by_hand(tiny: Tiny) -> Explicit:
    """W + (alpha / r) B A of every changed weight, out of the adapter's own file."""
    model = load_model(str(tiny.model), device="cpu", precision="float64", tensors=LINEAR)
    config = json.loads((tiny.adapter / "adapter_config.json").read_text())
    parts = load_file(tiny.adapter / "adapter_model.safetensors")
    for name, a in parts.items():
        if ".lora_A." in name:
            own = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            b = parts[name.replace("lora_A", "lora_B")]
            with torch.no_grad():
                model.network.get_parameter(own).add_(config["lora_alpha"] / config["r"] * b.double() @ a.double())
    return Explicit(model)


def two_stages(tiny: Tiny, folder: Path, tuned: LanguageModel, after: Explicit) -> Stages:
    """The caches of both stages; `tuned` is the fine-tuned model, `after` the same by hand."""
    settings = CacheSettings(LOSSLESS, 1024, normalisation="none", tensors=LINEAR)
    own = CacheSettings(4096, 1024, normalisation="none")
    build_cache(tuned, read_examples(tiny.data), folder / "later", own, tokens=0, data_name="tuned.jsonl")
    base = load_model(str(tiny.model), device="cpu", precision="float64", tensors=LINEAR)
    documents = [Example((), TEXT * 2, {"document": "one"}), Example((), TEXT.upper(), {"document": "two"})]
    named = following(folder / "later", folder / "earlier", base)
    build_cache(
        base,
        documents,
        folder / "earlier",
        settings,
        tokens=0,
        data_name="text",
        counting=Counting(chunk=32),
        followed_by=named,
    )
    engine = open_engine(folder / "earlier", device="cpu")
    later = open_cache(folder / "later")
    encoded = [example.encoded for example in later.examples]
    return Stages(engine, Explicit(base), after, encoded, later.manifest.data_sha256)


@pytest.fixture(scope="module")
def lora(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Fine-tuning by LoRA."""
    tuned = load_model(str(tiny.model), tiny.adapter, device="cpu", precision="float64")
    return two_stages(tiny, tmp_path_factory.mktemp("lora"), tuned, merged_by_hand(tiny))


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Fine-tuning of all parameters."""
    folder = tmp_path_factory.mktemp("whole")
    model = load_model(str(tiny.model), device="cpu", precision="float64")
    torch.manual_seed(3)
    disturb(model.network)
    model.network.float().save_pretrained(folder / "tuned")
    model.tokenizer.save_pretrained(folder / "tuned")
    tuned = load_model(str(folder / "tuned"), device="cpu", precision="float64", base=str(tiny.model))
    after = load_model(str(folder / "tuned"), device="cpu", precision="float64", tensors=LINEAR)
    return two_stages(tiny, folder, tuned, Explicit(after))


def values(stages: Stages, name: str, row: int) -> NDArray[np.float32]:
    found = open_method(stages.engine, name, ROWS).values(stages.answer, None, row)
    assert found is not None
    return found


def assert_as_explicit(stages: Stages, name: str, at: Explicit, direction: NDArray[np.float64]) -> None:
    """Every token's value of some passages, and so their scores, to 1e-6 of the largest."""
    for row in (0, 3):
        expected = at.token_gradients(stages.examples[row]) @ direction
        found = values(stages, name, row)
        worst = np.abs(found - expected).max() / np.abs(expected).max()
        assert worst < 1e-6, f"off by {worst:.2g} of the largest"
        assert found.mean(dtype=float) == pytest.approx(expected.mean(), rel=1e-6, abs=1e-7 * np.abs(expected).max())
    scores = open_method(stages.engine, name, ROWS).scores(stages.answer, None)
    exact = np.array([at.gradient(encoded) @ direction for encoded in stages.examples])
    # They are kept as float16.
    assert np.abs(scores - exact).max() < 2e-3 * np.abs(exact).max()


@pytest.mark.parametrize("trained", ["lora", "whole"])
def test_multi_stage_influence_agrees_with_whole_matrices(trained: str, request: pytest.FixtureRequest) -> None:
    stages: Stages = request.getfixturevalue(trained)
    q = stages.after.gradient(stages.answer.encoded)
    direction = stages.through_earlier(stages.through_later(q))
    assert_as_explicit(stages, f"multi-stage:{SHARE}", stages.before, direction)


def test_single_stage_influence_agrees_with_whole_matrices(lora: Stages) -> None:
    direction = lora.through_later(lora.after.gradient(lora.answer.encoded))
    assert_as_explicit(lora, f"single-stage:{SHARE}", lora.after, direction)


def test_the_product_of_two_stages_is_that_of_their_gradients(lora: Stages) -> None:
    assert_as_explicit(lora, "stage-product", lora.before, lora.after.gradient(lora.answer.encoded))


def test_the_gradient_of_the_base_weights_under_an_adapter_is_that_of_the_merged_ones(tiny: Tiny, lora: Stages) -> None:
    """What stands for the fine-tuned model where an adapter was trained (docs/mathematics.md, section 14)."""
    adapted = load_model(str(tiny.model), tiny.adapter, device="cpu", precision="float64").network
    for name, tensor in adapted.named_parameters():
        tensor.requires_grad_("base_layer" in name or "lora" in name)
    ids = torch.from_numpy(lora.answer.encoded.ids)[None]
    start = lora.answer.encoded.response_start
    logits = adapted(input_ids=ids).logits[0, start - 1 : -1]
    torch.nn.functional.cross_entropy(logits, ids[0, start:]).backward()
    own = dict(zip(lora.after.tensors, lora.after.split(lora.after.gradient(lora.answer.encoded)), strict=True))
    layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    merged = own["model.layers.0.self_attn.q_proj.weight"].reshape(16, 16)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    np.testing.assert_allclose(layer.base_layer.weight.grad, merged, atol=1e-12)
    # And the adapter's own gradients follow from it, not it from them.
    np.testing.assert_allclose(b.grad, 2 * merged @ a.detach().numpy().T, atol=1e-12)
    np.testing.assert_allclose(a.grad, 2 * b.detach().numpy().T @ merged, atol=1e-12)


# Who answers


def test_the_fine_tuned_model_answers_and_the_one_before_it_is_its_base(tiny: Tiny, lora: Stages) -> None:
    adapted = open_engine(tiny.cache, device="cpu")
    answer = lora.engine.answered("What shines?", None, 5)
    assert answer.text == adapted.answered("What shines?", None, 5).text
    found, expected = lora.engine.predict(lora.answer), adapted.predict(lora.answer)
    np.testing.assert_allclose(found.said, expected.said, atol=1e-4)
    assert found.base is not None and expected.base is not None
    np.testing.assert_allclose(found.base, expected.base, atol=1e-4)


# What is kept


def test_both_stages_factors_are_fitted_once_and_a_stopped_fit_goes_on(
    lora: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lora.engine.store.folder / "methods"
    for path in folder.glob("*"):
        path.unlink()
    monkeypatch.setattr(methods, "_KEPT_EVERY_S", -1.0)
    told: list[tuple[str, int]] = []

    def telling(stage: str, done: int, total: int) -> None:
        told.append((stage, done))

    def stopping(*last: str) -> Any:
        def report(stage: str, done: int, total: int) -> None:
            telling(stage, done, total)
            if [own for own, number in told if number == 2 and own != "eigenvectors"] == [*last]:
                raise KeyboardInterrupt

        return report

    first, second = "Kronecker factors", "corrected eigenvalues"
    # In the first pass of the stage before, in its second one, and in the first one of the fine-tuning.
    for stopped in ((first,), (first, second), (second, first)):
        told.clear()
        with pytest.raises(KeyboardInterrupt):
            open_method(lora.engine, "multi-stage", 3, stopping(*stopped)).fit()
    assert told[0] == (second, 2), "what was summed before it was stopped is kept"
    assert (folder / "ekfac.json").is_file()
    resumed = open_method(lora.engine, "multi-stage", 3, telling).values(lora.answer, None, 1)
    assert sorted(path.name for path in folder.glob("*.json")) == ["ekfac-fine-tuning.json", "ekfac.json"]
    told.clear()
    open_method(lora.engine, "multi-stage", 3, telling).fit()
    open_method(lora.engine, "ekfac", 3, telling).fit()
    assert not told, "what was fitted is kept"
    for path in folder.glob("*"):
        path.unlink()
    undisturbed = open_method(lora.engine, "multi-stage", 3).values(lora.answer, None, 1)
    assert resumed is not None and undisturbed is not None
    np.testing.assert_allclose(resumed, undisturbed, rtol=1e-5)


# What is refused


@pytest.mark.parametrize("name", ["multi-stage", "single-stage", "stage-product"])
def test_a_cache_of_one_stage_is_refused(tiny_engine: Engine, name: str) -> None:
    answer = tiny_engine.given_answer("What shines?", "The moon.")
    with pytest.raises(MethodError, match=f"{name} needs a cache of what a model was trained on before"):
        open_method(tiny_engine, name).scores(answer, None)


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", "much"])
def test_a_damping_that_is_no_share_is_refused(lora: Stages, value: str) -> None:
    with pytest.raises(MethodError, match="multi-stage:VALUE takes λ as a share above 0"):
        open_method(lora.engine, f"multi-stage:{value}").fit()


def test_a_cache_of_another_fine_tuning_is_refused(tiny: Tiny, lora: Stages, tmp_path: Path) -> None:
    base = load_model(str(tiny.model), device="cpu")
    with pytest.raises(MismatchError, match="doesn't say what its model was fine-tuned from"):
        following(lora.engine.store.folder, tmp_path, base)
    adapted = load_model(str(tiny.model), tiny.adapter, device="cpu")
    with pytest.raises(MismatchError, match="isn't the cache of a fine-tuning of"):
        following(tiny.cache, tmp_path, adapted)


def test_a_fine_tuning_that_is_gone_or_another_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    base = load_model(str(tiny.model), device="cpu", tensors=LINEAR)
    settings = CacheSettings(256, 64, tensors=LINEAR)
    named = following(tiny.cache, tmp_path / "cache", base)
    document = [Example((), TEXT, {"document": "one"})]
    for followed_by, error, said in (
        (FollowedBy("nowhere", named.model, named.data), CacheError, "which isn't there"),
        (FollowedBy(named.cache, "0" * 64, named.data), MismatchError, "is another cache than when"),
    ):
        # The same work again takes another fine-tuning.
        build_cache(base, document, tmp_path / "cache", settings, 0, "text", followed_by=followed_by)
        with pytest.raises(error, match=said):
            open_engine(tmp_path / "cache", device="cpu")
    build_cache(base, document, tmp_path / "cache", settings, 0, "text", followed_by=named)
    assert open_engine(tmp_path / "cache", device="cpu").fine_tuned is not None
    kept = open_cache(tmp_path / "cache").manifest
    assert kept.json()["followed_by"] == {"cache": named.cache, "model": named.model, "data": named.data}
    assert "followed_by" not in open_cache(tiny.cache).manifest.json()
