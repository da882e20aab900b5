"""A recorded training once more, step by step, from its recipe: the same adapter at the beginning, the same order.

Nothing of the model is changed: the trained tensors of the moment stand in for the model's own. They are one vector
(D), in the order of the network's parameters; a state is (3, D), see `adamw`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isqrt

import torch

from explorer.errors import ModelError, NonFiniteError
from explorer.gradients import mixed_precision
from explorer.gradients.packed import losses_of
from explorer.model.adapter import quiet_peft
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded
from explorer.training.adamw import advanced
from explorer.training.recipe import FinetuneSettings, batches, decay, lora_of

Report = Callable[[str, int, int], None]

_NEW = "from_the_recipe"
"""What a new adapter is called while it is beside the model's own."""


class Replay:
    """The steps of one training."""

    def __init__(self, model: LanguageModel, recipe: FinetuneSettings, rows: Sequence[Encoded]):
        """`model` has the adapter that the training ended with."""
        self._model, self._recipe, self.rows = model, recipe, rows
        self.batches = [batch for epoch in range(recipe.epochs) for batch in batches(len(rows), recipe, epoch)]
        self._losses_in = losses_of(model, [rows[row] for row in self.batches[0]], recipe.mixed_precision)
        trained = {**model.trainable, **model.held}
        self._shapes = {name: tensor.shape for name, tensor in model.network.named_parameters() if name in trained}
        self.end = self._flat(trained)
        """What the training ended with (D)."""

    def beginning(self) -> torch.Tensor:
        """The state before the first step. Raises ModelError where the recipe makes another adapter."""
        theta = self._flat(new_adapter(self._model, self._recipe))
        return torch.stack([theta, torch.zeros_like(theta), torch.zeros_like(theta)])

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self._recipe.learning_rate * decay(step, len(self.batches))

    def loss(self, theta: torch.Tensor, step: int, weights: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of a step's batch, differentiable: Σ_k w_k Σ_i L(s_k^i) over the number of its response tokens."""
        batch = [self.rows[row] for row in self.batches[step]]
        with mixed_precision(self._model.network, self._recipe.mixed_precision):
            losses = self._losses_in(self._model, batch, self.shaped(theta))
        if weights is not None:
            losses = [each * weight for each, weight in zip(losses, weights, strict=True)]
        return torch.cat(losses).mean()

    def after(self, state: torch.Tensor, step: int) -> torch.Tensor:
        """The state after a step, counted from 0. Raises NonFiniteError."""
        theta = state[0].detach().requires_grad_()
        loss = self.loss(theta, step)
        if not torch.isfinite(loss):
            raise NonFiniteError("a loss", f"Step {step + 1} of the training")
        (gradient,) = torch.autograd.grad(loss, theta)
        return advanced(state, gradient, self.rate(step), step + 1)

    def shaped(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """The trained tensors by name, from one vector (D)."""
        parts = theta.split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def departure(self, theta: torch.Tensor) -> float:
        """How far a replayed end lies from the adapter, as a share of what the training moved."""
        start = self.beginning()[0]
        return float((theta - self.end).norm() / (self.end - start).norm())

    def _flat(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([tensors[name].detach().reshape(-1) for name in self._shapes])


class Trail:
    """The states of a training up to some step; one in √steps is held, and those between are made again from it."""

    def __init__(self, replay: Replay, steps: int, report: Report):
        """Takes so many steps of the training."""
        self.replay, self._steps = replay, steps
        self.stride = isqrt(len(replay.batches) - 1) + 1
        self._held: list[torch.Tensor] = []
        self.end = replay.beginning()
        """The state after them."""
        for step in range(steps):
            if step % self.stride == 0:
                self._held.append(self.end)
            self.end = replay.after(self.end, step)
            report("training, from the beginning", step + 1, steps)

    def stretches(self) -> Iterator[int]:
        """The steps at which stretches between held states begin, the last one first."""
        return iter(range(0, self._steps, self.stride)[::-1])

    def stretch(self, begin: int) -> Iterator[torch.Tensor]:
        """The states from the one before step `begin` to the one after the stretch's last step."""
        state = self._held[begin // self.stride]
        yield state
        for step in range(begin, min(begin + self.stride, self._steps)):
            state = self.replay.after(state, step)
            yield state


def new_adapter(model: LanguageModel, recipe: FinetuneSettings) -> dict[str, torch.Tensor]:
    """The adapter that a recipe's training begins with, by the names of the model's own.

    Raises ModelError where the model's adapter is another kind of adapter.
    """
    network = model.network
    own = network.active_adapter
    with _unchanged(network), torch.random.fork_rng([]), quiet_peft():
        torch.manual_seed(recipe.seed)
        network.add_adapter(_NEW, lora_of(recipe))
        try:
            found = {
                name.replace(f".{_NEW}.", f".{own}."): tensor.detach().clone()
                for name, tensor in network.named_parameters()
                if f".{_NEW}." in name
            }
        finally:
            network.delete_adapter(_NEW)
    trained = {**model.trainable, **model.held}
    if {name: tensor.shape for name, tensor in found.items()} != {name: t.shape for name, t in trained.items()}:
        raise ModelError(
            f"The adapter {model.adapter} isn't of the form that its training record says: rank {recipe.rank}, on "
            f"{', '.join(recipe.targets)}."
        )
    return found


@contextmanager
def _unchanged(network: torch.nn.Module) -> Iterator[None]:
    """Within it peft may switch which tensors are differentiable; behind it they are as before."""
    kept = [(tensor, tensor.requires_grad) for tensor in network.parameters()]
    try:
        yield
    finally:
        for tensor, differentiable in kept:
            tensor.requires_grad_(differentiable)
