"""Mixed precision: about the same losses and gradients, in frozen layers alone, and nothing of it stays."""

from pathlib import Path

import pytest
import torch

from explorer.errors import UnsupportedError
from explorer.gradients import has_units, mixed_precision, token_losses, weights_in
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_change, save_tiny_relative


@pytest.fixture
def model(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter, device="cpu")


def losses(model: LanguageModel, tensors: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    batch = [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:3]]
    return torch.cat(token_losses(model, batch, tensors))


def gradient(model: LanguageModel) -> torch.Tensor:
    found = torch.autograd.grad(losses(model).mean(), list(model.trainable.values()))
    return torch.cat([each.flatten() for each in found])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().abs().max())


def frozen(model: LanguageModel) -> str:
    """The name of a frozen layer's weight."""
    return next(name for name, _ in model.network.named_parameters() if "down_proj" in name)


def test_losses_and_gradients_are_about_those_in_float32(model: LanguageModel) -> None:
    expected, exact = losses(model), gradient(model)
    with mixed_precision(model.network):
        found, rounded = losses(model), gradient(model)
    assert found.dtype == rounded.dtype == torch.float32
    assert 0 < distance(found, expected) < 0.05
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.03


def test_nothing_of_it_stays(model: LanguageModel) -> None:
    expected = losses(model)
    with pytest.raises(KeyboardInterrupt), mixed_precision(model.network):
        assert not torch.equal(losses(model), expected)
        raise KeyboardInterrupt
    assert torch.equal(losses(model), expected)
    with mixed_precision(model.network, wanted=False):
        assert torch.equal(losses(model), expected)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_other_families_have_it_too(tmp_path: Path, family: str) -> None:
    import peft

    base = save_tiny_relative(tmp_path / "base", family)
    layers = ["c_attn"] if family == "gpt2" else ["query_key_value"]
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=layers, fan_in_fan_out=family == "gpt2")
    model = load_model(str(base), save_tiny_change(tmp_path / "adapter", base, lora), device="cpu")
    expected = losses(model)
    with mixed_precision(model.network):
        found = losses(model)
    assert 0 < distance(found, expected) < 0.1


def test_an_adapters_own_layers_stay_in_float32_also_where_they_are_held(tiny: Tiny) -> None:
    """Of the matrices that a cache holds constant, too: a checkpoint has others."""
    model = load_model(str(tiny.model), tiny.adapter, device="cpu", tensors="lora_B", checkpoints="50%")
    assert model.held
    with mixed_precision(model.network):
        computed = {name for name, module in model.network.named_modules() if "forward" in vars(module)}
    assert computed and not [name for name in computed if "lora_" in name]
    assert any(name.endswith("q_proj.base_layer") for name in computed)
    assert any(name.endswith("gate_proj") for name in computed) and any(name.endswith("lm_head") for name in computed)


def test_a_tensor_that_stands_in_for_a_frozen_one_is_multiplied_itself(model: LanguageModel) -> None:
    name = frozen(model)
    other = {name: torch.ones_like(model.network.get_parameter(name))}
    alone, expected = losses(model), losses(model, other)
    with mixed_precision(model.network):
        found = losses(model, other)
    assert distance(found, expected) < 0.1 * distance(alone, expected)


def test_a_weight_that_was_changed_is_rounded_anew(model: LanguageModel) -> None:
    with mixed_precision(model.network):
        before = losses(model)
    with torch.no_grad():
        model.network.get_parameter(frozen(model)).fill_(1.0)
    expected = losses(model)
    with mixed_precision(model.network):
        found = losses(model)
    assert distance(found, expected) < 0.1 * distance(before, expected)


def test_models_without_frozen_layers_in_float32_are_refused(tiny: Tiny, model: LanguageModel) -> None:
    whole = load_model(str(tiny.model), device="cpu")
    half = load_model(str(tiny.model), tiny.adapter, device="cpu", precision="bfloat16")
    for other in (whole, half):
        with pytest.raises(UnsupportedError, match="no frozen linear layer in float32; give another --precision"):
            with mixed_precision(other.network):
                pass


@pytest.mark.parametrize(
    ("known", "units"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "arm64", "bf16": True}, True),
        ({"architecture": "bf16", "avx2": True}, False),
        ({}, False),
    ],
)
def test_units_are_what_torch_knows_of_the_device(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, object], units: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert has_units(torch.device("cpu")) == units
    assert not has_units(torch.device("meta"))


def test_weights_are_in_float32_where_it_is_asked_for() -> None:
    assert [weights_in(precision) for precision in ("mixed", "auto", "bfloat16")] == ["float32", "auto", "bfloat16"]
