"""An adapter is asked with what it was trained with: its base, its tokenizer, its template."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

from explorer.cache.manifest import CacheSettings
from explorer.errors import MismatchError, ModelError
from explorer.model.adapter import Adapted, with_adapter
from explorer.model.alternatives import predict
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.conftest import Tiny
from tests.tiny import save_tiny_model

OWN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|end|>{% endfor %}[assistant] "


def copied(tiny: Tiny, folder: Path) -> tuple[Path, Path]:
    return Path(shutil.copytree(tiny.model, folder / "model")), Path(shutil.copytree(tiny.adapter, folder / "adapter"))


def asked(model: LanguageModel) -> str:
    return str(model.tokenizer.decode(model.encode_prompt([{"role": "user", "content": "Why?"}])))


def edited(path: Path, **changes: Any) -> None:
    kept = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(kept | changes))


# The tokenizer


def test_the_tokenizer_beside_the_adapter_is_taken(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = OWN
    tokenizer.save_pretrained(adapter)
    (model / "chat_template.jinja").unlink()
    assert asked(load_model(str(model), adapter, device="cpu")) == "[user] Why?<|end|>[assistant] "
    # It serves where the base has none at all.
    for file in model.glob("tokenizer*"):
        file.unlink()
    assert asked(load_model(str(model), adapter, device="cpu")) == "[user] Why?<|end|>[assistant] "


def test_a_chat_template_alone_goes_with_the_base_s_tokenizer(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    (adapter / "chat_template.jinja").write_text(OWN, encoding="utf-8")
    found = load_model(str(model), adapter, device="cpu")
    assert asked(found) == "[user] Why?<|end|>[assistant] "
    plain = load_model(str(model), tiny.adapter, device="cpu")
    assert found.fingerprint.tokenizer == plain.fingerprint.tokenizer
    assert found.fingerprint.template != plain.fingerprint.template


def test_a_tokenizer_without_a_template_takes_the_base_s(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / file, adapter)
    assert asked(load_model(str(model), adapter, device="cpu")) == asked(load_model(str(model), device="cpu"))


def test_a_cache_opens_with_the_same_tokenizer_beside_the_adapter_and_not_with_another(
    tiny: Tiny, tmp_path: Path
) -> None:
    model, adapter = copied(tiny, tmp_path)
    cache = tmp_path / "cache"
    build_cache(
        load_model(str(model), adapter, device="cpu"),
        read_examples(tiny.data)[:2],
        cache,
        CacheSettings(length=1024, token_length=256),
        tokens=0,
        data_name="train.jsonl",
    )
    # As a trainer leaves it: with the last padding and truncation, and another version's way of writing.
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    tokenizer.save_pretrained(adapter)
    edited(adapter / "tokenizer_config.json", padding_side="right", written_by="another version")
    assert (adapter / "tokenizer.json").read_bytes() != (model / "tokenizer.json").read_bytes()
    assert open_engine(cache, device="cpu").model.tokenizer.name_or_path == str(adapter)
    rules = json.loads((adapter / "tokenizer.json").read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-1]
    (adapter / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(MismatchError, match="another tokenizer"):
        open_engine(cache, device="cpu")


# The vocabulary


def test_tokens_without_an_embedding_are_refused_with_both_numbers(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    rows = len(AutoTokenizer.from_pretrained(model))
    for where, path in ((model, None), (adapter, adapter)):
        tokenizer = AutoTokenizer.from_pretrained(tiny.model)
        tokenizer.add_tokens(["<new>"])
        tokenizer.save_pretrained(where)
        said = rf"{where} has {rows + 1} tokens, .* embeddings of {rows}: there is none of 1 token \(<new>\)"
        with pytest.raises(ModelError, match=said):
            load_model(str(model if path is None else tiny.model), path, device="cpu")


@pytest.mark.parametrize("name", ["eos_token", "pad_token", "bos_token"])
def test_special_tokens_in_use_need_an_embedding_and_others_don_t(name: str, tiny: Tiny, tmp_path: Path) -> None:
    model, _ = copied(tiny, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([AddedToken("<picture>", special=True)], special_tokens=True)
    tokenizer.save_pretrained(model)
    load_model(str(model), device="cpu")
    tokenizer.add_special_tokens({name: "<picture>"})
    tokenizer.save_pretrained(model)
    with pytest.raises(ModelError, match=r"there is none of 1 token \(<picture>\)"):
        load_model(str(model), device="cpu")


def test_embeddings_without_a_token_are_padding(tiny: Tiny, tmp_path: Path) -> None:
    model, _ = copied(tiny, tmp_path)
    network = AutoModelForCausalLM.from_pretrained(model)
    network.resize_token_embeddings(320, mean_resizing=False)
    network.save_pretrained(model)
    load_model(str(model), device="cpu")
    # Here what transformers would add for an end that no file names would even have an embedding.
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json names no token that ends a sequence"):
        load_model(str(model), device="cpu")


# The template


def test_without_a_chat_template_none_is_chosen_in_silence(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    (model / "chat_template.jinja").unlink()
    for path in (None, adapter):
        with pytest.raises(ModelError, match=r"has no chat template.* use --template alpaca or a file"):
            load_model(str(model), path, device="cpu")
    assert load_model(str(model), adapter, "alpaca", device="cpu").template.name == "alpaca"
    edited(adapter / "training.json", template="alpaca")
    assert load_model(str(model), adapter, device="cpu").template.name == "alpaca"


def test_the_recorded_template_is_taken_and_another_refused(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    finetune(
        load_model(str(model), None, "alpaca", device="cpu"),
        read_examples(tiny.data)[:2],
        tmp_path / "trained",
        FinetuneSettings(rank=2, targets=("q_proj",), epochs=1),
        lambda step, of, loss: None,
    )
    assert load_model(str(model), tmp_path / "trained", device="cpu").template.name == "alpaca"
    with pytest.raises(ModelError, match=r"with the template alpaca, as its training\.json says, and not with chat"):
        load_model(str(model), tmp_path / "trained", "chat", device="cpu")
    (tmp_path / "own.txt").write_text("Q: {prompt} A:")
    with pytest.raises(ModelError, match=r"trained with the template alpaca"):
        load_model(str(model), tmp_path / "trained", str(tmp_path / "own.txt"), device="cpu")
    edited(adapter / "training.json", template=str(tmp_path / "moved.txt"))
    with pytest.raises(ModelError, match=r"moved\.txt can't be read"):
        load_model(str(model), adapter, device="cpu")
    assert asked(load_model(str(model), adapter, str(tmp_path / "own.txt"), device="cpu")) == "Q: Why? A:"


# The base


def test_another_base_than_the_recorded_one_is_refused_naming_both(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    edited(adapter / "training.json", base_model="org/other-model")
    with pytest.raises(ModelError, match=rf"was trained on org/other-model, as its .*, and {model} is another\. Give"):
        load_model(str(model), adapter, device="cpu")
    # The same, wherever it lies.
    for name in ("org/model", "/somewhere/else/Model", "model"):
        edited(adapter / "training.json", base_model=name)
        load_model(str(model), adapter, device="cpu")
    fetched = tmp_path / "models--org--model" / "snapshots" / "0123abc"
    shutil.copytree(model, fetched)
    load_model(str(fetched), adapter, device="cpu")


def test_the_recorded_weights_decide_where_they_are_known(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    own = load_model(str(model), device="cpu").fingerprint.base
    edited(adapter / "training.json", base_model="org/other-model", base_sha256=own)
    load_model(str(model), adapter, device="cpu")
    edited(adapter / "training.json", base_model=str(model))
    shutil.copy(save_tiny_model(tmp_path / "newer", seed=9) / "model.safetensors", model)
    with pytest.raises(ModelError, match=r"has other weights\. .* take base_model and base_sha256 out of that file"):
        load_model(str(model), adapter, device="cpu")


def test_another_base_in_the_adapter_s_configuration_is_said(tiny: Tiny, tmp_path: Path) -> None:
    model, adapter = copied(tiny, tmp_path)
    config, said = adapter / "adapter_config.json", list[str]()
    load_model(str(model), adapter, device="cpu", say=said.append)
    assert not said
    edited(config, base_model_name_or_path="org/quite-another")
    load_model(str(model), adapter, device="cpu", say=said.append)
    assert len(said) == 1 and f"{config} names org/quite-another as the base, and {model} is used" in said[0]
    edited(adapter / "training.json", base_sha256=load_model(str(model), device="cpu").fingerprint.base)
    load_model(str(model), adapter, device="cpu", say=said.append)
    assert len(said) == 1, "the hash proves that it is the same"


def test_a_base_of_a_whole_model_is_whole(tiny: Tiny, tmp_path: Path) -> None:
    base, _ = copied(tiny, tmp_path)
    path = base / "model.safetensors"
    kept = load_file(path)
    name = "model.norm.weight"
    for fault, said in (
        ({name: torch.full((16,), float("nan"))}, "1 tensor .* infinite or none"),
        ({name: kept[name].to(torch.int8)}, "1 tensor .* of the type I8"),
        ({name: torch.zeros(0)}, "1 tensor .* without any numbers"),
        ({name: torch.zeros(4)}, "isn't the base of .* 1 tensor"),
        ({"model.another.weight": kept[name]}, "isn't the base of .* only one of them has 1 tensor"),
    ):
        save_file({key: tensor.clone() for key, tensor in (kept | fault).items()}, path)
        with pytest.raises(ModelError, match=said):
            load_model(str(tiny.model), device="cpu", base=str(base))


def test_a_base_that_computes_otherwise_is_not_compared_with(tiny: Tiny, tmp_path: Path) -> None:
    base, _ = copied(tiny, tmp_path)
    edited(base / "config.json", use_cache=False, max_position_embeddings=512, transformers_version="4.0.0")
    assert load_model(str(tiny.model), device="cpu", base=str(base)).has_base
    edited(base / "config.json", rms_norm_eps=0.1, hidden_act="gelu")
    model = load_model(str(tiny.model), device="cpu", base=str(base), checkpoints="50%")
    assert model.without_base.endswith("how to compute (hidden_act, rms_norm_eps)")


def test_where_the_base_is_lost_there_is_nothing_to_compare_with(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(network: Any, *rest: Any) -> Adapted:
        with torch.no_grad():
            network.model.norm.weight.mul_(1.01)
        return with_adapter(network, *rest)

    monkeypatch.setattr("explorer.model.loading.with_adapter", spoils)
    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    assert not model.has_base and "doesn't give it back" in model.without_base
    encoded = model.encode([{"role": "user", "content": "Why?"}], "So.")
    assert predict(model, encoded).base is None
    with pytest.raises(ModelError, match="no base model beside this one to ask: this kind of adapter changes the base"):
        with model.without_adapter():
            pass
