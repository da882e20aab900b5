"""Trains a LoRA adapter on the data, by a recipe, and keeps beside it how it was trained."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from explorer.errors import DataError, ModelError, NonFiniteError
from explorer.gradients import mixed_precision
from explorer.gradients.packed import losses_of
from explorer.model.adapter import quiet_peft
from explorer.model.checkpoints import CHECKPOINTS, FINAL, SECOND_MOMENTS, TRAINING_RECORD
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded, Example
from explorer.training.recipe import OPTIMIZER, FinetuneSettings, batches, decay, lora_of
from precompute.data import data_hash, readable

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
    if encoded is None:
        examples, encoded = readable(model, examples)
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
    network, losses, kept = train(model, encoded, settings, report, part)
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
        "optimizer": OPTIMIZER,
        "epoch_losses": losses,
    }
    (part / TRAINING_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rmdir()
    part.rename(out)
    network.unload()


def train(
    model: LanguageModel, encoded: Sequence[Encoded], settings: FinetuneSettings, report: Report, folder: Path | None
) -> tuple[Any, list[float], list[dict[str, float | str]]]:
    """Put an adapter on a base and run all steps.

    Returns the network as peft wraps it, the mean loss per response token of every epoch, and the checkpoints; they and
    AdamW's second moments are kept in `folder`, if there is one. `model` computes with the adapter until the network's
    `unload` takes it off again. Raises ModelError when a target layer doesn't exist, UnsupportedError for mixed
    precision on a base that isn't in float32.
    """
    if not encoded:
        raise DataError("There is nothing to train on.")
    import peft

    torch.manual_seed(settings.seed)
    try:
        with quiet_peft():
            network = peft.get_peft_model(model.network, lora_of(settings))
    except ValueError as problem:
        raise ModelError(f"LoRA can't be put on {', '.join(settings.targets)}: {problem}") from None
    tensors = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(tensors, lr=settings.learning_rate, weight_decay=0.0)
    per_epoch = math.ceil(len(encoded) / settings.batch_size)
    total = per_epoch * settings.epochs
    moments = _moments(settings, per_epoch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: decay(step, total))
    first = batches(len(encoded), settings, 0)[0]
    losses_in = losses_of(model, [encoded[row] for row in first], settings.mixed_precision)
    # By the recipe no activations are dropped, though a base like GPT-2 has modules for it.
    network.eval()
    step, epoch_losses, rates, kept = 0, [], list[float](), list[dict[str, float | str]]()
    for epoch in range(settings.epochs):
        spent, tokens = 0.0, 0
        for batch in batches(len(encoded), settings, epoch):
            with mixed_precision(network, settings.mixed_precision):
                losses = torch.cat(losses_in(model, [encoded[row] for row in batch], None))
            if not torch.isfinite(losses).all():
                raise NonFiniteError("a loss", f"Step {step + 1} of the fine-tuning")
            losses.mean().backward()
            rates.append(float(schedule.get_last_lr()[0]))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            spent, tokens, step = spent + float(losses.detach().sum()), tokens + len(losses), step + 1
            if step in moments:
                name = FINAL if step == total else str(len(kept) + 1)
                kept.append({"name": name, "epochs": len(rates) / per_epoch, "learning_rate": sum(rates) / len(rates)})
                rates = []
                if folder is not None:
                    _keep(network, optimizer, folder, name)
            report(step, total, float(losses.detach().mean()))
        epoch_losses.append(spent / tokens)
    return network, epoch_losses, kept


def _moments(settings: FinetuneSettings, per_epoch: int) -> set[int]:
    """After which steps a checkpoint is kept; the last is always one of them."""
    total = per_epoch * settings.epochs
    if isinstance(settings.checkpoints, int):
        return {math.ceil(number * total / settings.checkpoints) for number in range(1, settings.checkpoints + 1)}
    return {max(1, round(moment * per_epoch)) for moment in settings.checkpoints} | {total}


def _keep(network: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path, name: str) -> None:
    """Keep the trainable tensors of this moment, and the second moments v̂ that the next step would begin with.

    Tensors in float16: gradients there hardly change, and nothing is generated with them; those of the last moment are
    the adapter itself and aren't written twice. Second moments in bfloat16: they are far below what float16 can hold,
    and only their roots are needed.
    """
    trained = {own: tensor for own, tensor in network.named_parameters() if tensor.requires_grad}
    kept = {SECOND_MOMENTS: {own: _second_moment(optimizer, tensor) for own, tensor in trained.items()}}
    if name != FINAL:
        kept[CHECKPOINTS] = {own: tensor.detach().half().contiguous() for own, tensor in trained.items()}
    for where, tensors in kept.items():
        (folder / where).mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / where / f"{name}.safetensors")


def _second_moment(optimizer: torch.optim.Optimizer, tensor: torch.Tensor) -> torch.Tensor:
    state, beta = optimizer.state[tensor], optimizer.param_groups[0]["betas"][1]
    moment: torch.Tensor = state["exp_avg_sq"] / (1 - beta ** float(state["step"]))
    return moment.bfloat16().contiguous()


def _settle_config(config: Path, name: str) -> None:
    """Take chance and place out of the adapter's config: peft writes a set's order and the model's path."""
    kept = json.loads(config.read_text(encoding="utf-8"))
    kept["base_model_name_or_path"] = name
    kept["target_modules"] = sorted(kept["target_modules"])
    config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
