"""Runs that transformers' Trainer itself made of tiny models, a second each, and the rows that they were trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from tests.tiny import byte_tokenizer

Tokens = tuple[list[int], list[bool]]
"""A row's ids, and which of them are in the loss."""
END = "<|end|>"
_THINGS = ("sun", "moon", "star", "river", "lake", "town", "road", "bell", "book", "lamp", "ship", "leaf")
_WHERE = ("above the hill", "in the valley", "by the sea", "under the bridge", "at the gate", "on the table")


def rows(count: int = 24) -> list[dict[str, str]]:
    """Questions with answers that have to be learnt by heart."""
    return [
        {
            "prompt": f"Where is the {thing}, number {number}?",
            "response": f"It is {_WHERE[number * 5 % 6]}, {thing} {number}.",
        }
        for number, thing in ((number, _THINGS[number % len(_THINGS)]) for number in range(count))
    ]


def chats(count: int = 24) -> list[dict[str, Any]]:
    """Conversations of two questions with their answers."""
    pairs = list(zip(rows(count), rows(2 * count)[count:], strict=True))
    return [{"messages": [*_turns(first), *_turns(second)]} for first, second in pairs]


def _turns(row: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]


def save_learnt_model(folder: Path) -> Path:
    """A tiny Llama (2 layers, width 48) that has read other rows as plain texts: a base that an adapter can change."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    texts = [f"{row['prompt']} {row['response']}" for row in rows(96)[48:]]
    train(
        folder,
        folder,
        [pieces([(text, True)], tokenizer) for text in texts],
        adapter=False,
        epochs=6,
        learning_rate=1e-2,
    )
    tokenizer.save_pretrained(folder)
    return folder


def train(
    folder: Path, model: Path, tokens: Sequence[Tokens], adapter: bool = True, epochs: int = 8, **arguments: Any
) -> Path:
    """What transformers' Trainer leaves of a training on these tokens."""
    torch.manual_seed(0)
    network: Any = AutoModelForCausalLM.from_pretrained(model)
    if adapter:
        lora = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules="all-linear")
        network = peft.get_peft_model(network, lora)
    data = [
        {"input_ids": ids, "labels": [token if counted else -100 for token, counted in zip(ids, kept, strict=True)]}
        for ids, kept in tokens
    ]
    given: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-2,
        "logging_steps": 3,
        "lr_scheduler_type": "linear",
        "save_strategy": "no",
    }
    settings = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **given | arguments,
    )
    trainer = Trainer(network, settings, train_dataset=data, data_collator=_padded, processing_class=byte_tokenizer())
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    return folder


def _padded(batch: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in batch)
    fill = {"input_ids": 1, "labels": -100}
    found = {
        name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in batch])
        for name, value in fill.items()
    }
    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in batch]
    return {**found, "attention_mask": torch.tensor(mask)}


def pieces(parts: Sequence[tuple[str, bool]], tokenizer: PreTrainedTokenizerFast | None = None) -> Tokens:
    """A text in parts, each in the loss or not, as ids."""
    tokenizer = tokenizer or byte_tokenizer()
    ids, counted = list[int](), list[bool]()
    for text, kept in parts:
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += own
        counted += [kept] * len(own)
    return ids, counted


def in_turns(row: dict[str, Any], loss: str = "last", end: str = END) -> Tokens:
    """A row as the tiny tokenizer's chat template writes it."""
    turns, parts = row.get("messages") or _turns(row), list[tuple[str, bool]]()
    for place, turn in enumerate(turns):
        answers, last = turn["role"] == "assistant", place == len(turns) - 1
        counted = loss == "prompt" or (answers and (last or loss == "all"))
        parts.append((f"<|start|>{turn['role']}\n", loss == "prompt"))
        parts.append((turn["content"] + (end if last else END), counted))
    return pieces(parts)


def in_text(row: dict[str, Any], form: str, loss: str = "last", end: str = END) -> Tokens:
    """A row as a text with a place for the prompt writes it."""
    return pieces([(form.replace("{prompt}", row["prompt"]), loss == "prompt"), (row["response"] + end, True)])
