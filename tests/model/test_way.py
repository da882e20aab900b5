"""Gradients on the straight way from the base to the fine-tuned model, θ₀ + α (θ − θ₀), beside explicit ones."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.errors import MismatchError, ModelError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.model.way import point_name, point_of
from explorer.records import Encoded
from explorer.serving.session import open_engine
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import asking
from tests.conftest import Tiny
from tests.tiny import save_tiny_change, save_tiny_relative

POINTS = (0.25, 0.5)
MESSAGES = ({"role": "user", "content": "What is bright?"},)


def lora(**options: Any) -> peft.LoraConfig:
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], **options)


RELATIVES = {
    "LoRA": lora(),
    "rsLoRA": lora(use_rslora=True),
    "DoRA": lora(use_dora=True),
    "LoRA with a whole norm": lora(modules_to_save=["norm"]),
    "LoRA of the embedding": peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["embed_tokens", "q_proj"]),
    "LoRA with trained tokens": lora(trainable_token_indices=[5, 9]),
    "IA3": peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "LoHa": peft.LoHaConfig(task_type="CAUSAL_LM", r=2, alpha=4, target_modules=["q_proj"]),
    "LoKr": peft.LoKrConfig(task_type="CAUSAL_LM", r=2, alpha=4, target_modules=["q_proj"]),
    "VeRA": peft.VeraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "o_proj"]),
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning:peft")
@pytest.mark.parametrize("kind", RELATIVES)
def test_the_way_begins_at_the_base_and_ends_at_the_model(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    adapter = save_tiny_change(tmp_path / "adapter", tiny.model, RELATIVES[kind])
    model = load_model(str(tiny.model), adapter, device="cpu", checkpoints="0%,100%,50%", precision="float64")
    base = load_model(str(tiny.model), None, device="cpu", precision="float64")
    encoded = model.encode(MESSAGES, "the sun")
    start, end, middle = (
        gradients.token_losses(model, [encoded], point.standing_in())[0] for point in model.checkpoints
    )
    (own,), (of_base,) = gradients.token_losses(model, [encoded]), gradients.token_losses(base, [encoded])
    torch.testing.assert_close(start, of_base, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(end, own, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(middle, start, atol=1e-6) and not torch.allclose(middle, end, atol=1e-6)


def test_trained_biases_begin_at_the_base_s(tiny: Tiny, tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny.model, attention_bias=True)
    network.save_pretrained(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tiny.model / name).is_file():
            shutil.copy(tiny.model / name, tmp_path / "base" / name)
    adapter = save_tiny_change(tmp_path / "adapter", tmp_path / "base", lora(bias="all"))
    model = load_model(str(tmp_path / "base"), adapter, device="cpu", checkpoints="0%")
    base = load_model(str(tmp_path / "base"), None, device="cpu")
    encoded = model.encode(MESSAGES, "the sun")
    (start,) = gradients.token_losses(model, [encoded], model.checkpoints[0].standing_in())
    torch.testing.assert_close(start, gradients.token_losses(base, [encoded])[0])


# Beside explicit computation


def whole(tiny: Tiny, folder: Path) -> tuple[Path, Path]:
    """A model, and another that all of its parameters were changed of."""
    network = AutoModelForCausalLM.from_pretrained(tiny.model)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    shutil.copytree(tiny.model, folder / "tuned")
    network.save_pretrained(folder / "tuned")
    return tiny.model, folder / "tuned"


def explicit_lora(model: Path, adapter: Path, alpha: float, dora: bool) -> tuple[Any, list[str]]:
    """The network at a point, made by rewriting the adapter's file, and the tensors that move."""
    at, base = adapter.with_name(f"{adapter.name} at {alpha}"), cast(Any, AutoModelForCausalLM.from_pretrained(model))
    shutil.copytree(adapter, at, dirs_exist_ok=True)
    kept = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in kept.items():
        if "lora_B" in name:
            kept[name] = tensor * alpha
        if "magnitude" in name:
            layer = name.removeprefix("base_model.model.").partition(".lora_")[0]
            norm = torch.linalg.norm(base.get_submodule(layer).weight.detach(), dim=1)
            kept[name] = norm + alpha * (tensor - norm)
    save_file(kept, at / "adapter_model.safetensors")
    network = peft.PeftModel.from_pretrained(base.double(), at, is_trainable=True, autocast_adapter_dtype=False)
    network = network.double().eval()
    moving = ("lora_B", "lora_magnitude") if dora else ("lora_B",)
    return network, [n for n, _ in network.named_parameters() if any(part in n for part in moving)]


def explicit_whole(base: Path, tuned: Path, alpha: float) -> tuple[Any, list[str]]:
    network, other = (cast(Any, AutoModelForCausalLM.from_pretrained(each)).double() for each in (base, tuned))
    with torch.no_grad():
        for own, end in zip(network.parameters(), other.parameters(), strict=True):
            own += alpha * (end - own)
    network.get_input_embeddings().padding_idx = None
    return network.eval(), [name for name, _ in network.named_parameters()]


def explicit_gradient(network: Any, names: list[str], encoded: Encoded) -> dict[str, torch.Tensor]:
    """The gradient of the mean response loss, by nothing of the product."""
    tensors = dict(network.named_parameters())
    logits = network(input_ids=torch.from_numpy(encoded.ids)[None]).logits[0]
    chances = logits[encoded.response_start - 1 : -1].log_softmax(-1)
    labels = torch.from_numpy(encoded.ids[encoded.response_start :])
    loss = -chances.gather(1, labels[:, None]).mean()
    parts = torch.autograd.grad(loss, [tensors[name] for name in names])
    return dict(zip(names, parts, strict=True))


Networks = list[tuple[Any, list[str]]]


@pytest.fixture(scope="module", params=["LoRA", "DoRA", "whole"])
def both(
    request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LanguageModel, Networks]]:
    """The model with gradients taken at two points, in float64, and the networks of these points."""
    folder, points = tmp_path_factory.mktemp("way"), ",".join(map(point_name, POINTS))
    if request.param == "whole":
        base, tuned = whole(tiny, folder)
        model = load_model(
            str(tuned), None, device="cpu", checkpoints=points, precision="float64", tensors=None, base=str(base)
        )
        yield model, [explicit_whole(base, tuned, alpha) for alpha in POINTS]
        return
    adapter = save_tiny_change(folder / "adapter", tiny.model, RELATIVES[request.param])
    model = load_model(str(tiny.model), adapter, device="cpu", checkpoints=points, precision="float64", tensors=None)
    yield model, [explicit_lora(tiny.model, adapter, alpha, request.param == "DoRA") for alpha in POINTS]


def test_gradients_at_points_are_those_of_networks_made_there(both: tuple[LanguageModel, Networks]) -> None:
    model, networks = both
    encoded = model.encode(MESSAGES, "It is the sun.")
    found = gradients.gradient(model, encoded)
    expected = {
        point.qualified(name): part
        for point, (network, names) in zip(model.checkpoints, networks, strict=True)
        for name, part in explicit_gradient(network, names, encoded).items()
    }
    assert found.keys() == expected.keys() and list(found) == [name for name, _ in model.fingerprint.layout]
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=1e-5, atol=1e-8)


def test_scores_of_a_cache_are_the_sums_of_both_points(
    both: tuple[LanguageModel, Networks], tiny: Tiny, tmp_path: Path
) -> None:
    model, networks = both
    examples = read_examples(tiny.data)
    settings = CacheSettings(4096, 1024, normalisation="cosine", tensors=model.tensors)
    build_cache(model, examples, tmp_path / "cache", settings, tokens=2, data_name="train.jsonl")
    engine = open_engine(tmp_path / "cache", device="cpu")
    assert engine.model.training.checkpoints == (("25%", 0.5), ("50%", 0.5)) or engine.model.training.known
    answer = engine.given_answer("What is bright?", "It is the sun.")
    asked = [explicit_gradient(network, names, answer.encoded) for network, names in networks]
    scale = model.training.scale

    def norm(parts: list[dict[str, torch.Tensor]]) -> float:
        return float(
            torch.sqrt(sum((part.square().sum() for each in parts for part in each.values()), torch.zeros(())))
        )

    for row in range(3):
        own = [explicit_gradient(network, names, engine.store.examples[row].encoded) for network, names in networks]
        products = [sum(float((q[name] * g[name]).sum()) for name in q) for q, g in zip(asked, own, strict=True)]
        expected = scale * sum(products) / 2 / (norm(asked) * norm(own))
        found = asking(engine).check(answer, None, row)
        assert found.score == pytest.approx(expected, rel=1e-6)
        assert found.checksum is not None and found.checksum < 1e-6
        assert sum(found.parts) == pytest.approx(found.score, rel=1e-6)


def test_on_a_quantised_base_the_adapter_alone_moves(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = save_tiny_relative(tmp_path / "base", "llama", hidden_size=64, intermediate_size=128)
    adapter = save_tiny_change(tmp_path / "adapter", base, RELATIVES["LoRA"])
    model = load_model(str(base), adapter, device="cpu", precision="4bit", checkpoints="25%", tensors=None)
    network, names = explicit_lora(base, adapter, 0.25, dora=False)
    quantised = dict(model.network.named_modules())
    for name, module in network.named_modules():
        if type(quantised[name]) is bitsandbytes.nn.Linear4bit:
            weight = quantised[name].weight
            with torch.no_grad():
                module.weight.copy_(bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state))
    encoded = model.encode(MESSAGES, "It is the sun.")
    found, expected = gradients.gradient(model, encoded), explicit_gradient(network, names, encoded)
    for name, part in expected.items():
        size = float(part.abs().max())
        torch.testing.assert_close(found[f"25%/{name}"].double(), part, rtol=1e-3, atol=1e-4 * size)


# What a person meets


def test_names_of_points() -> None:
    assert [point_name(alpha) for alpha in (0.25, 0.034, 1.0, 0.005)] == ["25%", "3.4%", "100%", "0.5%"]
    assert [point_of(name) for name in ("25%", "3.40%", "1", "final", "x%")] == [0.25, 0.034, None, None, None]
    with pytest.raises(ModelError, match=r"120% lies beyond"):
        point_of("120%")


def test_points_and_checkpoints_share_one_sum(tiny: Tiny) -> None:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu", checkpoints="25.0%,50%")
    assert [name for name, _ in model.training.checkpoints] == ["25%", "50%"]
    assert model.training.scale == pytest.approx(load_model(str(tiny.model), tiny.adapter, device="cpu").training.scale)
    assert [point.share for point in model.checkpoints] == [0.5, 0.5]


def test_a_way_that_is_not_known_is_refused_with_what_helps(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"all parameters of .* were trained, and the base isn't given \(--base\)"):
        load_model(str(tiny.model), None, device="cpu", checkpoints="25%")
    oft = peft.OFTConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=0, oft_block_size=4)
    adapter = save_tiny_change(tmp_path / "oft", tiny.model, oft)
    with pytest.raises(ModelError, match=r"of the kind OFT, where the way from the base isn't known"):
        load_model(str(tiny.model), adapter, device="cpu", checkpoints="25%")
    pissa = save_tiny_change(tmp_path / "pissa", tiny.model, lora(init_lora_weights="pissa"))
    with pytest.raises(ModelError, match=r"initialised by pissa, where the way .* Give --checkpoints final"):
        load_model(str(tiny.model), pissa, device="cpu", checkpoints="25%")
    with pytest.raises(ModelError, match="only for a model without an adapter"):
        load_model(str(tiny.model), tiny.adapter, device="cpu", base=str(tiny.model))


def test_a_base_of_other_shapes_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    other = save_tiny_relative(tmp_path / "other", "gpt2")
    with pytest.raises(ModelError, match=r"isn't the base of .*only one of them has 48 tensors"):
        load_model(str(tiny.model), None, device="cpu", checkpoints="25%", base=str(other))


def test_a_whole_model_s_base_answers_beside_it(tiny: Tiny, tmp_path: Path) -> None:
    base, tuned = whole(tiny, tmp_path)
    model = load_model(str(tuned), None, device="cpu", base=str(base))
    alone = load_model(str(base), None, device="cpu")
    encoded = model.encode(MESSAGES, "the sun")
    (own,) = gradients.token_losses(model, [encoded])
    with model.without_adapter():
        (found,) = gradients.token_losses(model, [encoded])
    torch.testing.assert_close(found, gradients.token_losses(alone, [encoded])[0])
    torch.testing.assert_close(gradients.token_losses(model, [encoded])[0], own)


def test_a_cache_of_another_base_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    base, tuned = whole(tiny, tmp_path)
    model = load_model(str(tuned), None, device="cpu", base=str(base), checkpoints="50%")
    store = build_cache(
        model, read_examples(tiny.data), tmp_path / "cache", CacheSettings(4096, 1024), tokens=0, data_name="x"
    )
    assert open_engine(tmp_path / "cache", device="cpu").model.base
    shutil.copytree(base, tmp_path / "another")
    kept = load_file(base / "model.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in kept.items()}, tmp_path / "another" / "model.safetensors")
    other = load_model(str(tuned), None, device="cpu", base=str(tmp_path / "another"), checkpoints="50%")
    with pytest.raises(MismatchError, match="another base that it was fine-tuned from"):
        store.check_model(other.fingerprint)
    np.testing.assert_array_equal(store.norms.shape, (7, len(model.fingerprint.layout)))
