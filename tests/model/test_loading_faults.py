"""Whatever is wrong with the files of a model, an adapter or a checkpoint is refused by name; nothing is made up.

Each file of a tiny model is damaged in turn, and each kind of its tensors.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.errors import ModelError
from explorer.model.checkpoints import taken_at
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from tests.conftest import Tiny
from tests.tiny import save_tiny_relative

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sound(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model, and an adapter with one checkpoint; nothing is wrong with them."""
    folder = tmp_path_factory.mktemp("sound")
    model, adapter = shutil.copytree(tiny.model, folder / "model"), shutil.copytree(tiny.adapter, folder / "adapter")
    kept = load_model(str(model), adapter, device="cpu")
    (adapter / "checkpoints").mkdir()
    save_file(
        {name: tensor.detach().half() for name, tensor in kept.trainable.items()}, adapter / "checkpoints/1.safetensors"
    )
    moments = [{"name": name, "epochs": 1, "learning_rate": 0.01} for name in ("1", "final")]
    (adapter / "training.json").write_text(json.dumps({"epochs": 2, "learning_rate": 0.01, "checkpoints": moments}))
    return load_model(str(model), adapter, device="cpu", checkpoints="all")


def refused(work: Callable[[], object]) -> str:
    """What is said where it is refused, in one line; an empty text where it is served."""
    try:
        work()
    except ModelError as problem:
        assert "\n" not in str(problem)
        return str(problem)
    return ""


# Tensors

FAULTS: dict[str, Callable[[Tensors, str], object]] = {
    "missing": lambda tensors, name: tensors.pop(name),
    "renamed": lambda tensors, name: tensors.update({f"{name}.old": tensors.pop(name)}),
    "twice as long": lambda tensors, name: tensors.update({name: torch.cat([tensors[name]] * 2)}),
    "of one more axis": lambda tensors, name: tensors.update({name: tensors[name][None]}),
    "empty": lambda tensors, name: tensors.update({name: torch.zeros(0)}),
    "there twice": lambda tensors, name: tensors.update({f"copy.{name}": tensors[name].clone()}),
    "of whole numbers": lambda tensors, name: tensors.update({name: tensors[name].to(torch.int8)}),
    "of truth values": lambda tensors, name: tensors.update({name: tensors[name] > 0}),
    "of eight bits": lambda tensors, name: tensors.update({name: tensors[name].to(torch.float8_e4m3fn)}),
    "not a number": lambda tensors, name: tensors[name].view(-1)[-1:].fill_(float("nan")),
    "infinite": lambda tensors, name: tensors[name].view(-1)[:1].fill_(float("-inf")),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["model", "adapter", "checkpoint"])
def test_a_tensor_that_is_wrong_is_refused_by_name(
    where: str, fault: str, sound: LanguageModel, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sound.name if where == "model" else sound.adapter, tmp_path / "folder"))
    file, work = {
        "model": ("model.safetensors", lambda: load_model(str(folder), device="cpu")),
        "adapter": ("adapter_model.safetensors", lambda: load_model(sound.name, folder, device="cpu")),
        "checkpoint": ("checkpoints/1.safetensors", lambda: taken_at(replace(sound, adapter=str(folder)), "all")),
    }[where]
    kept = load_file(folder / file)
    # The second layer's are of the same kinds as the first one's.
    for name in [name for name in kept if "layers.1." not in name]:
        tensors = {key: tensor.clone() for key, tensor in kept.items()}
        FAULTS[fault](tensors, name)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        said = refused(work)
        assert name in said, f"{name} is {fault}: {said or 'it was served'}"


def test_numbers_of_another_width_are_read_for_what_they_are(sound: LanguageModel, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sound.name, tmp_path / "model"))
    kept = load_file(model / "model.safetensors")
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
            save_file(kept | {name: kept[name].to(dtype)}, model / "model.safetensors", metadata={"format": "pt"})
            found = load_model(str(model), device="cpu").network.get_parameter(name)
            torch.testing.assert_close(found.detach(), kept[name].to(dtype).float(), rtol=0, atol=0)


@pytest.mark.parametrize("mark", ["_orig_mod.", "module.", "base_model.model.", "_fsdp_wrapped_module."])
def test_names_that_a_wrapper_changed_are_refused_naming_it(mark: str, sound: LanguageModel, tmp_path: Path) -> None:
    model, adapter = (Path(shutil.copytree(each, tmp_path / Path(each).name)) for each in (sound.name, sound.adapter))
    path = model / "model.safetensors"
    save_file({f"{mark}{name}": tensor for name, tensor in load_file(path).items()}, path)
    said = refused(lambda: load_model(str(model), device="cpu"))
    assert f"A wrapper put {mark[:-1]} into the names" in said and "lacks 2" in said
    path = adapter / "adapter_model.safetensors"
    own = load_file(path)
    for at in ("", "base_model.model."):
        save_file({at + mark + name.removeprefix(at): tensor for name, tensor in own.items()}, path)
        said = refused(lambda: load_model(sound.name, adapter, device="cpu"))
        assert f"A wrapper put {mark[:-1]} into the names" in said, said
        assert "of 12 tensors in all, it lacks 12 tensors" in said and "it has 12 tensors" in said


def test_what_zero_3_leaves_of_an_adapter_is_called_that(sound: LanguageModel, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(sound.adapter, tmp_path / "adapter"))
    path = adapter / "adapter_model.safetensors"
    save_file({name: torch.zeros(0) for name in load_file(path)}, path)
    said = refused(lambda: load_model(sound.name, adapter, device="cpu"))
    assert "has 12 tensors (" in said and "ZeRO-3" in said and "zero_to_fp32.py" in said


EXPERT = "model.layers.1.block_sparse_moe.experts.2.w1"


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model whose experts' tensors become one when they are read, and an adapter from when they didn't."""
    folder = tmp_path_factory.mktemp("experts")
    base = save_tiny_relative(folder / "base", "mixtral", num_local_experts=4)
    torch.manual_seed(3)
    sizes = {"w1": (16, 32), "w2": (32, 16), "w3": (16, 32)}
    parts = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if "experts" in name:
            assert tensor.shape == sizes[name.split(".")[-2]][::-1]
            parts[f"base_model.model.{name.removesuffix('weight')}lora_A.weight"] = torch.randn(2, tensor.shape[1])
            parts[f"base_model.model.{name.removesuffix('weight')}lora_B.weight"] = torch.randn(tensor.shape[0], 2)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["w1", "w2", "w3"]).to_dict()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["w1", "w2", "w3"]}))
    save_file(parts, folder / "adapter" / "adapter_model.safetensors")
    return base, folder / "adapter"


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning:peft")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_tensor_of_one_of_several_experts_is_refused_by_name(
    fault: str, experts: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = experts
    assert len(load_model(str(base), adapter, device="cpu").trainable) == 8
    for folder, file, name in (
        (base, "model.safetensors", f"{EXPERT}.weight"),
        (adapter, "adapter_model.safetensors", f"base_model.model.{EXPERT}.lora_A.weight"),
    ):
        own = Path(shutil.copytree(folder, tmp_path / folder.name))
        tensors = load_file(own / file)
        FAULTS[fault](tensors, name)
        save_file(tensors, own / file, metadata={"format": "pt"})
        model, beside = (str(own), None) if folder == base else (str(base), own)
        said = refused(partial(load_model, model, beside, device="cpu"))
        # What is found in the whole is called by the whole's name.
        assert name in said or "model.layers.1.mlp.experts.gate_up_proj" in said, f"{fault}: {said or 'served'}"


def test_what_is_tied_or_computed_is_not_too_many(sound: LanguageModel, tmp_path: Path) -> None:
    llama, gpt2 = Path(shutil.copytree(sound.name, tmp_path / "llama")), save_tiny_relative(tmp_path / "gpt2", "gpt2")
    kept = load_file(llama / "model.safetensors")
    more = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
        "lm_head.weight": kept["model.embed_tokens.weight"].clone(),
    }
    save_file(kept | more, llama / "model.safetensors", metadata={"format": "pt"})
    assert len(load_model(str(llama), device="cpu").trainable) == len(kept)
    assert load_model(sound.name, device="cpu", base=str(llama)).has_base
    # As GPT-2 lies on the hub: without the first part of the names, and with the masks of attention.
    kept = load_file(gpt2 / "model.safetensors")
    more = {"h.0.attn.bias": torch.ones(1, 1, 256, 256).tril().bool(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    short = {name.removeprefix("transformer."): tensor for name, tensor in kept.items()}
    save_file(short | more, gpt2 / "model.safetensors", metadata={"format": "pt"})
    assert len(load_model(str(gpt2), device="cpu").trainable) == len(kept)


def test_a_model_in_several_files_is_whole_or_refused(sound: LanguageModel, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    load_model(sound.name, device="cpu").network.save_pretrained(parts, max_shard_size="10KB")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(Path(sound.name, file), parts)
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    assert not refused(lambda: load_model(str(parts), device="cpu"))
    index = parts / "model.safetensors.index.json"
    kept = index.read_text()
    for damaged in ("{", "{}", '{"weight_map": 1}', '{"weight_map": {"a": 1}}', "[]"):
        index.write_text(damaged)
        assert index.name in refused(lambda: load_model(str(parts), device="cpu")), damaged
    index.write_text(kept)
    last = sorted(parts.glob("model-*.safetensors"))[-1]
    last.rename(tmp_path / "elsewhere")
    assert last.name in refused(lambda: load_model(str(parts), device="cpu"))


# Files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda kept: None,
    "cut off": lambda kept: kept[: len(kept) // 2],
    "nothing": lambda kept: b"",
    "an empty object": lambda kept: b"{}",
    "another object": lambda kept: b'{"name": "left-pad", "version": "1.0.0"}',
    "a list": lambda kept: b"[1, 2]",
    "chance": lambda kept: random.Random(0).randbytes(300),
    "a pointer": lambda kept: POINTER,
}
FILES = {
    "model": ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    "adapter": ("adapter_config.json", "adapter_model.safetensors"),
    "tokenizer beside the adapter": ("tokenizer.json", "tokenizer_config.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("where", FILES)
def test_a_file_that_is_damaged_is_refused_by_name(
    where: str, damage: str, sound: LanguageModel, tmp_path: Path
) -> None:
    model, adapter = (Path(shutil.copytree(each, tmp_path / Path(each).name)) for each in (sound.name, sound.adapter))
    if "beside" in where:
        for file in FILES[where]:
            shutil.copy(model / file, adapter)
    for file in FILES[where]:
        path = (model if where == "model" else adapter) / file
        kept = path.read_bytes()
        damaged = DAMAGE[damage](kept)
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        said = refused(lambda: load_model(str(model), adapter, device="cpu"))
        assert file in said or str(path.parent) in said, f"{file} is {damage}: {said or 'it was served'}"
        assert damage != "a pointer" or "git lfs pull" in said
        path.write_bytes(kept)


def test_a_damaged_configuration_of_generation_is_refused(sound: LanguageModel, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sound.name, tmp_path / "model"))
    for damage in ("cut off", "nothing", "a list", "chance", "a pointer"):
        (model / "generation_config.json").write_bytes(DAMAGE[damage](b'{"eos_token_id": 1}') or b"")
        assert "generation_config.json" in refused(lambda: load_model(str(model), device="cpu"))


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_hidden_layers", "vocab_size", "num_key_value_heads"])
def test_a_configuration_of_another_model_is_refused(key: str, sound: LanguageModel, tmp_path: Path) -> None:
    model = Path(shutil.copytree(sound.name, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    for other in ({"model_type": "gpt2"}, {"model_type": "unheard"}) if key == "model_type" else ({key: 4}, {key: -1}):
        (model / "config.json").write_text(json.dumps(config | other))
        assert str(model) in refused(lambda: load_model(str(model), device="cpu")), other


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "FOO"},
        {"peft_type": 5},
        {"r": 3},
        {"r": "two"},
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj", "v_proj", "o_proj", "k_proj"]},
        {"target_modules": ["nothing"]},
        {"modules_to_save": ["norm"]},
        {"use_dora": True},
        {"bias": "everything"},
        {"trainable_token_indices": [3]},
        {"layers_to_transform": [0]},
    ],
    ids=str,
)
def test_a_configuration_of_another_adapter_is_refused(
    change: dict[str, object], sound: LanguageModel, tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(sound.adapter, tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | change))
    assert str(adapter) in refused(lambda: load_model(sound.name, adapter, device="cpu"))


def test_weights_that_would_have_to_be_unpickled_are_refused_with_what_converts_them(
    sound: LanguageModel, tmp_path: Path
) -> None:
    model, adapter = (Path(shutil.copytree(each, tmp_path / Path(each).name)) for each in (sound.name, sound.adapter))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "load the adapter with peft, and save it" in refused(lambda: load_model(sound.name, adapter, device="cpu"))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "load the model with transformers, and save" in refused(lambda: load_model(str(model), device="cpu"))


def test_code_that_a_model_brings_along_is_neither_run_nor_asked_about(
    sound: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail("a question was asked"))
    model = Path(shutil.copytree(sound.name, tmp_path / "model"))
    (model / "own.py").write_text("raise SystemExit('code was run')")
    config = json.loads((model / "config.json").read_text())
    brought = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (model / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": brought}))
    assert "code of its own (auto_map)" in refused(lambda: load_model(str(model), device="cpu"))


def test_an_adapter_in_the_place_of_a_model_is_refused(sound: LanguageModel, tmp_path: Path) -> None:
    said = refused(lambda: load_model(sound.adapter, device="cpu"))
    assert "holds an adapter (adapter_config.json); give its base as --model" in said
    shutil.copytree(sound.name, tmp_path / "both")
    shutil.copytree(sound.adapter, tmp_path / "both", dirs_exist_ok=True)
    assert "holds an adapter" in refused(lambda: load_model(str(tmp_path / "both"), device="cpu"))
