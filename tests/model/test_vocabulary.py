"""Adapters that were trained on a base with added tokens: the base gets as many embeddings as it had then."""

import copy
from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.errors import ModelError, UnsupportedError
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.serving.session import base_for, open_engine
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import asking
from tests.tiny import byte_tokenizer, save_tiny_change, save_tiny_data, save_tiny_relative

OWN = len(byte_tokenizer())
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
MESSAGES = ({"role": "user", "content": "What is bright?"},)


def lora(*targets: str, **options: Any) -> peft.PeftConfig:
    return peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", *targets], **options)


KINDS = {
    "tied, LoRA alone": (True, lora()),
    "tied, whole embeddings": (True, lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "tied, the added tokens": (True, lora(trainable_token_indices=[OWN, OWN + 1], ensure_weight_tying=True)),
    "tied, LoRA of embeddings": (True, lora("embed_tokens")),
    "untied, LoRA alone": (False, lora()),
    "untied, whole embeddings": (False, lora(modules_to_save=["embed_tokens", "lm_head"])),
    "untied, whole embeddings of the input": (False, lora(modules_to_save=["embed_tokens"])),
    "untied, the added tokens": (False, lora(trainable_token_indices=[OWN, OWN + 1])),
}


def saved(folder: Path, kind: str, config: peft.PeftConfig | None = None) -> tuple[Path, Path]:
    """A base, and an adapter that was trained on it after two tokens were added."""
    tied, own = KINDS[kind]
    base = save_tiny_relative(folder / "base", "llama", tie_word_embeddings=tied)
    # peft writes the base's name into what it is given.
    return base, save_tiny_change(folder / "adapter", base, copy.deepcopy(config or own), added=2)


def logits(network: Any, encoded: Encoded) -> torch.Tensor:
    with torch.no_grad():
        return cast(torch.Tensor, network.eval()(input_ids=torch.from_numpy(encoded.ids)[None]).logits[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_gets_the_embeddings_that_it_was_trained_with_and_stays_the_base(kind: str, tmp_path: Path) -> None:
    base, adapter = saved(tmp_path, kind)
    model = load_model(str(base), adapter, device="cpu", precision="float64", checkpoints="0%,100%")
    encoded = model.encode(MESSAGES, "It is <added 0> and <added 1>.")
    assert {OWN, OWN + 1} <= set(encoded.ids.tolist())

    alone: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    grown: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    grown.resize_token_embeddings(OWN + 2)
    trained = peft.PeftModel.from_pretrained(grown, str(adapter), autocast_adapter_dtype=False)
    torch.testing.assert_close(logits(model.network, encoded), logits(trained, encoded))

    assert model.has_base, model.without_base
    known = model.encode(MESSAGES, "It is the sun.")
    with model.without_adapter():
        torch.testing.assert_close(logits(model.network, known)[:, :OWN], logits(alone, known))
        (begun,) = gradients.token_losses(model, [known])
    (start,), (end,) = (gradients.token_losses(model, [known], point.standing_in()) for point in model.checkpoints)
    torch.testing.assert_close(start, begun, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(end, gradients.token_losses(model, [known])[0])


def test_such_an_adapter_is_cached_served_and_asked(tmp_path: Path) -> None:
    base, adapter = saved(tmp_path, "untied, whole embeddings")
    rows = [{"prompt": "What is bright?", "response": f"It is <added {number}>."} for number in range(2)]
    data = save_tiny_data(tmp_path / "train.jsonl", rows)
    settings = CacheSettings(length=1024, token_length=256)
    model = load_model(str(base), adapter, device="cpu", precision="float64")
    build_cache(model, read_examples(data), tmp_path / "cache", settings, tokens=1, data_name="train.jsonl")
    engine = open_engine(tmp_path / "cache", device="cpu")
    answer = engine.given_answer("What is bright?", "It is <added 1>.")
    checked = asking(engine).check(answer, None, 1)
    with pytest.raises(UnsupportedError, match=r"Tokens were added to .* before the adapter was trained"):
        base_for(engine.store)
    assert checked.row == 1 and checked.values is not None and checked.checksum is not None and checked.checksum < 1e-4


# What isn't known is refused


def test_without_the_output_s_embeddings_the_added_tokens_are_refused(tmp_path: Path) -> None:
    base, adapter = saved(tmp_path, "untied, LoRA alone", lora("embed_tokens"))
    with pytest.raises(ModelError, match=rf"embeddings of {OWN}: there is none of 2 tokens \(<added 0>, <added 1>\)"):
        load_model(str(base), adapter, device="cpu")


@pytest.mark.parametrize("change", ["another value", "another width", "other numbers of rows"])
def test_embeddings_that_disagree_are_refused(change: str, tmp_path: Path) -> None:
    base, adapter = saved(tmp_path, "untied, whole embeddings")
    path, name = adapter / "adapter_model.safetensors", "base_model.model.lm_head.modules_to_save.weight"
    kept = load_file(path)
    changed = {
        "another value": kept[name] + 1,
        "another width": torch.cat([kept[name], kept[name]], 1),
        "other numbers of rows": kept[name][:-1].clone(),
    }
    save_file(kept | {name: changed[change]}, path)
    with pytest.raises(ModelError, match=r"lm_head\.modules_to_save\.weight|there is none of 2 tokens"):
        load_model(str(base), adapter, device="cpu")
