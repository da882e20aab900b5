"""Text to token ids and back, and what is said about models that can't be used."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from explorer.errors import ModelError, PromptError, UnsupportedError
from explorer.model import loading
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Message, Token
from tests.conftest import Tiny
from tests.tiny import byte_tokenizer


def user(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter, device="cpu")


def with_template(tiny: Tiny, template: str) -> LanguageModel:
    return load_model(str(tiny.model), None, template, device="cpu")


# Encoding


def test_a_prompt_is_followed_by_the_response_and_its_end(model: LanguageModel) -> None:
    encoded = model.encode(user("Why?"), "So.")
    assert model.tokenizer.decode(encoded.ids[: encoded.response_start]) == (
        "<|start|>user\nWhy?<|end|><|start|>assistant\n"
    )
    assert model.tokenizer.decode(encoded.ids[encoded.response_start :]) == "So.<|end|>"
    assert encoded.ids[: encoded.response_start].tolist() == model.encode_prompt(user("Why?")).tolist()


def test_earlier_turns_and_the_system_turn_are_in_the_prompt(model: LanguageModel) -> None:
    turns = [{"role": "system", "content": "Be kind."}, *user("Hi"), {"role": "assistant", "content": "Hello"}]
    text = model.tokenizer.decode(model.encode_prompt([*turns, *user("Why?")]))
    assert text == (
        "<|start|>system\nBe kind.<|end|><|start|>user\nHi<|end|><|start|>assistant\nHello<|end|>"
        "<|start|>user\nWhy?<|end|><|start|>assistant\n"
    )


def test_the_alpaca_template_holds_the_instruction(tiny: Tiny) -> None:
    model = with_template(tiny, "alpaca")
    text = model.template.render(user("Name {braces} and %s."))
    assert text.endswith("### Instruction:\nName {braces} and %s.\n\n### Response:\n")
    assert model.template.name == "alpaca"


def test_a_template_file_is_filled_with_the_prompt(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    path.write_text("Q: {prompt}\nA:", encoding="utf-8")
    model = with_template(tiny, str(path))
    encoded = model.encode(user("Why {x}?"), " So.")
    assert model.tokenizer.decode(encoded.ids) == "Q: Why {x}?\nA: So.<|end|>"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read"), (b"\xff\xfe", "is UTF-16, and no UTF-8 text"), (b"no place", "has no {prompt} in")],
)
def test_a_template_file_that_cannot_be_used_is_refused(
    tiny: Tiny, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "template.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"The template {path} {said}"):
        with_template(tiny, str(path))


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(model: LanguageModel) -> None:
    assert model.context == 256
    with pytest.raises(PromptError, match=r"is 3\d\d tokens long, and the model reads 255 of them at most; shorten it"):
        model.encode_prompt(user("x" * 300))


def test_a_response_that_overflows_the_context_is_refused(model: LanguageModel) -> None:
    frame = len(model.encode(user("Why?"), "x").ids) - 1
    assert len(model.encode(user("Why?"), "x" * (256 - frame)).ids) == model.context
    with pytest.raises(PromptError, match="is 257 tokens long, and the model reads 256 of them at most; shorten it"):
        model.encode(user("Why?"), "x" * (257 - frame))


def test_a_token_without_an_embedding_is_refused_by_name(tiny: Tiny) -> None:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    for ask in (
        lambda: model.encode_prompt(user("What is on <image>?")),
        lambda: model.encode(user("Why?"), "So <image>."),
    ):
        with pytest.raises(PromptError, match="has <image> in it, a token for which the model has no embedding"):
            ask()
    assert len(model.encode_prompt(user("What is on it?")))


def test_a_prompt_without_any_token_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "bare.txt").write_text("{prompt}")
    model = with_template(tiny, str(tmp_path / "bare.txt"))
    with pytest.raises(PromptError, match="empty"):
        model.encode_prompt(user(""))
    with pytest.raises(PromptError, match="empty"):
        model.encode(user(""), "So.")


def test_an_empty_chat_turn_still_has_the_templates_tokens(model: LanguageModel) -> None:
    assert len(model.encode_prompt(user(""))) > 0


# Tokens as they are shown


def joined(tokens: tuple[Token, ...]) -> str:
    return "".join(token.text for token in tokens)


def shown(model: LanguageModel, text: str) -> tuple[Token, ...]:
    return model.tokens(model.tokenizer(text, add_special_tokens=False)["input_ids"])


@given(text=st.text(max_size=30))
def test_shown_tokens_join_to_the_text(model: LanguageModel, text: str) -> None:
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = model.tokens(ids)
    assert joined(tokens) == model.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert len(tokens) == len(ids)


@given(ids=st.lists(st.integers(0, 257), max_size=12))
def test_shown_tokens_of_any_ids_join_to_what_they_decode_to(model: LanguageModel, ids: list[int]) -> None:
    """What a model generates needn't be valid UTF-8; nothing that is valid may be lost or doubled."""
    decoded = model.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert joined(model.tokens(ids)).replace("\ufffd", "") == decoded.replace("\ufffd", "")


@pytest.mark.parametrize(
    "text", ["naïve", "🌟", "a👩‍👩‍👧b", "日本語", "\n\n\t ", " the sun\n", "<b>&amp;</b>", "1 . 2 , 3 n't"]
)
def test_every_kind_of_text_is_shown_whole(model: LanguageModel, text: str) -> None:
    assert joined(shown(model, text)) == text


def test_a_character_of_several_tokens_stands_on_its_last_one(model: LanguageModel) -> None:
    tokens = shown(model, "a🌟b")
    assert [token.text for token in tokens] == ["a", "", "", "", "🌟", "b"]
    assert [token.raw for token in tokens] == ["", "F0", "9F", "8C", "", ""]


def test_control_tokens_are_shown_by_name_and_marked(model: LanguageModel) -> None:
    encoded = model.encode(user("Why?"), "So.")
    last = model.tokens(encoded.ids)[-1]
    assert last == Token("<|end|>", special=True)
    assert not any(token.special for token in model.tokens(encoded.ids[encoded.response_start : -1]))


def test_a_character_cut_off_by_a_control_token_does_not_spill_over(model: LanguageModel) -> None:
    star = model.tokenizer("🌟", add_special_tokens=False)["input_ids"]
    tokens = model.tokens([*star[:2], model.tokenizer.eos_token_id, *star])
    assert [token.text for token in tokens] == ["", "", "<|end|>", "", "", "", "🌟"]


def test_a_space_in_one_token_with_half_a_character_is_kept(model: LanguageModel) -> None:
    """GPT-2's vocabulary has such tokens: ` ` and the first two bytes of most emoji are one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["<|end|>", *alphabet, "Ġð", "ĠðŁ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "ð"), ("Ġð", "Ł")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    gpt2 = dataclasses.replace(model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    tokens = shown(gpt2, "a 🌟 🌟")
    assert tokens[1].raw == "20 F0 9F"
    assert joined(tokens) == "a 🌟 🌟"


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer in the manner of Llama 2: `▁` for spaces, bytes as `<0xF0>`."""
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    pieces += list("▁abcdefghijklmnopqrstuvwxyz.,?ABC")
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "s"), ("▁s", "u"), ("▁su", "n"), ("▁", "▁")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


@pytest.mark.parametrize("text", ["in the sun.", "a the  sun", "the star 🌟 the sun", "naïve"])
def test_a_sentencepiece_models_spaces_are_shown(model: LanguageModel, text: str) -> None:
    llama2 = dataclasses.replace(model, tokenizer=sentencepiece_tokenizer())
    ids = llama2.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert joined(llama2.tokens(ids)) == text


# Loading


def test_an_unknown_model_folder_is_refused_with_what_to_give() -> None:
    for name in ("/nowhere/model", "./model", "model", "~/model"):
        with pytest.raises(ModelError, match=rf"There is no model folder {name}; --model takes .*a folder or a hub id"):
            load_model(name)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json; copy it there"):
        load_model(str(tmp_path))


def test_weights_that_are_no_safetensors_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.model, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, and only safetensors are read.* save it with save_pre"):
        load_model(str(folder))


def test_damaged_weights_are_a_model_error(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.model, tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        load_model(str(folder))


def test_an_adapter_folder_without_weights_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors; --adapter takes the folder of a PEFT"):
        load_model(str(tiny.model), tmp_path)


def test_an_adapter_without_its_config_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        load_model(str(tiny.model), folder)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("adapter_config.json", "{", "is no JSON text"),
        ("adapter_config.json", "{}", "names the kind None, which peft"),
        ("adapter_model.safetensors", "damaged", "is damaged"),
    ],
)
def test_a_damaged_adapter_is_refused(tiny: Tiny, tmp_path: Path, file: str, content: str, said: str) -> None:
    folder = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=said):
        load_model(str(tiny.model), folder)


def test_an_adapter_of_another_model_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 5}))
    with pytest.raises(ModelError, match=r"12 tensors \(.*\) of another shape, the first"):
        load_model(str(tiny.model), folder)


PROMPT_LEARNING = {
    "PROMPT_TUNING": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "PREFIX_TUNING": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "P_TUNING": peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("kind", PROMPT_LEARNING)
def test_an_adapter_that_adds_virtual_tokens_is_refused_by_its_kind(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny.model)
    peft.get_peft_model(network, PROMPT_LEARNING[kind]).save_pretrained(str(tmp_path))
    with pytest.raises(UnsupportedError, match=f"of the kind {kind}, which adds virtual tokens .*such as LoRA"):
        load_model(str(tiny.model), tmp_path, device="cpu")


def saved(folder: Path, network: PreTrainedModel) -> str:
    """A model folder with the tiny tokenizer."""
    network.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


SIZES: dict[str, Any] = {"vocab_size": 300, "d_model": 16, "num_layers": 1}
ENCODER_DECODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "T5": lambda: T5ForConditionalGeneration(T5Config(**SIZES, d_kv=4, d_ff=32, num_heads=4)),
    "Bart": lambda: BartForConditionalGeneration(BartConfig(**SIZES, encoder_layers=1, decoder_layers=1)),
}


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_an_encoder_decoder_is_refused_as_such(tmp_path: Path, kind: str) -> None:
    folder = saved(tmp_path, ENCODER_DECODERS[kind]())
    with pytest.raises(UnsupportedError, match=f"{kind}.*, an encoder-decoder; give a decoder-only language model"):
        load_model(folder, device="cpu")


def test_a_model_that_cannot_leave_out_logits_is_refused_by_its_kind(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: LlamaForCausalLM, input_ids: torch.Tensor) -> None: ...

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    with pytest.raises(UnsupportedError, match="is a LlamaForCausalLM, which can't give logits for some positions"):
        load_model(str(tiny.model), device="cpu")


def quantised(tiny: Tiny, folder: Path, method: str, **more: Any) -> Path:
    """The tiny model with a config that says it is quantised; its weights are not."""
    shutil.copytree(tiny.model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, **more}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_model_quantised_by_something_else_is_refused_naming_it(tiny: Tiny, tmp_path: Path, method: str) -> None:
    folder = quantised(tiny, tmp_path / "model", method, bits=4)
    for adapter in (None, tiny.adapter):
        with pytest.raises(UnsupportedError, match=f"is quantised by {method}; give the unquantised model and --pre"):
            load_model(str(folder), adapter, device="cpu")


def test_all_parameters_of_a_quantised_model_are_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    true = loading._base

    def four_bit(*arguments: Any) -> Any:
        network, answers = true(*arguments)
        network.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        return network, answers

    monkeypatch.setattr(loading, "_base", four_bit)
    with pytest.raises(ModelError, match="its own weights have no gradients; give the --adapter trained on it"):
        load_model(str(tiny.model), device="cpu")
    assert load_model(str(tiny.model), tiny.adapter, device="cpu").fingerprint.precision == "4bit"


@pytest.mark.parametrize("missing", ["bitsandbytes", "accelerate"])
def test_four_bits_without_their_libraries_are_refused_with_what_to_install(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=r"need bitsandbytes and accelerate; install rapidin-explorer\[qlora\]"):
        load_model(str(tiny.model), tiny.adapter, device="cpu", precision="4bit")


def test_a_device_this_machine_lacks_is_refused(tiny: Tiny) -> None:
    for device in ("toaster", "cuda:99"):
        with pytest.raises(ModelError, match=f"{device}"):
            load_model(str(tiny.model), device=device)


@pytest.mark.parametrize(
    "record",
    [
        *("", "[]", "{}", '{"epochs": "many", "learning_rate": 1}', '{"epochs": null}', "[" * 100_000),
        *('{"epochs": NaN, "learning_rate": 1}', '{"epochs": 1, "learning_rate": 0}'),
        '{"epochs": 1%s, "learning_rate": 1}' % ("0" * 400),
        '{"epochs": 1, "epochs": 2, "learning_rate": 1}',
        '{"epochs": 1, "learning_rate": 1, "checkpoints": [{"name": "1", "epochs": -1, "learning_rate": 1}]}',
    ],
)
def test_a_damaged_training_record_is_refused(tiny: Tiny, tmp_path: Path, record: str) -> None:
    folder = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    (folder / "training.json").write_text(record)
    with pytest.raises(ModelError, match=r"training\.json is no training record .*; delete it to assume"):
        load_model(str(tiny.model), folder)


def test_without_a_training_record_the_scale_is_one(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    (folder / "training.json").unlink()
    training = load_model(str(tiny.model), folder).training
    assert training.scale == 1 and not training.known


def test_only_the_adapter_is_trainable_and_everything_without_one(tiny: Tiny) -> None:
    adapted, whole = load_model(str(tiny.model), tiny.adapter), load_model(str(tiny.model))
    assert all("lora_" in name for name in adapted.trainable) and len(adapted.trainable) == 2 * 3 * 2
    assert sum(p.numel() for p in whole.trainable.values()) == sum(p.numel() for p in whole.network.parameters())
    assert adapted.fingerprint.parameters == sum(p.numel() for p in adapted.trainable.values())


def test_the_fingerprint_changes_with_each_thing_it_names(tiny: Tiny, tmp_path: Path) -> None:
    def changed(**edits: Any) -> set[str]:
        folder = Path(shutil.copytree(tiny.model, tmp_path / "model", dirs_exist_ok=True))
        adapter = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter", dirs_exist_ok=True))
        for name, text in edits.get("append", {}).items():
            with (tmp_path / name).open("a", encoding="utf-8") as handle:
                handle.write(text)
        precision = edits.get("precision", "auto")
        model = load_model(str(folder), adapter, edits.get("template", "auto"), device="cpu", precision=precision)
        return {
            name
            for name in ("base", "adapter", "tokenizer", "template", "precision", "layout")
            if getattr(model.fingerprint, name) != getattr(original, name)
        }

    original = load_model(str(tiny.model), tiny.adapter, device="cpu").fingerprint
    assert changed() == set(), "a copy of the same files must have the same fingerprint"
    assert changed(template="alpaca") == {"template"}
    assert changed(precision="float32") == set(), "the weights are stored so"
    assert changed(precision="bfloat16") == {"precision"}
    assert changed(append={"model/tokenizer_config.json": "\n"}) == {"tokenizer"}
    assert changed(append={"adapter/adapter_config.json": "\n"}) == {"adapter"}
