"""Trains a LoRA adapter on the data and keeps beside it how it was trained.

The loss is Eq. 1 of the paper: the mean over all response tokens of a batch.
AdamW without weight decay, cosine decay to zero, no dropout.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from explorer.errors import DataError, ModelError, NonFiniteError
from explorer.gradients import mixed_precision, token_losses
from explorer.model.adapter import quiet_peft
from explorer.model.checkpoints import CHECKPOINTS, FINAL, TRAINING_RECORD
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded, Example
from precompute.data import data_hash, readable


@dataclass(frozen=True)
class FinetuneSettings:
    """What decides the adapter, besides model and data."""

    rank: int = 16
    """Rank of every LoRA pair."""
    alpha: int = 32
    """LoRA scale is alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the linear layers that get a pair."""
    epochs: int = 2
    """Passes over the data."""
    learning_rate: float = 2e-3
    """Initial learning rate; it decays to zero along half a cosine."""
    batch_size: int = 4
    """Examples a step."""
    seed: int = 0
    """Decides the initial adapter and the order of the examples."""
    checkpoints: int | tuple[float, ...] = 1
    """How many moments of the training are kept, evenly spaced, or after how many epochs each; the last is the adapter
    itself."""
    mixed_precision: bool = False
    """Whether products with frozen weights are taken in bfloat16; see `explorer.gradients.mixed`."""

    def recorded(self) -> dict[str, Any]:
        """As a record keeps them; mixed precision only where it is used, as in records from before there was any."""
        kept = asdict(self)
        if not self.mixed_precision:
            del kept["mixed_precision"]
        return kept


Report = Callable[[int, int, float], None]
"""Called with steps done, steps in all, and the loss of the last step."""


def finetune(
    model: LanguageModel,
    examples: Sequence[Example],
    out: Path,
    settings: FinetuneSettings,
    report: Report,
    encoded: Sequence[Encoded] | None = None,
) -> None:
    """Train an adapter on `examples` and write it to the folder `out`, whole or not at all.

    `model` is a base without an adapter, and that again afterwards. `encoded` are the examples' token ids, where they
    are known. Raises ModelError when a target layer doesn't exist, `out` is taken or a checkpoint lies outside the
    training, DataError for rows it can't read.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ModelError(f"{out} isn't an empty folder; give another folder or remove it.")
    if isinstance(settings.checkpoints, tuple) and not all(0 < m <= settings.epochs for m in settings.checkpoints):
        raise ModelError(
            f"Checkpoints can be kept after up to {settings.epochs} epochs of this training, and not at 0."
        )
    encoded = readable(model, examples)[1] if encoded is None else encoded
    train_into(model, encoded, out, settings, report, {"data_sha256": data_hash(examples), "examples": len(examples)})


def train_into(
    model: LanguageModel,
    encoded: Sequence[Encoded],
    out: Path,
    settings: FinetuneSettings,
    report: Report,
    data: Mapping[str, Any],
) -> None:
    """Train an adapter on token sequences and write it to the folder `out`, whole or not at all.

    `data` is what the record says of them. `model` is a base without an adapter, and that again afterwards.
    """
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    network, losses, kept = train(model, encoded, settings, report, part / CHECKPOINTS)
    network.save_pretrained(str(part))
    _settle_config(part / "adapter_config.json", model.name)
    (part / "README.md").unlink(missing_ok=True)
    record = {
        **settings.recorded(),
        "checkpoints": kept,
        "base_model": model.name,
        "base_sha256": model.fingerprint.base,
        "template": model.template.name,
        **data,
        "optimizer": "AdamW, no weight decay, cosine decay to zero",
        "epoch_losses": losses,
    }
    (part / TRAINING_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rmdir()
    part.rename(out)
    network.unload()


def train(
    model: LanguageModel, encoded: Sequence[Encoded], settings: FinetuneSettings, report: Report, folder: Path
) -> tuple[Any, list[float], list[dict[str, float | str]]]:
    """Put an adapter on a base and run all steps.

    Returns the network as peft wraps it, the mean loss per response token of every epoch, and the checkpoints that are
    kept in `folder`. `model` computes with the adapter until the network's `unload` takes it off again. Raises
    ModelError when a target layer doesn't exist, UnsupportedError for mixed precision on a base that isn't in float32.
    """
    if not encoded:
        raise DataError("There is nothing to train on.")
    import peft

    torch.manual_seed(settings.seed)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM", r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets)
    )
    try:
        with quiet_peft():
            network = peft.get_peft_model(model.network, lora)
    except ValueError as problem:
        raise ModelError(f"LoRA can't be put on {', '.join(settings.targets)}: {problem}") from None
    tensors = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(tensors, lr=settings.learning_rate, weight_decay=0.0)
    per_epoch = math.ceil(len(encoded) / settings.batch_size)
    total = per_epoch * settings.epochs
    moments = _moments(settings, per_epoch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
    )
    network.train()
    step, epoch_losses, rates, kept = 0, [], list[float](), list[dict[str, float | str]]()
    for epoch in range(settings.epochs):
        spent, tokens = 0.0, 0
        for batch in _batches(encoded, settings, epoch):
            with mixed_precision(network, settings.mixed_precision):
                losses = torch.cat(token_losses(model, batch))
            if not torch.isfinite(losses).all():
                raise NonFiniteError("a loss", f"Step {step + 1} of the fine-tuning")
            losses.mean().backward()
            rates.append(float(schedule.get_last_lr()[0]))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            spent, tokens, step = spent + float(losses.detach().sum()), tokens + len(losses), step + 1
            if step in moments:
                kept.append(_keep(network, folder, len(kept) + 1, step == total, rates, per_epoch))
                rates = []
            report(step, total, float(losses.detach().mean()))
        epoch_losses.append(spent / tokens)
    network.eval()
    return network, epoch_losses, kept


def _moments(settings: FinetuneSettings, per_epoch: int) -> set[int]:
    """After which steps a checkpoint is kept; the last is always one of them."""
    total = per_epoch * settings.epochs
    if isinstance(settings.checkpoints, int):
        return {math.ceil(number * total / settings.checkpoints) for number in range(1, settings.checkpoints + 1)}
    return {max(1, round(moment * per_epoch)) for moment in settings.checkpoints} | {total}


def _keep(
    network: torch.nn.Module, folder: Path, number: int, last: bool, rates: Sequence[float], per_epoch: int
) -> dict[str, float | str]:
    """Keep the trainable tensors of this moment; the record says how long and how fast was trained up to it.

    In float16: gradients there hardly change, and nothing is generated with
    them. The last moment is the adapter itself and isn't written twice.
    """
    name = FINAL if last else str(number)
    if not last:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {n: p.detach().half().contiguous() for n, p in network.named_parameters() if p.requires_grad}
        save_file(tensors, folder / f"{name}.safetensors")
    return {"name": name, "epochs": len(rates) / per_epoch, "learning_rate": sum(rates) / len(rates)}


def _batches(encoded: Sequence[Encoded], settings: FinetuneSettings, epoch: int) -> Iterator[list[Encoded]]:
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    order = torch.randperm(len(encoded), generator=generator).tolist()
    for start in range(0, len(order), settings.batch_size):
        yield [encoded[i] for i in order[start : start + settings.batch_size]]


def _settle_config(config: Path, name: str) -> None:
    """Take chance and place out of the adapter's config: peft writes a set's order and the model's path."""
    kept = json.loads(config.read_text(encoding="utf-8"))
    kept["base_model_name_or_path"] = name
    kept["target_modules"] = sorted(kept["target_modules"])
    config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
