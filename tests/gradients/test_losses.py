"""What enters a loss, and the gradients' identities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.errors import UnsupportedError
from explorer.gradients.losses import Gradient
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Counting, Encoded
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_change


@pytest.fixture(params=["adapter", "all parameters"])
def model(request: pytest.FixtureRequest, tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter if request.param == "adapter" else None, device="cpu")


@pytest.fixture
def batch(model: LanguageModel) -> list[Encoded]:
    """Sequences of different lengths, prompts and responses; of the first both answers are in the loss."""
    single = [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[1:4]]
    turns = [("user", "Hi."), ("assistant", "The sun."), ("user", "And?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    both = model.encode(messages, "A star.", counting=Counting("all"))
    assert both.gaps and both.response_length == len(both.positions) < len(both.ids) - both.response_start
    return [both, *single]


def same(found: Gradient, expected: Gradient) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def reference(model: LanguageModel, loss: torch.Tensor) -> Gradient:
    """The gradient of a scalar as torch gives it, all tensors at once."""
    found = torch.autograd.grad(loss, list(model.trainable.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(model.trainable, found, strict=True))


def received(model: LanguageModel, batch: Sequence[Encoded]) -> tuple[list[Gradient], list[NDArray[np.float32]]]:
    """The gradients that one pass over a batch hands over, and the losses it returns."""
    found: list[Gradient] = [{} for _ in batch]

    def receive(sequence: int, parts: Mapping[str, torch.Tensor]) -> None:
        twice = parts.keys() & found[sequence].keys()
        assert not twice, f"{twice} of sequence {sequence} were handed over twice"
        found[sequence].update(parts)

    losses = gradients.example_gradients(model, model.checkpoints[0], batch, receive)
    return found, losses


def test_losses_of_a_padded_batch_equal_those_one_by_one(model: LanguageModel, batch: list[Encoded]) -> None:
    assert len({len(item.ids) for item in batch}) > 1, "the batch must need padding"
    together = gradients.token_losses(model, batch)
    for item, losses in zip(batch, together, strict=True):
        torch.testing.assert_close(losses, gradients.token_losses(model, [item])[0], rtol=1e-4, atol=1e-5)


def test_losses_are_those_of_the_whole_sequence_at_response_places(model: LanguageModel, batch: list[Encoded]) -> None:
    for item in batch:
        ids = torch.from_numpy(item.ids)
        with torch.no_grad():
            log_probabilities = model.network(input_ids=ids[None]).logits[0].log_softmax(-1)
        expected = [-log_probabilities[place - 1, ids[place]] for place in item.positions]
        losses = gradients.token_losses(model, [item])[0].detach()
        torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_end_of_sequence_token_is_in_the_loss(model: LanguageModel, batch: list[Encoded]) -> None:
    for item in batch:
        assert item.ids[-1] == model.tokenizer.eos_token_id
        text = model.tokenizer.decode(item.ids[item.positions])
        losses = gradients.token_losses(model, [item])[0]
        assert len(losses) == item.response_length
        assert len(losses) == len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_prompt_carries_no_loss_of_its_own(model: LanguageModel) -> None:
    item = model.encode([{"role": "user", "content": "What shines by day?"}], "It is the sun.")
    losses = gradients.token_losses(model, [item])[0]
    assert len(losses) == item.response_length < len(item.ids)
    longer = Encoded(item.ids, item.response_start - 5)
    assert len(gradients.token_losses(model, [longer])[0]) == item.response_length + 5


def test_the_gradient_of_a_response_is_that_of_its_mean_loss(model: LanguageModel, batch: list[Encoded]) -> None:
    for item in batch:
        found = gradients.gradient(model, item)
        assert list(found) == list(model.trainable)
        same(found, reference(model, gradients.token_losses(model, [item])[0].mean()))


def test_the_gradient_of_a_response_is_the_mean_of_token_gradients(model: LanguageModel, batch: list[Encoded]) -> None:
    whole = gradients.gradient(model, batch[0])
    tokens = list(gradients.token_gradients(model, batch[0]))
    assert len(tokens) == batch[0].response_length
    same({name: torch.stack([g[name] for g in tokens]).mean(0) for name in whole}, whole)


@pytest.mark.parametrize("span", [(0, 1), (1, 4), (3, 5)])
def test_the_gradient_of_a_span_is_the_mean_of_its_token_gradients(
    model: LanguageModel, batch: list[Encoded], span: tuple[int, int]
) -> None:
    tokens = list(gradients.token_gradients(model, batch[1]))[slice(*span)]
    found = gradients.gradient(model, batch[1], span)
    same(found, {name: torch.stack([g[name] for g in tokens]).mean(0) for name in found})


def test_the_gradient_of_a_span_needs_nothing_after_it(model: LanguageModel, batch: list[Encoded]) -> None:
    cut = Encoded(batch[1].ids[: batch[1].response_start + 3], batch[1].response_start)
    same(gradients.gradient(model, batch[1], (1, 3)), gradients.gradient(model, cut, (1, 3)))


@pytest.mark.parametrize("group", [1, 2, 3, 5])
def test_token_gradients_are_those_of_single_losses_however_many_share_a_forward_pass(
    model: LanguageModel, batch: list[Encoded], group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.gradients.losses.group_count", lambda encoded: group)
    found = list(gradients.token_gradients(model, batch[0]))
    assert len(found) == batch[0].response_length
    for position, one in enumerate(found):
        same(one, reference(model, gradients.token_losses(model, [batch[0]])[0][position]))


def test_one_example_is_handed_over_tensor_by_tensor(
    model: LanguageModel, batch: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradients.gradient(model, batch[0])
    tokens = list(gradients.token_gradients(model, batch[0]))
    # As for a gradient too large to be held whole.
    monkeypatch.setattr("explorer.gradients.losses._SMALL", 0)
    (found,), (losses,) = received(model, batch[:1])
    assert list(found) != list(model.trainable), "the last layers' gradients should be complete first"
    same(found, expected)
    for large, small in zip(gradients.token_gradients(model, batch[0]), tokens, strict=True):
        same(large, small)
    np.testing.assert_allclose(losses, gradients.token_losses(model, batch[:1])[0].detach(), rtol=1e-5)


def test_gradients_of_a_batch_equal_those_one_by_one(model: LanguageModel, batch: list[Encoded]) -> None:
    assert len({len(item.ids) for item in batch}) == len({item.response_start for item in batch}) == len(batch)
    found, losses = received(model, batch)
    for item, one, own in zip(batch, found, losses, strict=True):
        (expected,), (alone,) = received(model, [item])
        same(one, expected)
        np.testing.assert_allclose(own, alone, rtol=1e-4, atol=1e-5)


def test_a_batch_leaves_the_model_as_it_was(model: LanguageModel, batch: list[Encoded]) -> None:
    before = {name: tensor.detach().clone() for name, tensor in model.trainable.items()}
    for size in (1, 3):
        received(model, batch[:size])
    for name, tensor in model.trainable.items():
        assert torch.equal(before[name], tensor) and tensor.requires_grad and tensor.grad is None
        assert not tensor._post_accumulate_grad_hooks
    assert not any(module._forward_hooks for module in model.network.modules())


def test_shares_of_positions_sum_to_the_inner_product(model: LanguageModel, batch: list[Encoded]) -> None:
    direction = gradients.gradient(model, batch[3])
    for item in batch[:3]:
        shares = gradients.position_shares(model, item, direction)
        assert shares.shape == item.ids.shape
        expected = gradients.inner_product(gradients.gradient(model, item), direction)
        assert shares.sum() == pytest.approx(expected, rel=1e-3, abs=1e-5 * float(np.abs(shares).max()))


def test_the_share_of_a_position_is_the_slope_along_the_direction_at_that_position_alone(
    tiny_model: LanguageModel,
) -> None:
    item, other = (tiny_model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:2])
    direction = gradients.gradient(tiny_model, other)
    found = gradients.position_shares(tiny_model, item, direction)
    steps = torch.zeros(len(item.ids), requires_grad=True)
    for name, v in direction.items():

        def step(module: torch.nn.Module, inputs: Any, left: torch.Tensor, v: torch.Tensor = v) -> torch.Tensor:
            return left + steps[:, None] * torch.nn.functional.linear(inputs[0], v)

        tiny_model.network.get_submodule(name.removesuffix(".weight")).register_forward_hook(step)
    (expected,) = torch.autograd.grad(gradients.token_losses(tiny_model, [item])[0].mean(), steps)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert found[-1] == 0, "nothing follows the last token, so nothing of the loss depends on it"


def test_tensors_that_cannot_be_told_apart_are_refused_by_name_but_not_one_by_one(tiny: Tiny, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], use_dora=True)
    model = load_model(str(tiny.model), save_tiny_change(tmp_path, tiny.model, config), device="cpu")
    pair = [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:2]]
    (own,), _ = received(model, pair[:1])
    same(own, reference(model, gradients.token_losses(model, pair[:1])[0].mean()))
    named = r"^\S+q_proj\.lora_magnitude_vector\S+ belongs to a DoraLinearLayer"
    with pytest.raises(UnsupportedError, match=named):
        received(model, pair)
    with pytest.raises(UnsupportedError, match=named):
        gradients.position_shares(model, pair[0], own)


def test_forward_mode_values_equal_the_explicit_loop(model: LanguageModel, batch: list[Encoded]) -> None:
    random = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(tensor.shape, generator=random) for name, tensor in model.trainable.items()}
    for item in batch:
        found = gradients.directional_token_losses(model, item, direction)
        expected = [gradients.inner_product(g, direction) for g in gradients.token_gradients(model, item)]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_forward_mode_pass_leaves_the_model_as_it_was(model: LanguageModel, batch: list[Encoded]) -> None:
    before = {name: tensor.detach().clone() for name, tensor in model.trainable.items()}
    attention = model.network.config._attn_implementation
    gradients.directional_token_losses(model, batch[0], before)
    assert model.network.config._attn_implementation == attention
    assert all(torch.equal(before[name], tensor) for name, tensor in model.trainable.items())
    assert all(tensor.grad is None for tensor in model.trainable.values())


def test_a_tensor_the_loss_does_not_touch_has_a_zero_gradient_and_is_not_handed_over(tiny: Tiny) -> None:
    model = load_model(str(tiny.model), device="cpu")
    batch = [model.encode([{"role": "user", "content": prompt}], "Hi.") for prompt in ("Say hi.", "Say hello.")]
    idle = torch.nn.Linear(2, 3)
    model.network.add_module("idle", idle)
    for name, tensor in idle.named_parameters():
        model.checkpoints[0].tensors[f"idle.{name}"] = tensor
    found = gradients.gradient(model, batch[0])
    assert found["idle.weight"].shape == (3, 2) and float(found["idle.weight"].norm()) == 0
    assert all(float(part.norm()) > 0 for name, part in found.items() if "idle" not in name)
    assert all(own.keys() == model.trainable.keys() for own in received(model, batch[:1])[0])
    with pytest.raises(UnsupportedError, match=r"idle\.weight belongs to a Linear"):
        received(model, batch)


def test_dividing_by_norms_gives_unit_tensors_and_leaves_zeros() -> None:
    g = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2, 2)}
    divided = gradients.divided(g, gradients.norms(g))
    assert divided["a"].tolist() == pytest.approx([0.6, 0.8])
    assert divided["b"].tolist() == [[0, 0], [0, 0]], "a tensor of zeros must stay zero, not become NaN"


def test_tied_embeddings_are_differentiated_once_and_wholly(tiny: Tiny) -> None:
    model = load_model(str(tiny.model), None, device="cpu")
    assert not any("lm_head" in name for name in model.trainable)
    item = model.encode([{"role": "user", "content": "Say hi."}], "Hi.")
    name = next(name for name in model.trainable if "embed_tokens" in name)
    gradient = gradients.gradient(model, item)
    before = gradients.token_losses(model, [item])[0].detach().mean()
    step = 1e-2 * gradient[name] / gradient[name].norm()
    with torch.no_grad():
        model.trainable[name].add_(step)
    change = float(gradients.token_losses(model, [item])[0].detach().mean()) - float(before)
    assert change == pytest.approx(1e-2 * float(gradient[name].norm()), rel=0.2)
