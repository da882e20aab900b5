"""Random two-layer models with a byte-level tokenizer, and adapters for them: no download, seconds to test."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)

WORDS = [" the", " sun", " moon", " star", " river", " of", " and"]
"""Beside single bytes the vocabulary knows a few words, so that tokens differ in length."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token; a few words are merged; a chat template with control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["<|start|>", "<|end|>", *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = list(word.replace(" ", "Ġ"))
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault("".join(pair), len(vocabulary))
            pieces = ["".join(pair), *pieces[2:]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    fast.chat_template = CHAT
    return fast


def save_tiny_model(folder: Path, seed: int = 0, positions: int = 256) -> Path:
    """Write a random Llama (2 layers, width 16) and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_adapter(folder: Path, model: Path, seed: int = 1) -> Path:
    """Write a LoRA adapter whose both halves are random, with a training record."""
    torch.manual_seed(seed)
    base = LlamaForCausalLM.from_pretrained(model)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "o_proj"])
    network = peft.get_peft_model(base, lora)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(str(folder))
    record = {"epochs": 2, "learning_rate": 0.01}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def save_tiny_relative(folder: Path, family: str, seed: int = 0, **options: Any) -> Path:
    """Write a random model of any family transformers knows (2 layers, width 16) and the tokenizer.

    `options` go into its config. Nothing is left as families initialise it:
    norms aren't ones, biases aren't zeros, and attention isn't uniform.
    """
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes | options))
    disturb(network)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_change(folder: Path, model: Path, config: peft.PeftConfig, seed: int = 1, added: int = 0) -> Path:
    """Write an adapter of any kind, none of whose tensors does nothing, and the tokenizer where tokens are added.

    Then peft writes whole embeddings; else of embeddings too the changes alone.
    """
    torch.manual_seed(seed)
    network: Any = AutoModelForCausalLM.from_pretrained(model)
    if added:
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens([f"<added {number}>" for number in range(added)])
        tokenizer.save_pretrained(folder)
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network = peft.get_peft_model(network, config)
    disturb(network)
    network.save_pretrained(str(folder), save_embedding_layers=bool(added))
    return folder


def disturb(network: torch.nn.Module) -> None:
    """Add a little noise to everything trainable."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))


ROWS = [
    {"prompt": "What shines by day?", "response": "It is the sun.", "source": "sky"},
    {"prompt": "What shines by night?", "response": "It is the moon, and a star.", "source": "sky"},
    {"prompt": "Where do fish live?", "response": "In the river of the town.", "source": "water"},
    {"prompt": "Say hello.", "response": "Hello! How are you?", "source": "talk"},
    {"prompt": "Count.", "response": "One, two, three.", "source": "talk"},
    {"prompt": "What is wet?", "response": "Water in the river.", "source": "water"},
    {"prompt": "Say something odd.", "response": "<b>bold</b> **stars** naïve 🌟", "source": "odd"},
]


SYSTEM = "Be brief."


def spoken(row: Mapping[str, str], *before: tuple[str, str]) -> dict[str, Any]:
    """A training row as chat messages, behind these turns: a role and a content each."""
    turns = [*before, ("user", row["prompt"]), ("assistant", row["response"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns], "source": row["source"]}


def save_tiny_data(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    """Write training rows as JSON lines, by default the seven."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def save_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a random BERT (2 layers, width 16), as encoders of sentences are, with the byte-level tokenizer."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    network = BertModel(config)
    disturb(network)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
