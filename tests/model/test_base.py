"""The base is the base: beside every kind of adapter, what the base alone says is what its file says."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from explorer.errors import ModelError
from explorer.model.alternatives import predict
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from tests.tiny import disturb, save_tiny_relative

TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


def lora(*targets: str, **options: Any) -> peft.PeftConfig:
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=[*targets] or TARGETS, **options)


def other(config: Callable[..., peft.PeftConfig], *targets: str, **options: Any) -> peft.PeftConfig:
    return config(task_type="CAUSAL_LM", target_modules=[*targets] or TARGETS, **options)


KINDS = {
    "LoRA": lora(),
    "rsLoRA": lora(use_rslora=True),
    "DoRA": lora(use_dora=True),
    "all biases": lora(bias="all"),
    "LoRA's biases": lora(bias="lora_only"),
    "biases of its own": lora(lora_bias=True),
    "a whole norm": lora(modules_to_save=["norm"]),
    "a whole output layer": lora(modules_to_save=["lm_head"]),
    "whole embeddings": lora(modules_to_save=["embed_tokens", "lm_head"]),
    "embeddings": lora("embed_tokens", "q_proj"),
    "trained tokens": lora(trainable_token_indices=[5, 9]),
    "nothing but tokens": peft.TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=[3, 7]),
    "PiSSA": lora(init_lora_weights="pissa"),
    "PiSSA by chance": lora(init_lora_weights="pissa_niter_4"),
    "PiSSA and biases": lora(init_lora_weights="pissa", bias="all"),
    "OLoRA": lora(init_lora_weights="olora"),
    "EVA": lora(init_lora_weights="eva", eva_config=peft.EvaConfig()),
    "orthogonal": lora(init_lora_weights="orthogonal"),
    "MiCA": lora(init_lora_weights="mica"),
    "parameters": lora("q_proj", target_parameters=["mlp.down_proj.weight"]),
    "AdaLoRA": other(peft.AdaLoraConfig, init_r=2, target_r=2, total_step=10, lora_alpha=4),
    "IA3": other(peft.IA3Config, "k_proj", "down_proj", feedforward_modules=["down_proj"]),
    "LoHa": other(peft.LoHaConfig, r=2, alpha=4),
    "LoKr": other(peft.LoKrConfig, r=2, alpha=4),
    "VeRA": other(peft.VeraConfig, "q_proj", "o_proj", r=2),
    "OFT": other(peft.OFTConfig, r=0, oft_block_size=4),
    "BOFT": other(peft.BOFTConfig, boft_block_size=4),
    "HRA": other(peft.HRAConfig, r=2),
    "Bone": other(peft.MissConfig, "q_proj", "o_proj", r=4),
    "FourierFT": other(peft.FourierFTConfig, n_frequency=9),
    "VB-LoRA": other(peft.VBLoRAConfig, "q_proj", "o_proj", r=1, num_vectors=8, vector_length=4, topk=2),
    "RandLoRA": other(peft.RandLoraConfig, "q_proj", "o_proj", r=2),
    "norms": peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=["norm", "input_layernorm"]),
    "sparse": other(peft.ShiraConfig, "q_proj", "o_proj", r=1),
}
"""Nothing here is as it began: all trained tensors are disturbed, the biases and embeddings among them."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_relative(tmp_path_factory.mktemp("base") / "model", "qwen2", tie_word_embeddings=False)


@pytest.fixture(scope="module")
def untouched(base: Path) -> Any:
    """The base as transformers alone loads it."""
    return AutoModelForCausalLM.from_pretrained(base)


def trained(folder: Path, base: Path, config: peft.PeftConfig, **saving: Any) -> Path:
    """An adapter of any kind, all of whose tensors were changed."""
    torch.manual_seed(1)
    network = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    disturb(network)
    network.save_pretrained(str(folder), **saving)
    return folder


def said(network: Any, encoded: Encoded) -> torch.Tensor:
    """The log-probabilities of all tokens at every position."""
    with torch.no_grad():
        found: torch.Tensor = network.eval()(input_ids=torch.from_numpy(encoded.ids)[None]).logits[0].log_softmax(-1)
    return found


def question(model: LanguageModel) -> Encoded:
    encoded = model.encode([{"role": "user", "content": "What is bright?"}], "It is the sun.")
    # The tokens that some kinds train are among them.
    return replace(encoded, ids=np.concatenate([[3, 5, 7, 9], encoded.ids]), response_start=encoded.response_start + 4)


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_alone_says_what_its_file_says(kind: str, base: Path, untouched: Any, tmp_path: Path) -> None:
    adapter = trained(tmp_path / "adapter", base, KINDS[kind], save_embedding_layers=kind == "embeddings")
    model = load_model(str(base), adapter, device="cpu")
    encoded = question(model)
    alone = said(untouched, encoded)
    assert model.has_base, model.without_base
    with model.without_adapter():
        torch.testing.assert_close(said(model.network, encoded), alone, rtol=0, atol=1e-5)
    changed = said(model.network, encoded)
    assert float((changed - alone).abs().max()) > 1e-3, "this adapter changes nothing"
    if kind != "PiSSA by chance":
        fresh = peft.PeftModel.from_pretrained(copy.deepcopy(untouched), str(adapter))
        torch.testing.assert_close(changed, said(fresh, encoded), rtol=0, atol=1e-5)
    prediction = predict(model, encoded)
    assert prediction.base is not None
    labels = torch.from_numpy(encoded.ids[encoded.response_start :])
    expected = alone[encoded.response_start - 1 : -1].gather(1, labels[:, None])[:, 0]
    np.testing.assert_allclose(prediction.base, expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["PiSSA", "all biases", "DoRA"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision_too(kind: str, precision: str, base: Path, tmp_path: Path) -> None:
    model = load_model(str(base), trained(tmp_path / "adapter", base, KINDS[kind]), device="cpu", precision=precision)
    encoded = question(model)
    assert model.has_base
    with model.without_adapter():
        alone = said(AutoModelForCausalLM.from_pretrained(base, dtype=precision), encoded)
        torch.testing.assert_close(said(model.network, encoded), alone, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_embeddings_that_the_adapter_brings_along_are_not_the_base_s(base: Path, tmp_path: Path) -> None:
    adapter = trained(tmp_path / "adapter", base, KINDS["embeddings"], save_embedding_layers=True)
    path, name = adapter / "adapter_model.safetensors", "base_model.model.model.embed_tokens.base_layer.weight"
    kept = load_file(path)
    save_file(kept | {name: kept[name] + 0.1}, path)
    model = load_model(str(base), adapter, device="cpu")
    assert list(model.originals) == [name]
    encoded = question(model)
    with model.without_adapter():
        alone = said(AutoModelForCausalLM.from_pretrained(base), encoded)
        torch.testing.assert_close(said(model.network, encoded), alone, rtol=0, atol=1e-5)
    fresh = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    torch.testing.assert_close(said(model.network, encoded), said(fresh, encoded), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`init_lora_weights` is:UserWarning:peft")
@pytest.mark.parametrize("start", ["corda", "lora_ga"])
def test_a_base_that_was_changed_by_what_is_not_kept_is_refused(start: str, base: Path, tmp_path: Path) -> None:
    adapter = trained(tmp_path / "adapter", base, KINDS["LoRA"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": start}))
    with pytest.raises(ModelError, match=f"began at {start}, which changed the base's weights by data that isn't kept"):
        load_model(str(base), adapter, device="cpu")


def test_a_start_by_chance_is_the_same_each_time_and_is_said(base: Path, tmp_path: Path) -> None:
    adapter, lines = trained(tmp_path / "adapter", base, KINDS["PiSSA by chance"]), list[str]()
    one = load_model(str(base), adapter, device="cpu", say=lines.append)
    assert len(lines) == 1 and "pissa_niter_4, which is drawn at random" in lines[0]
    before = torch.random.get_rng_state()
    two = load_model(str(base), adapter, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws from nobody's random numbers"
    encoded = question(one)
    torch.testing.assert_close(said(one.network, encoded), said(two.network, encoded), rtol=0, atol=0)
