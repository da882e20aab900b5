"""Sequences one behind the other: the losses and gradients of the padded form."""

from pathlib import Path

import pytest
import torch

from explorer.gradients import token_losses
from explorer.gradients.packed import packed_losses, packs
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from tests.tiny import ROWS, save_tiny_relative

FAMILIES: dict[str, dict[str, int]] = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "gpt_neox": {},
    "gpt2": {},
}


def rows(model: LanguageModel) -> list[Encoded]:
    return [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS[:4]]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_the_padded_form(tmp_path: Path, family: str) -> None:
    model = load_model(str(save_tiny_relative(tmp_path, family, **FAMILIES[family])), device="cpu")
    batch = rows(model)
    before = model.network.config._attn_implementation
    assert packs(model, batch) and not packs(model, batch[:1])
    found = [losses(model, batch) for losses in (token_losses, packed_losses)]
    assert [len(each) for each in found[0]] == [len(each) for each in found[1]]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    tensors = list(model.trainable.values())
    one, other = (torch.autograd.grad(torch.cat(each).mean(), tensors, allow_unused=True) for each in found)
    for left, right in zip(one, other, strict=True):
        if left is not None:
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    assert model.network.config._attn_implementation == before


def test_a_network_that_mixes_packed_sequences_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(str(save_tiny_relative(tmp_path, "llama")), device="cpu")
    own = model.network.model.forward
    monkeypatch.setattr(model.network.model, "forward", lambda **given: own(**given | {"position_ids": None}))
    assert not packs(model, rows(model))


def test_other_attention_than_the_usual_one_is_left_alone(tmp_path: Path) -> None:
    model = load_model(str(save_tiny_relative(tmp_path, "gemma2", head_dim=4)), device="cpu")
    assert model.network.config._attn_implementation == "eager" and not packs(model, rows(model))
