"""What enters a loss, and the gradients' identities."""

import numpy as np
import pytest
import torch

from explorer import gradients
from explorer.gradients import Gradient
from explorer.model import LanguageModel, load_model
from explorer.records import Encoded
from tests.conftest import Tiny
from tests.tiny import ROWS


@pytest.fixture(params=["adapter", "all parameters"])
def model(request: pytest.FixtureRequest, tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter if request.param == "adapter" else None, device="cpu")


@pytest.fixture
def batch(model: LanguageModel) -> list[Encoded]:
    """Sequences of different lengths, prompts and responses."""
    return [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:4]]


def same(found: Gradient, expected: Gradient) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_losses_of_a_padded_batch_equal_those_one_by_one(model: LanguageModel, batch: list[Encoded]) -> None:
    assert len({len(item.ids) for item in batch}) > 1, "the batch must need padding"
    together = gradients.token_losses(model, batch)
    for item, losses in zip(batch, together, strict=True):
        torch.testing.assert_close(losses, gradients.token_losses(model, [item])[0], rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_padded_batch_is_the_sum_of_its_parts(model: LanguageModel, batch: list[Encoded]) -> None:
    together = gradients.gradient(model.checkpoints[0], torch.cat(gradients.token_losses(model, batch)).sum())
    parts = [gradients.gradient(model.checkpoints[0], gradients.token_losses(model, [item])[0].sum()) for item in batch]
    same(together, {name: sum((part[name] for part in parts), torch.zeros(())) for name in together})


def test_losses_are_those_of_the_whole_sequence_at_response_places(model: LanguageModel, batch: list[Encoded]) -> None:
    for item in batch:
        ids = torch.from_numpy(item.ids)
        with torch.no_grad():
            log_probabilities = model.network(input_ids=ids[None]).logits[0].log_softmax(-1)
        expected = [-log_probabilities[place - 1, ids[place]] for place in range(item.response_start, len(ids))]
        losses = gradients.token_losses(model, [item])[0].detach()
        torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_end_of_sequence_token_is_in_the_loss(model: LanguageModel, batch: list[Encoded]) -> None:
    for item in batch:
        assert item.ids[-1] == model.tokenizer.eos_token_id
        text = model.tokenizer.decode(item.ids[item.response_start :])
        losses = gradients.token_losses(model, [item])[0]
        assert len(losses) == item.response_length
        assert len(losses) == len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_prompt_carries_no_loss_of_its_own(model: LanguageModel) -> None:
    item = model.encode([{"role": "user", "content": "What shines by day?"}], "It is the sun.")
    losses = gradients.token_losses(model, [item])[0]
    assert len(losses) == item.response_length < len(item.ids)
    longer = Encoded(item.ids, item.response_start - 5)
    assert len(gradients.token_losses(model, [longer])[0]) == item.response_length + 5


def test_example_gradient_is_the_mean_of_token_gradients(model: LanguageModel, batch: list[Encoded]) -> None:
    whole, losses = gradients.example_gradient(model, batch[0])
    tokens = list(gradients.token_gradients(model, batch[0]))
    assert len(tokens) == len(losses) == batch[0].response_length
    same({name: torch.stack([g[name] for g in tokens]).mean(0) for name in whole}, whole)


@pytest.mark.parametrize("span", [(0, 1), (1, 4), (3, 5)])
def test_span_gradient_is_the_mean_of_its_token_gradients(
    model: LanguageModel, batch: list[Encoded], span: tuple[int, int]
) -> None:
    tokens = list(gradients.token_gradients(model, batch[1]))[slice(*span)]
    found = gradients.span_gradient(model, batch[1], *span)
    same(found, {name: torch.stack([g[name] for g in tokens]).mean(0) for name in found})


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


def test_a_tensor_the_loss_does_not_touch_has_a_zero_gradient(tiny_model: LanguageModel) -> None:
    name, tensor = next(iter(tiny_model.trainable.items()))
    found = gradients.gradient(tiny_model.checkpoints[0], (tensor**2).sum())
    assert float(found[name].norm()) > 0
    assert all(float(part.norm()) == 0 for other, part in found.items() if other != name)


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
    gradient, losses = gradients.example_gradient(model, item)
    step = 1e-2 * gradient[name] / gradient[name].norm()
    with torch.no_grad():
        model.trainable[name].add_(step)
    change = float(gradients.token_losses(model, [item])[0].detach().mean()) - float(losses.mean())
    assert change == pytest.approx(1e-2 * float(gradient[name].norm()), rel=0.2)
