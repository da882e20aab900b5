"""Every family of models and every kind of adapter, against plain automatic differentiation.

What is expected comes from a network that transformers and peft load by
themselves, with attention written out: full logits of one unpadded sequence,
and one backward pass for every token. Shares of positions are expected from
modules that use a copy of their tensors of its own at every position.

Weights are float64. Inside transformers the norms and the softmax of attention
compute in float32 whatever the weights are, which leaves differences of about
1e-6 of the largest value; 1e-4 of it is allowed. Mistakes are larger.
"""

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.engine import Engine
from explorer.errors import UnsupportedError
from explorer.gradients.losses import Gradient
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.loading import load_model
from explorer.records import Answer, Encoded, Span, TrainingRecord
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import asking
from tests.tiny import byte_tokenizer, disturb, save_tiny_change, save_tiny_data, save_tiny_relative

DOCS, HEADING = Path(__file__).parents[2] / "docs", "model, and what was trained"

ALLOWED = 1e-4
"""Of the largest value; see above."""

# What is studied


@dataclass(frozen=True)
class Case:
    """A model of some family, with an adapter or without."""

    family: str
    """As transformers names it."""
    adapter: Callable[[], peft.PeftConfig] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """What goes into the family's config."""
    heads_first: bool = False
    """Norms of single heads get (sequence, head, position, width), not (sequence, position, head, width)."""
    refused: str = ""
    """Part of the name of the tensor for which batches and positions are refused."""
    looped: bool = False
    """Some module has no forward derivative, so that values along a direction take a backward pass a token."""
    added: int = 0
    """So many tokens were added to the base before it was trained."""


def lora(*targets: str, **options: Any) -> Callable[[], peft.PeftConfig]:
    """A LoRA of rank 2."""
    return partial(
        peft.LoraConfig, task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=list(targets) or TARGETS, **options
    )


def relative(config: Callable[..., peft.PeftConfig], *targets: str, **options: Any) -> Callable[[], peft.PeftConfig]:
    """An adapter of another kind."""
    return partial(config, task_type="CAUSAL_LM", target_modules=list(targets) or TARGETS, **options)


TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]
WIDE_HEADS = {"head_dim": 8}
"""Heads that together are wider than the model."""
SOFT_CAPPED = WIDE_HEADS | {
    "query_pre_attn_scalar": 8,
    # Shorter than the sequences, so that it matters, and longer than any padding: where the window of a
    # padding position holds padding alone, transformers' softmax is of nothing but −∞ in float64, and not a number.
    "sliding_window": 8,
    "attn_logit_softcapping": 0.5,
    "final_logit_softcapping": 1.0,
}
WINDOWED = WIDE_HEADS | {
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
}
UNTIED = {"tie_word_embeddings": False}
EXPERTS = UNTIED | {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

ADDED = [len(byte_tokenizer()) + place for place in range(3)]

CASES = {
    "Llama, all parameters": Case("llama"),
    "Llama, LoRA": Case("llama", lora()),
    "Qwen2, all parameters": Case("qwen2", options=UNTIED),
    "Qwen2, LoRA and biases": Case("qwen2", lora(bias="all")),
    "Qwen3, all parameters": Case("qwen3", options=WIDE_HEADS),
    "Qwen3, LoRA": Case("qwen3", lora(), WIDE_HEADS),
    "Gemma, all parameters": Case("gemma", options=WIDE_HEADS),
    "Gemma, LoRA": Case("gemma", lora(), WIDE_HEADS),
    "Gemma 2, all parameters": Case("gemma2", options=SOFT_CAPPED),
    "Gemma 2, LoRA": Case("gemma2", lora(), SOFT_CAPPED),
    "Gemma 3, all parameters": Case("gemma3_text", options=WINDOWED, heads_first=True),
    "Gemma 3, LoRA": Case("gemma3_text", lora(), WINDOWED, heads_first=True),
    "GPT-NeoX, all parameters": Case("gpt_neox", options=UNTIED),
    "GPT-NeoX, LoRA": Case("gpt_neox", lora("query_key_value", "dense_h_to_4h"), UNTIED),
    "GPT-2, all parameters": Case("gpt2"),
    "GPT-2, LoRA": Case("gpt2", lora("c_attn", "c_proj", fan_in_fan_out=True)),
    "Mistral, all parameters": Case("mistral", options={"sliding_window": 4}),
    "Mistral, LoRA": Case("mistral", lora(), {"sliding_window": 4}),
    "Phi-3, all parameters": Case("phi3", options=UNTIED),
    "Phi-3, LoRA": Case("phi3", lora("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), UNTIED),
    "Mixtral, all parameters": Case("mixtral", options=EXPERTS, refused="mlp.gate.weight"),
    "Mixtral, LoRA": Case("mixtral", lora("q_proj", "v_proj", "o_proj"), EXPERTS),
    "Qwen3-MoE, all parameters": Case("qwen3_moe", options=EXPERTS, refused="mlp.experts.gate_up_proj"),
    "Qwen3-MoE, LoRA": Case("qwen3_moe", lora("q_proj", "v_proj", "o_proj"), EXPERTS),
    "Mixtral, LoRA of experts": Case(
        "mixtral",
        lora("q_proj", target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        EXPERTS,
        refused="lora_A",
    ),
    "rsLoRA": Case("llama", lora(use_rslora=True)),
    "LoRA and whole norms": Case("llama", lora(modules_to_save=["norm"])),
    "LoRA and a whole output layer": Case("llama", lora(modules_to_save=["lm_head"]), UNTIED),
    "LoRA and whole tied embeddings": Case("llama", lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "LoRA of a base with added tokens": Case("llama", lora(), added=3),
    "LoRA and whole embeddings, added tokens": Case(
        "llama", lora(modules_to_save=["embed_tokens", "lm_head"]), UNTIED, added=3
    ),
    "LoRA and whole tied embeddings, added tokens": Case(
        "llama", lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), added=3
    ),
    "LoRA and the added tokens": Case(
        "llama", lora(trainable_token_indices=ADDED), UNTIED, added=3, refused="trainable_tokens_delta"
    ),
    "DoRA": Case("llama", lora(use_dora=True), refused="lora_magnitude_vector"),
    "LoRA of embeddings": Case("llama", lora("embed_tokens", "q_proj"), UNTIED, refused="lora_embedding_A"),
    "AdaLoRA": Case(
        "llama", relative(peft.AdaLoraConfig, init_r=2, target_r=2, total_step=10, lora_alpha=4), refused="lora_A"
    ),
    "IA3": Case(
        "llama",
        relative(peft.IA3Config, "k_proj", "v_proj", "down_proj", feedforward_modules=["down_proj"]),
        refused="ia3_l",
    ),
    "LoHa": Case("llama", relative(peft.LoHaConfig, r=2, alpha=4), refused="hada_w1_a", looped=True),
    "LoKr": Case("llama", relative(peft.LoKrConfig, r=2, alpha=4), refused="lokr_w1"),
    "OFT": Case("llama", relative(peft.OFTConfig, r=0, oft_block_size=4), refused="oft_R"),
    "VeRA": Case("llama", relative(peft.VeraConfig, "q_proj", "o_proj", r=4), refused="vera_lambda"),
}
"""The supported families, and on a Llama the supported kinds of adapter."""

UNUSUAL = {
    "OPT, all parameters": Case("opt", options={"ffn_dim": 32, "word_embed_proj_dim": 16}),
    "OPT, LoRA": Case("opt", lora("q_proj", "fc1"), {"ffn_dim": 32, "word_embed_proj_dim": 16}),
    "Cohere, all parameters": Case("cohere", options={"use_qk_norm": True}),
    "BioGPT, all parameters": Case("biogpt"),
    "GPT-Neo, all parameters": Case("gpt_neo", options={"attention_types": [[["global", "local"], 1]]}),
    "Llama, LoRA of parameters": Case("llama", lora("q_proj", target_parameters=["mlp.down_proj.weight"])),
}
"""Modules that are handed something else than (sequence, position, width), or use their weight in another way."""


def test_the_document_says_of_every_model_and_adapter_what_is_shown_here() -> None:
    expected = {
        name: [
            "one by one" if case.refused else "together",
            "a backward pass a token" if case.looped else "one pass",
            "no" if case.refused else "yes",
        ]
        for name, case in CASES.items()
    }
    rows = [line.strip("| ").split(" | ") for line in (DOCS / "models.md").read_text("utf-8").splitlines()]
    assert {row[0]: row[1:] for row in rows if len(row) == 4 and row[0] not in ("adapter", HEADING)} == expected


@dataclass(frozen=True, eq=False)
class Study:
    """One case, loaded twice: by the explorer, and by transformers and peft alone."""

    case: Case
    folder: Path
    model: LanguageModel
    network: Any
    untouched: list[Any] = field(default_factory=list)
    """The state of the model as it was loaded."""

    @property
    def batch(self) -> list[Encoded]:
        """Three sequences of different lengths; none has as many positions as there are heads."""
        found = [sequence(11, 4), sequence(7, 3), sequence(9, 2)]
        for place, item in enumerate(found[: self.case.added]):
            item.ids[-3] = len(byte_tokenizer()) + place
        return found

    @cached_property
    def expected(self) -> list[tuple[torch.Tensor, list[Gradient]]]:
        """The token losses and token gradients of the batch."""
        return [explicit(self.network, item) for item in self.batch]

    @cached_property
    def direction(self) -> Gradient:
        """A random direction for all trainable tensors."""
        random = torch.Generator().manual_seed(7)
        return {
            name: torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
            for name, tensor in trainable(self.network).items()
        }


def load_study(case: Case, folder: Path) -> Study:
    base = save_tiny_relative(folder / "base", case.family, **case.options)
    adapter = None
    if case.adapter:
        adapter = save_tiny_change(folder / "adapter", base, case.adapter(), added=case.added)
    model = load_model(str(base), adapter, device="cpu", precision="float64")
    return Study(case, folder, model, load_alone(base, adapter, case.added), state(model))


def load_alone(base: Path, adapter: Path | None, added: int) -> Any:
    plain = {"attn_implementation": "eager", "experts_implementation": "eager"}
    network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64, **plain)
    if added:
        network.resize_token_embeddings(len(byte_tokenizer()) + added)
    if adapter:
        network = peft.PeftModel.from_pretrained(network, adapter, is_trainable=True)
    for module in network.modules():
        if isinstance(module, torch.nn.Embedding):
            # With it, torch leaves the padding token out of the embedding's gradient, whatever the loss makes of it.
            module.padding_idx = None
    return network.eval()


@pytest.fixture(scope="module", params=CASES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load_study(CASES[request.param], tmp_path_factory.mktemp("study"))


# What is expected


def sequence(length: int, start: int) -> Encoded:
    """Random tokens, two of them alike, between two of the token that ends a sequence and also pads it."""
    ids = np.random.default_rng(length).integers(2, len(byte_tokenizer()), length)
    ids[min(2, length - 1)] = ids[1]
    ids[[0, -1]] = byte_tokenizer().eos_token_id
    return Encoded(ids, start)


def trainable(network: Any) -> dict[str, torch.nn.Parameter]:
    return {name: tensor for name, tensor in network.named_parameters() if tensor.requires_grad}


def response_losses(network: Any, encoded: Encoded) -> torch.Tensor:
    """−log p of every response token, out of all logits of the sequence."""
    ids = torch.from_numpy(encoded.ids)
    log_probabilities = network(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
    return torch.stack([-log_probabilities[place - 1, ids[place]] for place in range(encoded.response_start, len(ids))])


def explicit(network: Any, encoded: Encoded) -> tuple[torch.Tensor, list[Gradient]]:
    """Token losses, and for every token its gradient by a backward pass of its own."""
    tensors = trainable(network)
    losses = response_losses(network, encoded)
    found = []
    for loss in losses:
        parts = torch.autograd.grad(loss, list(tensors.values()), retain_graph=True, allow_unused=True)
        pairs = zip(tensors.items(), parts, strict=True)
        found.append({name: torch.zeros_like(tensor) if part is None else part for (name, tensor), part in pairs})
    return losses.detach(), found


def mean(parts: Sequence[Gradient]) -> Gradient:
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def along(parts: Sequence[Gradient], direction: Gradient) -> NDArray[np.float64]:
    """The inner product of every gradient with the direction."""
    return np.array([sum(float((part[name] * direction[name]).sum()) for name in part) for part in parts])


def explicit_shares(
    network: Any, encoded: Encoded, direction: Gradient, heads_first: bool = False
) -> NDArray[np.float64]:
    """⟨∂L(s)/∂θ_p, v⟩ for every position p (T), θ_p being copies of all tensors that are used at p alone."""
    length = len(encoded.ids)
    names = {id(tensor): name for name, tensor in trainable(network).items()}
    copies: list[tuple[str, torch.Tensor]] = []
    changed = []
    for module in network.modules():
        own = {key: tensor for key, tensor in module.named_parameters(recurse=False) if id(tensor) in names}
        if own:
            places = {key: tensor.detach().repeat(length, *[1] * tensor.dim()) for key, tensor in own.items()}
            copies += [(names[id(own[key])], tensors.requires_grad_()) for key, tensors in places.items()]
            vars(module)["forward"] = partial(_place_by_place, copy.deepcopy(module), places, heads_first)
            changed.append(module)
    try:
        loss = response_losses(network, encoded).mean()
        parts = torch.autograd.grad(loss, [tensors for _, tensors in copies], allow_unused=True)
    finally:
        for module in changed:
            del vars(module)["forward"]
    total = torch.zeros(length, dtype=torch.float64)
    for (name, _), part in zip(copies, parts, strict=True):
        if part is not None:
            total += (part * direction[name]).flatten(1).sum(1)
    return total.numpy()


def _place_by_place(
    module: torch.nn.Module, places: Mapping[str, torch.Tensor], heads_first: bool, entered: torch.Tensor
) -> torch.Tensor:
    axis = 2 if entered.dim() == 4 and heads_first else 1
    at_one_place = partial(torch.func.functional_call, module)
    return torch.vmap(at_one_place, in_dims=(0, axis), out_dims=axis)(places, entered)


def close(found: Any, expected: Any, what: str = "") -> None:
    """Equal up to the allowed part of the largest expected value."""
    wanted = torch.as_tensor(expected).detach().double().numpy()
    got = torch.as_tensor(found).detach().double().numpy()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=ALLOWED * float(np.abs(wanted).max()), err_msg=what)


def same(found: Gradient, expected: Gradient) -> None:
    """Equal up to the allowed part of each tensor's largest entry."""
    assert list(found) == list(expected)
    for name, part in expected.items():
        close(found[name], part, name)


def by_sequence(model: LanguageModel, batch: Sequence[Encoded]) -> tuple[list[Gradient], list[NDArray[np.float32]]]:
    """The gradients of a batch as `example_gradients` hands them over, and the losses it returns."""
    found: list[Gradient] = [{} for _ in batch]
    losses = gradients.example_gradients(
        model, model.checkpoints[0], batch, lambda place, parts: found[place].update(parts)
    )
    names = list(model.trainable)
    assert all(name in names for each in found for name in each), "a tensor was handed over that isn't in the layout"
    nothing = gradients.zeros(model)
    return [{name: each.get(name, nothing[name]) for name in names} for each in found], losses


# The gradient: losses, tokens, spans, the whole


def test_every_trained_tensor_is_differentiated_once_and_in_float64(study: Study) -> None:
    expected = trainable(study.network)
    assert {name: tuple(tensor.shape) for name, tensor in expected.items()} == dict(study.model.fingerprint.layout)
    assert list(expected) == [name for name, _ in study.model.fingerprint.layout] == list(study.model.trainable)
    assert {tensor.dtype for tensor in study.model.trainable.values()} == {torch.float64}
    if not study.case.adapter:
        assert len(expected) == len(list(study.network.parameters()))


def test_token_losses_equal_those_of_full_logits(study: Study) -> None:
    together = gradients.token_losses(study.model, study.batch)
    for item, padded, (expected, _) in zip(study.batch, together, study.expected, strict=True):
        close(gradients.token_losses(study.model, [item])[0], expected)
        close(padded, expected, "in a padded batch")


def test_token_gradients_equal_one_backward_pass_each(study: Study) -> None:
    for item, (_, expected) in zip(study.batch, study.expected, strict=True):
        for found, wanted in zip(gradients.token_gradients(study.model, item), expected, strict=True):
            same(found, wanted)


@pytest.mark.parametrize("selection", [None, (0, 1), (2, 5), (3, 4)])
def test_the_gradient_of_what_is_selected_is_the_mean_of_its_tokens(study: Study, selection: Span | None) -> None:
    _, tokens = study.expected[0]
    found = gradients.gradient(study.model, study.batch[0], selection)
    same(found, mean(tokens[slice(*selection)] if selection else tokens))


def test_no_adapter_tensor_is_without_effect(study: Study) -> None:
    whole = mean([gradient for _, tokens in study.expected for gradient in tokens])
    assert all(float(part.abs().max()) > 0 for part in whole.values()), "a tensor of zeros would prove nothing"


# Batches


def test_gradients_of_a_batch_equal_those_one_by_one(study: Study) -> None:
    if study.case.refused:
        received: list[str] = []
        with pytest.raises(UnsupportedError, match=re.escape(study.case.refused)) as raised:
            gradients.example_gradients(
                study.model, study.model.checkpoints[0], study.batch, lambda place, parts: received.extend(parts)
            )
        assert any(name in str(raised.value) for name in study.model.trainable), "the message must name the tensor"
        assert not received, "nothing may be handed over before the refusal"
        return
    found, losses = by_sequence(study.model, study.batch)
    for part, loss, (expected_losses, expected) in zip(found, losses, study.expected, strict=True):
        close(loss, expected_losses)
        same(part, mean(expected))
        assert not any(tensor.requires_grad for tensor in part.values()), "a graph is kept alive"


def test_a_batch_of_one_is_supported_everywhere(study: Study) -> None:
    found, losses = by_sequence(study.model, study.batch[1:2])
    expected_losses, expected = study.expected[1]
    close(losses[0], expected_losses)
    same(found[0], mean(expected))


# Along a direction


def test_values_along_a_direction_equal_the_loop_over_tokens(study: Study) -> None:
    for item, (_, expected) in zip(study.batch, study.expected, strict=True):
        close(gradients.directional_token_losses(study.model, item, study.direction), along(expected, study.direction))


def test_values_along_a_direction_need_no_backward_pass(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a backward pass was taken")

    monkeypatch.setattr("explorer.gradients.losses.token_gradients", refuse)
    if study.case.looped:
        with pytest.raises(AssertionError, match="a backward pass was taken"):
            gradients.directional_token_losses(study.model, study.batch[0], study.direction)
    else:
        gradients.directional_token_losses(study.model, study.batch[0], study.direction)


# Positions


def test_each_position_has_the_share_of_a_copy_of_the_tensors_used_there_alone(study: Study) -> None:
    # Beside longer ones, sequences with as many positions as there are heads: axes could be taken for each other.
    for item in [study.batch[0], sequence(4, 2), sequence(2, 1)]:
        if study.case.refused:
            with pytest.raises(UnsupportedError, match=re.escape(study.case.refused)):
                gradients.position_shares(study.model, item, study.direction)
            continue
        expected = explicit_shares(study.network, item, study.direction, study.case.heads_first)
        found = gradients.position_shares(study.model, item, study.direction)
        assert found.shape == (len(item.ids),)
        close(found, expected)
        whole = along(explicit(study.network, item)[1], study.direction).mean()
        assert found.sum(dtype=np.float64) == pytest.approx(whole, abs=ALLOWED * float(np.abs(expected).max()))


# What is left behind


def state(model: LanguageModel) -> list[Any]:
    """All of a network that a computation might change and forget to put back."""
    modules = [
        (
            name,
            id(module),
            type(module),
            vars(module).get("forward"),
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks),
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.network.named_modules()
    ]
    tensors = [
        (name, id(tensor), tensor.requires_grad, tensor.grad, tensor.dtype, tensor.detach().double().sum().item())
        for name, tensor in model.network.named_parameters()
    ]
    config = model.network.config
    return [config._attn_implementation, config._experts_implementation, modules, tensors]


def test_the_network_is_left_as_it_was(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    item, direction = study.batch[0], study.direction
    gradients.directional_token_losses(study.model, item, direction)
    assert state(study.model) == study.untouched, "after forward mode"
    with suppressed_refusal():
        by_sequence(study.model, study.batch)
    with suppressed_refusal():
        gradients.position_shares(study.model, item, direction)
    assert state(study.model) == study.untouched, "after capturing"

    def fail(*arguments: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr("explorer.gradients.losses.token_losses", fail)
    for attempt in (
        lambda: gradients.directional_token_losses(study.model, item, direction),
        lambda: gradients.position_shares(study.model, item, direction),
        lambda: by_sequence(study.model, study.batch),
    ):
        with pytest.raises((RuntimeError, UnsupportedError)):
            attempt()
        assert state(study.model) == study.untouched, "after an interruption"


@contextmanager
def suppressed_refusal() -> Iterator[None]:
    try:
        yield
    except UnsupportedError:
        pass


# Tied embeddings

TIED = [name for name, case in CASES.items() if not case.adapter and case.options.get("tie_word_embeddings", True)]


@pytest.mark.parametrize("name", TIED)
def test_tied_embeddings_count_once_with_both_their_uses(name: str, tmp_path: Path) -> None:
    study = load_study(CASES[name], tmp_path)
    network = study.network
    output, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    assert output.weight is embedding.weight
    tied = next(own for own, tensor in network.named_parameters() if tensor is embedding.weight)
    assert sum(shape == tuple(embedding.weight.shape) for _, shape in study.model.fingerprint.layout) == 1

    output.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    losses = response_losses(network, study.batch[0])
    below, above = torch.autograd.grad(losses.mean(), [embedding.weight, output.weight])
    for part in (below, above):
        assert float(part.abs().max()) > 10 * ALLOWED * float((below + above).abs().max()), "either use must matter"
    close(gradients.gradient(study.model, study.batch[0])[tied], below + above)


# Unusual modules


@pytest.fixture(scope="module", params=UNUSUAL)
def unusual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load_study(UNUSUAL[request.param], tmp_path_factory.mktemp("unusual"))


def test_batches_of_unusual_modules_are_right_or_refused(unusual: Study) -> None:
    try:
        found, _ = by_sequence(unusual.model, unusual.batch)
    except UnsupportedError as problem:
        assert any(name in str(problem) for name in unusual.model.trainable), "the message must name the tensor"
        return
    for part, (_, expected) in zip(found, unusual.expected, strict=True):
        same_but_for_rounding(part, mean(expected))


def test_positions_of_unusual_modules_sum_to_the_whole_or_are_refused(unusual: Study) -> None:
    try:
        found = gradients.position_shares(unusual.model, unusual.batch[0], unusual.direction)
    except UnsupportedError as problem:
        assert any(name in str(problem) for name in unusual.model.trainable), "the message must name the tensor"
        return
    whole = along(unusual.expected[0][1], unusual.direction).mean()
    assert found.sum(dtype=np.float64) == pytest.approx(whole, abs=ALLOWED * float(np.abs(found).max()))


def test_token_values_of_unusual_modules_are_right(unusual: Study) -> None:
    item, (_, expected) = unusual.batch[0], unusual.expected[0]
    for found, wanted in zip(gradients.token_gradients(unusual.model, item), expected, strict=True):
        same_but_for_rounding(found, wanted)
    found_values = gradients.directional_token_losses(unusual.model, item, unusual.direction)
    close(found_values, along(expected, unusual.direction))


def same_but_for_rounding(found: Gradient, expected: Gradient) -> None:
    """Equal up to the allowed part of the largest entry; attention doesn't change with its key's bias at all."""
    assert list(found) == list(expected)
    largest = max(float(part.abs().max()) for part in expected.values())
    for name, part in expected.items():
        if float(part.abs().max()) > 1e-6 * largest:
            close(found[name], part, name)
        else:
            assert float(found[name].abs().max()) < 1e-6 * largest, name


# Influence

ENGINES = {
    "Llama, LoRA": CASES["Llama, LoRA"],
    "Llama, all parameters": CASES["Llama, all parameters"],
    "GPT-2, LoRA": Case("gpt2", lora("c_attn", fan_in_fan_out=True)),
    "Mixtral, LoRA": CASES["Mixtral, LoRA"],
}
WEIGHTS = {"final": {"": 0.02}, "two": {"early": 0.03, "final": 0.01}}
"""e·η of every checkpoint that influence sums over."""
NORMALISATIONS = ["layer", "cosine", "none"]


@dataclass(frozen=True, eq=False)
class Trained:
    """A model whose gradients are taken at one checkpoint or two, and their tensors."""

    model: LanguageModel
    network: Any
    weights: dict[str, float]
    tensors: dict[str, Gradient]
    data: Path
    known: dict[int, dict[str, list[Gradient]]] = field(default_factory=dict)

    @contextmanager
    def moment(self, checkpoint: str) -> Iterator[Any]:
        """The network loaded alone, with the tensors of one checkpoint."""
        own = trainable(self.network)
        kept = {name: tensor.detach().clone() for name, tensor in own.items()}
        with torch.no_grad():
            for name, tensor in self.tensors[checkpoint].items():
                own[name].copy_(tensor)
        try:
            yield self.network
        finally:
            with torch.no_grad():
                for name, tensor in kept.items():
                    own[name].copy_(tensor)

    def tokens(self, encoded: Encoded) -> dict[str, list[Gradient]]:
        """The gradients of all tokens at every checkpoint."""
        key = hash(tuple(encoded.ids.tolist()))
        if key not in self.known:
            self.known[key] = {}
            for checkpoint in self.weights:
                with self.moment(checkpoint) as network:
                    self.known[key][checkpoint] = explicit(network, encoded)[1]
        return self.known[key]


@pytest.fixture(scope="module", params=[(kind, weights) for kind in ENGINES for weights in WEIGHTS], ids="-".join)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    kind, moments = request.param
    case, weights = ENGINES[kind], WEIGHTS[moments]
    folder = tmp_path_factory.mktemp("trained")
    data = save_tiny_data(folder / "train.jsonl")
    study = load_study(case, folder)
    final = {name: tensor.detach().clone() for name, tensor in trainable(study.network).items()}
    torch.manual_seed(3)
    disturb(study.network)
    early = {name: tensor.detach().clone() for name, tensor in trainable(study.network).items()}
    tensors = {"": final} if moments == "final" else {"early": early, "final": final}
    if case.adapter:
        record = {
            "epochs": 2,
            "learning_rate": 0.01,
            "checkpoints": [
                {"name": "early", "epochs": 1, "learning_rate": 0.03},
                {"name": "final", "epochs": 2, "learning_rate": 0.005},
            ],
        }
        (folder / "adapter" / "training.json").write_text(json.dumps(record), encoding="utf-8")
        (folder / "adapter" / "checkpoints").mkdir()
        save_file(early, folder / "adapter" / "checkpoints" / "early.safetensors")
        model = load_model(
            str(folder / "base"),
            folder / "adapter",
            device="cpu",
            precision="float64",
            checkpoints="final" if moments == "final" else "all",
        )
    else:
        # No file keeps earlier moments of a whole model; they are put in by hand.
        model = at_checkpoints(study.model, tensors, weights)
    return Trained(model, study.network, weights, tensors, data)


def at_checkpoints(model: LanguageModel, tensors: dict[str, Gradient], weights: dict[str, float]) -> LanguageModel:
    total = sum(weights.values())
    points = tuple(
        Checkpoint(name, {key: tensor.clone().requires_grad_() for key, tensor in own.items()}, weights[name] / total)
        for name, own in tensors.items()
    )
    several = len(points) > 1
    return dataclasses.replace(
        model,
        checkpoints=points,
        training=TrainingRecord(2, 0.01, known=True, checkpoints=tuple(weights.items()) if several else ()),
        fingerprint=dataclasses.replace(
            model.fingerprint,
            layout=tuple((point.qualified(n), tuple(t.shape)) for point in points for n, t in point.tensors.items()),
        ),
    )


@dataclass(frozen=True, eq=False)
class Asked:
    """An engine on a finished cache, and one answer."""

    trained: Trained
    engine: Engine
    answer: Answer
    normalisation: str

    def divided(self, tokens: dict[str, list[Gradient]]) -> dict[str, list[Gradient]]:
        """Token gradients at every checkpoint, divided by the norms of their mean: of each tensor, or of everything."""
        norms = {
            checkpoint: {name: float(part.norm()) for name, part in mean(parts).items()}
            for checkpoint, parts in tokens.items()
        }
        whole = sum(norm**2 for own in norms.values() for norm in own.values()) ** 0.5
        by: Callable[[float], float] = {"layer": lambda norm: norm, "cosine": lambda norm: whole}.get(
            self.normalisation, lambda norm: 1.0
        )
        return {
            checkpoint: [{name: part / by(norms[checkpoint][name]) for name, part in g.items()} for g in parts]
            for checkpoint, parts in tokens.items()
        }

    def matrix(self, row: int) -> NDArray[np.float64]:
        """M[j, i] = Σ_c e_c·η_c·⟨∇L(t^j), ∇L(s^i)⟩ at checkpoint c, both sides normalised."""
        outputs = self.divided(self.trained.tokens(self.answer.encoded))
        inputs = self.divided(self.trained.tokens(self.engine.store.examples[row].encoded))
        return sum(
            (
                weight * np.array([along(inputs[checkpoint], output) for output in outputs[checkpoint]])
                for checkpoint, weight in self.trained.weights.items()
            ),
            np.zeros(()),
        )


@pytest.fixture(scope="module", params=NORMALISATIONS)
def asked(request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    settings = CacheSettings(length=1024, token_length=256, normalisation=request.param)
    examples = read_examples(trained.data)[:2]
    folder = tmp_path_factory.mktemp("cache") / "cache"
    store = build_cache(trained.model, examples, folder, settings, tokens=0, data_name="train.jsonl")
    engine = Engine(trained.model, store)
    return Asked(trained, engine, engine.given_answer("What is bright?", "The sun."), request.param)


def test_the_four_influences_equal_explicit_loops(asked: Asked) -> None:
    engine, answer = asked.engine, asked.answer
    for row in range(2):
        matrix = asked.matrix(row)
        assert matrix.shape == (len(answer.tokens), len(engine.store.examples[row].tokens))
        size = ALLOWED * float(np.abs(matrix).max())
        selections: list[Span | None] = [None, (1, 4), *[(place, place + 1) for place in range(len(answer.tokens))]]
        for selection in selections:
            expected = matrix[slice(*selection) if selection else slice(None)].mean(axis=0)
            found = asking(engine).refine(answer, selection, row)
            assert found.values is not None
            np.testing.assert_allclose(found.values, expected, rtol=0, atol=size)
            assert found.score == pytest.approx(expected.mean(), abs=size)


def test_the_positions_of_an_example_share_its_influence(asked: Asked) -> None:
    engine, answer, trained = asked.engine, asked.answer, asked.trained
    encoded = engine.store.examples[1].encoded
    outputs = asked.divided(trained.tokens(answer.encoded))
    # Dividing the question by the example's norms too is dividing the example's gradient by them.
    example = trained.tokens(encoded)
    quotient = asked.divided(example)
    expected = np.zeros(len(encoded.ids))
    for checkpoint, weight in trained.weights.items():
        factors = {
            name: float(part.norm() / mean(example[checkpoint])[name].norm())
            for name, part in mean(quotient[checkpoint]).items()
        }
        direction = {name: weight * factors[name] * part for name, part in mean(outputs[checkpoint]).items()}
        with trained.moment(checkpoint) as network:
            expected += explicit_shares(network, encoded, direction)
    found = asking(engine).locate(answer, None, 1)
    close(found.positions, expected)
    assert expected.sum() == pytest.approx(found.score, abs=ALLOWED * float(np.abs(expected).max()))


def test_a_backward_pass_of_its_own_agrees_with_the_token_values(asked: Asked) -> None:
    for row in range(2):
        checked = asking(asked.engine).check(asked.answer, None, row)
        assert checked.values is not None and checked.checksum is not None
        error = checked.checksum * abs(checked.score)
        assert error < ALLOWED * float(np.abs(checked.values).max())


# Experts whose products are grouped


def test_grouped_products_of_experts_agree_with_the_loop_over_them(tmp_path: Path) -> None:
    study = load_study(CASES["Mixtral, all parameters"], tmp_path)
    model = load_model(str(tmp_path / "base"), device="cpu", precision="float32")
    assert model.network.config._experts_implementation == "grouped_mm" and state(model)[1] == "grouped_mm"
    for item, (losses, tokens) in zip(study.batch, study.expected, strict=True):
        close(gradients.token_losses(model, [item])[0], losses)
        same(gradients.gradient(model, item), mean(tokens))
        close(gradients.directional_token_losses(model, item, study.direction), along(tokens, study.direction))


# 4-bit weights


def test_a_model_of_four_bit_weights_equals_one_of_the_weights_they_stand_for(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    base = save_tiny_relative(tmp_path / "base", "llama", hidden_size=64, intermediate_size=128)
    adapter = save_tiny_change(tmp_path / "adapter", base, lora()())
    model = load_model(str(base), adapter, device="cpu", precision="4bit")
    assert model.fingerprint.precision == "4bit"
    modules = dict(model.network.named_modules())
    # Bitsandbytes computes in float32 at most; so does the network that it is compared with.
    network = load_model(str(base), adapter, device="cpu", precision="float32").network
    quantised = 0
    for name, module in network.named_modules():
        if type(modules[name]) is bitsandbytes.nn.Linear4bit:
            weight = modules[name].weight
            with torch.no_grad():
                module.weight.copy_(bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state))
            quantised += 1
    assert quantised == 14, "every linear layer within the blocks is quantised"

    study = Study(Case("llama", lora()), tmp_path, model, network, state(model))
    for _ in range(2):
        test_token_losses_equal_those_of_full_logits(study)
        test_token_gradients_equal_one_backward_pass_each(study)
        test_gradients_of_a_batch_equal_those_one_by_one(study)
        test_values_along_a_direction_equal_the_loop_over_tokens(study)
        test_each_position_has_the_share_of_a_copy_of_the_tensors_used_there_alone(study)
        gradients.directional_token_losses(model, study.batch[0], study.direction)
        assert state(model) == study.untouched
        # Once more after generating: without gradients, bitsandbytes may keep its weights in another order.
        with torch.no_grad():
            model.network(input_ids=torch.from_numpy(study.batch[0].ids)[None])
