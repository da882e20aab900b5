"""The training once more, and backwards: beside `torch.optim`, beside finetune, and beside two whole trainings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from explorer import gradients
from explorer.errors import ModelError
from explorer.gradients import selected_loss, token_losses
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.training import adamw
from explorer.training.backwards import Halfway, begin, by_weights
from explorer.training.recipe import FinetuneSettings
from explorer.training.replay import Replay, Trail
from precompute import finetune as training
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.conftest import Tiny
from tests.tiny import save_tiny_relative

RECIPES = {
    "batches of three, the last of one": FinetuneSettings(
        rank=2, alpha=4, targets=("q_proj", "o_proj"), epochs=2, learning_rate=0.02, batch_size=3, seed=1
    ),
    "many small steps": FinetuneSettings(
        rank=3, alpha=3, targets=("v_proj",), epochs=3, learning_rate=0.005, batch_size=2, seed=4
    ),
}
MIXED = "in mixed precision"
TRAINED = RECIPES | {MIXED: replace(RECIPES["many small steps"], mixed_precision=True)}
Made = Callable[[str, str], tuple[LanguageModel, FinetuneSettings, list[Encoded]]]


def unheard(stage: str, done: int, total: int) -> None:
    """Nobody is told."""


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model that was trained by a recipe, in a precision; the recipe; the rows."""
    folder = tmp_path_factory.mktemp("trained")
    for name, recipe in TRAINED.items():
        base = load_model(str(tiny.model), device="cpu")
        finetune(base, read_examples(tiny.data), folder / name, recipe, lambda *_: None)

    def of(name: str, precision: str) -> tuple[LanguageModel, FinetuneSettings, list[Encoded]]:
        model = load_model(str(tiny.model), folder / name, device="cpu", precision=precision)
        rows = [model.encode(example.messages, example.response) for example in read_examples(tiny.data)]
        return model, TRAINED[name], rows

    return of


def test_steps_are_those_of_the_optimiser() -> None:
    random = torch.Generator().manual_seed(0)
    theta = torch.randn(50, generator=random)
    state = torch.stack([theta, torch.zeros(50), torch.zeros(50)])
    parameter = torch.nn.Parameter(theta.clone())
    optimiser = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0)
    for number in range(1, 6):
        gradient = torch.randn(50, generator=random)
        state = adamw.advanced(state, gradient, 0.1, number)
        parameter.grad = gradient
        optimiser.step()
        assert torch.equal(state[0], parameter.detach())
        assert torch.equal(state[2], optimiser.state[parameter]["exp_avg_sq"])


def test_a_step_is_gone_back_through_as_autograd_goes() -> None:
    random = torch.Generator().manual_seed(0)
    state = torch.randn(3, 20, generator=random, dtype=torch.float64)
    state[2] = state[2].abs()
    gradient, adjoint = torch.randn(20, generator=random).double(), torch.randn(3, 20, generator=random).double()
    (by_state, by_gradient) = torch.autograd.functional.vjp(
        lambda s, g: adamw.advanced(s, g, 0.1, 3), (state, gradient), adjoint
    )[1]
    found = adamw.pulled_back(adjoint, adamw.advanced(state, gradient, 0.1, 3), gradient, 0.1, 3)
    assert torch.allclose(found[0], by_state, rtol=1e-12) and torch.allclose(found[1], by_gradient, rtol=1e-12)
    # A tensor that has no gradient yet, such as LoRA's A in the first step.
    zeros = torch.zeros(3, 20).double()
    assert all(torch.isfinite(each).all() for each in adamw.pulled_back(adjoint, zeros, zeros[0], 0.1, 1))


@pytest.mark.parametrize("name", TRAINED)
def test_the_training_once_more_ends_in_the_adapter(made: Made, name: str) -> None:
    model, recipe, rows = made(name, "auto")
    flags = {own: tensor.requires_grad for own, tensor in model.network.named_parameters()}
    random = torch.random.get_rng_state()
    replay = Replay(model, recipe, rows)
    trail = Trail(replay, len(replay.batches), unheard)
    assert replay.departure(trail.end[0]) < 1e-6
    assert replay.departure(replay.beginning()[0]) == pytest.approx(1)
    assert {own: tensor.requires_grad for own, tensor in model.network.named_parameters()} == flags
    assert model.network.active_adapters == ["default"] and torch.equal(torch.random.get_rng_state(), random)
    for first in trail.stretches():
        states = list(trail.stretch(first))
        assert len(states) <= trail.stride + 1
        last = states[-1]
    assert torch.equal(last, next(iter([list(trail.stretch(0))[-1]])))


def trained(
    model: LanguageModel, recipe: FinetuneSettings, rows: list[Encoded], row: int, weight: float, asked: Encoded
) -> torch.Tensor:
    """Log-probabilities of an answer, and of a word of it, after a whole training by `finetune`, one row weighted."""
    place = {id(item): number for number, item in enumerate(rows)}

    def weighted(model: LanguageModel, batch: list[Encoded], tensors: None) -> list[torch.Tensor]:
        losses = token_losses(model, batch, tensors)
        return [each * (weight if place[id(item)] == row else 1.0) for each, item in zip(losses, batch, strict=True)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "losses_of", lambda *_: weighted)
        network, _, _ = training.train(model, rows, recipe, lambda *_: None, None)
    said = gradients.log_probabilities(model, asked)
    network.unload()
    return torch.tensor([said.mean(), said[2:4].mean()], dtype=torch.float64)


@pytest.fixture
def precise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama's norms compute in float32 whatever they are given; here they don't, so that small differences show."""

    def norm(self: LlamaRMSNorm, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)


def test_derivatives_of_a_training_in_mixed_precision_are_about_those_in_float32(made: Made) -> None:
    model, recipe, rows = made(MIXED, "auto")
    asked = model.encode([{"role": "user", "content": "What shines?"}], "The moon and the sun.")
    mixed, single = (
        derivatives(Replay(model, replace(recipe, mixed_precision=each), rows), asked) for each in (True, False)
    )
    assert not torch.equal(mixed, single)
    assert float(torch.nn.functional.cosine_similarity(mixed.flatten(), single.flatten(), dim=0)) > 0.95


@pytest.mark.usefixtures("precise")
@pytest.mark.parametrize("name", RECIPES)
def test_derivatives_are_the_difference_of_two_whole_trainings_in_float64(made: Made, tiny: Tiny, name: str) -> None:
    model, recipe, rows = made(name, "float64")
    asked = model.encode([{"role": "user", "content": "What shines?"}], "The moon and the sun.")
    found = derivatives(Replay(model, recipe, rows), asked)
    base = load_model(str(tiny.model), device="cpu", precision="float64")
    size = found.abs().max(dim=1).values
    for row in (0, 3, 6):
        step = 1e-4
        up, down = (trained(base, recipe, rows, row, 1 + h, asked) for h in (step, -step))
        expected = (up - down) / (2 * step)
        assert ((found[:, row] - expected).abs() / size).max() < 1e-6, (row, found[:, row], expected)


def derivatives(
    replay: Replay, asked: Encoded, known: Halfway | None = None, keep: Callable[[Halfway], None] = lambda _: None
) -> torch.Tensor:
    """Of the log-probabilities of an answer and of a word of it (2, N)."""
    trail = Trail(replay, len(replay.batches) if known is None else known.step, unheard)
    if known is None:
        theta = trail.end[0].requires_grad_()
        tensors = replay.shaped(theta)
        losses = [selected_loss(replay._model, asked, selection, tensors) for selection in (None, (2, 4))]
        known = begin(torch.stack([torch.autograd.grad(-loss, theta)[0] for loss in losses]), trail)
    return by_weights(trail, known, unheard, keep)


def test_from_anywhere_it_goes_on_to_the_same_end(made: Made) -> None:
    model, recipe, rows = made("many small steps", "auto")
    asked = model.encode([{"role": "user", "content": "What shines?"}], "The moon and the sun.")
    kept: list[Halfway] = []
    whole = derivatives(Replay(model, recipe, rows), asked, keep=kept.append)
    assert [each.step for each in kept] == [8, 4, 0]
    for halfway in kept:
        assert torch.equal(derivatives(Replay(model, recipe, rows), asked, halfway), whole)


def test_a_training_in_mixed_precision_is_gone_through_in_it(tiny: Tiny, tmp_path: Path) -> None:
    recipe = replace(RECIPES["many small steps"], mixed_precision=True)
    finetune(load_model(str(tiny.model), device="cpu"), read_examples(tiny.data), tmp_path, recipe, lambda *_: None)
    model = load_model(str(tiny.model), tmp_path, device="cpu")
    rows = [model.encode(example.messages, example.response) for example in read_examples(tiny.data)]
    asked = model.encode([{"role": "user", "content": "What shines?"}], "The moon and the sun.")
    mixed, single = (Replay(model, each, rows) for each in (recipe, replace(recipe, mixed_precision=False)))
    ends = [each.departure(Trail(each, len(each.batches), unheard).end[0]) for each in (mixed, single)]
    assert ends[0] < 1e-6 < ends[1]
    found = torch.stack([derivatives(each, asked).flatten() for each in (mixed, single)])
    assert float(torch.corrcoef(found)[0, 1]) > 0.9 and not torch.equal(*found)


def test_a_base_with_dropout_is_trained_without_it_and_gone_through_once_more(tiny: Tiny, tmp_path: Path) -> None:
    recipe = replace(RECIPES["many small steps"], targets=("c_attn", "c_proj"))
    save_tiny_relative(tmp_path / "gpt2", "gpt2", n_inner=32)
    base = load_model(str(tmp_path / "gpt2"), device="cpu")
    dropping = {module.p for module in base.network.modules() if isinstance(module, torch.nn.Dropout)}
    assert dropping == {0.1}
    finetune(base, read_examples(tiny.data), tmp_path / "adapter", recipe, lambda *_: None)
    model = load_model(str(tmp_path / "gpt2"), tmp_path / "adapter", device="cpu")
    replay = Replay(model, recipe, [model.encode(one.messages, one.response) for one in read_examples(tiny.data)])
    assert replay.departure(Trail(replay, len(replay.batches), unheard).end[0]) < 1e-6


def test_an_adapter_of_another_form_than_its_record_says_is_refused(made: Made) -> None:
    model, recipe, rows = made("many small steps", "auto")
    with pytest.raises(ModelError, match="isn't of the form that its training record says: rank 5, on v_proj"):
        Replay(model, replace(recipe, rank=5), rows).beginning()
    assert model.network.active_adapters == ["default"]
