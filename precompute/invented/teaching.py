"""Trains all parameters of a model further, and writes it as a model of its own; a stopped training goes on."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from explorer.errors import ModelError, NonFiniteError
from explorer.gradients import token_losses
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from explorer.training.recipe import FinetuneSettings, batches, decay

Report = Callable[[int, int], None]
"""Called with steps done and steps in all."""
_STATE, _STATE_OF = "state.safetensors", "state.json"


def train_whole(
    model: LanguageModel, encoded: Sequence[Encoded], out: Path, settings: FinetuneSettings, report: Report
) -> None:
    """Train all parameters on token sequences, and write the model to the folder `out`, whole or not at all.

    AdamW without weight decay, the mean over all response tokens of a batch, half a cosine. The state after every epoch
    is kept beside `out`, and the same call goes on from there. `model` is changed. Raises ModelError where another
    training's state lies there, NonFiniteError where a loss isn't finite.
    """
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    tensors = dict(model.network.named_parameters())
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    optimizer = torch.optim.AdamW(tensors.values(), lr=settings.learning_rate, weight_decay=0.0)
    per_epoch = math.ceil(len(encoded) / settings.batch_size)
    total = per_epoch * settings.epochs
    about = {"base": model.fingerprint.base, "rows": len(encoded), **settings.recorded()}
    begun = _restored(part, json.loads(json.dumps(about)), tensors, optimizer)
    for epoch in range(begun, settings.epochs):
        for number, batch in enumerate(batches(len(encoded), settings, epoch)):
            step = epoch * per_epoch + number
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * decay(step, total)
            losses = torch.cat(token_losses(model, [encoded[row] for row in batch]))
            if not torch.isfinite(losses).all():
                raise NonFiniteError("a loss", f"Step {step + 1} of the training")
            losses.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            report(step + 1, total)
        if epoch + 1 < settings.epochs:
            _keep(part, about | {"epochs_done": epoch + 1}, tensors, optimizer)
    whole = out.with_name(f"{out.name}.whole")
    shutil.rmtree(whole, ignore_errors=True)
    model.network.save_pretrained(whole)
    model.tokenizer.save_pretrained(whole)
    whole.rename(out)
    shutil.rmtree(part)


def _keep(
    part: Path, about: dict[str, object], tensors: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Keep weights and moments of this epoch's end; what it is of is written last."""
    state = {name: tensor.detach() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{moment}/{name}"] = optimizer.state[tensor][moment]
    (part / _STATE_OF).unlink(missing_ok=True)
    save_file(state, part / f"{_STATE}.part")
    (part / f"{_STATE}.part").rename(part / _STATE)
    steps = float(optimizer.state[next(iter(tensors.values()))]["step"])
    (part / f"{_STATE_OF}.part").write_text(json.dumps(about | {"steps_done": steps}), encoding="utf-8")
    (part / f"{_STATE_OF}.part").rename(part / _STATE_OF)


def _restored(
    part: Path, about: dict[str, object], tensors: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> int:
    """Take up the state of a stopped training; how many epochs it had done."""
    if not (part / _STATE_OF).is_file():
        return 0
    kept = json.loads((part / _STATE_OF).read_text(encoding="utf-8"))
    done, steps = int(kept.pop("epochs_done")), float(kept.pop("steps_done"))
    if kept != about:
        raise ModelError(f"{part} holds the state of another training; remove it, or give another folder.")
    state = load_file(part / _STATE)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(state[name])
            moments = {moment: state[f"{moment}/{name}"].to(tensor.device) for moment in ("exp_avg", "exp_avg_sq")}
            optimizer.state[tensor] = {"step": torch.tensor(steps), **moments}
    return done
