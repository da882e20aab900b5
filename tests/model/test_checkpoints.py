"""Influence summed over checkpoints of the training (Eq. 4)."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.cache.store import open_cache
from explorer.corpus import browse
from explorer.engine import Engine
from explorer.errors import MismatchError, ModelError
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.loading import load_model
from explorer.records import Encoded
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.asking import asking
from tests.conftest import Tiny


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with three checkpoints, the last being itself."""
    out = tmp_path_factory.mktemp("trained") / "adapter"
    settings = FinetuneSettings(
        rank=2, targets=("q_proj", "o_proj"), epochs=3, learning_rate=0.02, batch_size=2, checkpoints=3
    )
    finetune(
        load_model(str(tiny.model), device="cpu"), read_examples(tiny.data), out, settings, lambda step, of, loss: None
    )
    return out


@pytest.fixture(scope="module")
def engine(tiny: Tiny, trained: Path) -> Engine:
    """A cache over all three checkpoints."""
    return summed(tiny, trained, "all", tokens=2)


@pytest.fixture(scope="module")
def two(tiny: Tiny, trained: Path) -> Engine:
    """A cache over two of the checkpoints."""
    return summed(tiny, trained, "1,final", tokens=0)


def summed(tiny: Tiny, trained: Path, checkpoints: str, tokens: int) -> Engine:
    """A cache over the named checkpoints, opened."""
    model = load_model(str(tiny.model), trained, device="cpu", checkpoints=checkpoints)
    cache = trained.parent / f"cache of {checkpoints}"
    settings = CacheSettings(4096, 1024)
    build_cache(model, read_examples(tiny.data), cache, settings, tokens=tokens, data_name="train.jsonl")
    return open_engine(cache, device="cpu")


def at(model: LanguageModel, checkpoint: Checkpoint) -> LanguageModel:
    """The same model with its gradients taken at one checkpoint alone."""
    return dataclasses.replace(model, checkpoints=(Checkpoint("", checkpoint.tensors),))


def normalised(model: LanguageModel, encoded: Encoded) -> list[gradients.Gradient]:
    norms = gradients.norms(gradients.gradient(model, encoded))
    return [gradients.divided(g, norms) for g in gradients.token_gradients(model, encoded)]


def test_finetune_keeps_the_checkpoints_with_their_learning_rates(trained: Path) -> None:
    record = json.loads((trained / "training.json").read_text(encoding="utf-8"))
    kept = record["checkpoints"]
    assert [point["name"] for point in kept] == ["1", "2", "final"]
    assert sum(point["epochs"] for point in kept) == pytest.approx(3)
    rates = [point["learning_rate"] for point in kept]
    assert rates == sorted(rates, reverse=True), "the learning rate decays"
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["1.safetensors", "2.safetensors"]


def test_the_checkpoints_differ_and_the_last_is_the_adapter(engine: Engine) -> None:
    first, second, final = engine.model.checkpoints
    name = next(name for name in first.tensors if "lora_B" in name)
    assert not np.allclose(first.tensors[name].detach(), second.tensors[name].detach())
    assert final.tensors[name] is engine.model.trainable[name]


@pytest.mark.parametrize("selection", [None, (2, 3)])
def test_influence_is_the_weighted_sum_over_checkpoints(engine: Engine, selection: tuple[int, int] | None) -> None:
    answer = engine.given_answer("What is bright?", "It is the sun.")
    weights = dict(engine.model.training.checkpoints)
    for row in range(3):
        expected = np.zeros(len(engine.store.examples[row].tokens))
        for checkpoint in engine.model.checkpoints:
            model = at(engine.model, checkpoint)
            outputs = normalised(model, answer.encoded)
            inputs = normalised(model, engine.store.examples[row].encoded)
            matrix = np.array([[gradients.inner_product(q, g) for g in inputs] for q in outputs])
            chosen = matrix if selection is None else matrix[slice(*selection)]
            expected += weights[checkpoint.name] * chosen.mean(axis=0)
        found = asking(engine).check(answer, selection, row)
        assert found.values is not None and found.checksum is not None
        np.testing.assert_allclose(found.values, expected, rtol=5e-4, atol=1e-6)
        assert found.checksum < 1e-4


@pytest.mark.parametrize("selection", [None, (2, 3), (1, 4)])
def test_what_an_example_did_to_output_tokens_is_the_weighted_sum_over_checkpoints(
    two: Engine, selection: tuple[int, int] | None
) -> None:
    answer = two.given_answer("What is bright?", "It is the sun.")
    weights = dict(two.model.training.checkpoints)
    assert list(weights) == ["1", "final"] and weights["1"] > 1.5 * weights["final"], "equal weights prove nothing"
    for row in range(3):
        expected = np.zeros(len(answer.tokens))
        for checkpoint in two.model.checkpoints:
            model = at(two.model, checkpoint)
            outputs = normalised(model, answer.encoded)
            inputs = normalised(model, two.store.examples[row].encoded)
            matrix = np.array([[gradients.inner_product(q, g) for g in inputs] for q in outputs])
            chosen = matrix if selection is None else matrix[:, slice(*selection)]
            expected += weights[checkpoint.name] * chosen.mean(axis=1)
        found = asking(two).output_values(answer, row, selection)
        np.testing.assert_allclose(found, expected, rtol=5e-4, atol=1e-6)
        if selection is None:
            assert found.mean() == pytest.approx(asking(two).refine(answer, None, row).score, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("selection", [None, (2, 3)])
def test_the_positions_over_checkpoints_sum_to_the_score(two: Engine, selection: tuple[int, int] | None) -> None:
    answer = two.given_answer("What is bright?", "It is the sun.")
    for row in range(3):
        found = asking(two).locate(answer, selection, row)
        assert found.positions is not None
        size = float(np.abs(found.positions).sum())
        assert found.positions.sum() == pytest.approx(found.score, abs=2e-5 * size)


@pytest.mark.parametrize("selection", [None, (2, 3)])
def test_the_gradient_over_checkpoints_is_each_ones_own_side_by_side(
    engine: Engine, selection: tuple[int, int] | None
) -> None:
    encoded = engine.store.examples[0].encoded
    found = gradients.gradient(engine.model, encoded, selection)
    assert list(found) == [name for name, _ in engine.model.fingerprint.layout]
    for checkpoint in engine.model.checkpoints:
        own = gradients.gradient(at(engine.model, checkpoint), encoded, selection)
        for name, part in own.items():
            np.testing.assert_allclose(found[checkpoint.qualified(name)], part, rtol=1e-5, atol=1e-8)


def test_the_shares_of_positions_over_checkpoints_sum_to_the_inner_product(engine: Engine) -> None:
    encoded = engine.store.examples[0].encoded
    direction = gradients.gradient(engine.model, engine.store.examples[1].encoded)
    shares = gradients.position_shares(engine.model, encoded, direction)
    expected = gradients.inner_product(gradients.gradient(engine.model, encoded), direction)
    assert shares.sum() == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(np.abs(shares).max()))


def test_a_batch_over_checkpoints_gives_the_gradients_of_each_checkpoint(engine: Engine) -> None:
    pair = [example.encoded for example in engine.store.examples[:2]]
    found: list[gradients.Gradient] = [{}, {}]
    for checkpoint in engine.model.checkpoints:
        gradients.example_gradients(engine.model, checkpoint, pair, lambda place, parts: found[place].update(parts))
    for encoded, own in zip(pair, found, strict=True):
        expected = gradients.gradient(engine.model, encoded)
        assert own.keys() == expected.keys()
        for name, part in expected.items():
            np.testing.assert_allclose(own[name], part, rtol=1e-3, atol=1e-5 * float(part.norm()), err_msg=name)


def test_sketched_scores_over_checkpoints_approximate_the_exact_ones(engine: Engine) -> None:
    answer = engine.given_answer("What is bright?", "It is the sun.")
    asking(engine).ask(answer, None)
    scores = asking(engine).ranking(answer, None).scores
    exact = [asking(engine).refine(answer, None, row).score for row in range(len(scores))]
    noise = asking(engine).ranking(answer, None).sketch_error
    assert np.abs(scores - exact).max() < 5 * noise


def test_one_checkpoint_may_be_chosen_and_an_unknown_one_is_refused(tiny: Tiny, trained: Path) -> None:
    model = load_model(str(tiny.model), trained, device="cpu", checkpoints="2")
    assert [checkpoint.name for checkpoint in model.checkpoints] == ["2"]
    with pytest.raises(ModelError, match=r"lists no checkpoint 7; it has: 1, 2, final"):
        load_model(str(tiny.model), trained, device="cpu", checkpoints="7")
    with pytest.raises(ModelError, match="train with --checkpoints"):
        load_model(str(tiny.model), tiny.adapter, device="cpu", checkpoints="all")


def test_a_cache_over_other_checkpoints_is_refused(tiny: Tiny, trained: Path, engine: Engine) -> None:
    final = load_model(str(tiny.model), trained, device="cpu")
    with pytest.raises(MismatchError):
        open_cache(engine.store.folder).check_model(final.fingerprint)


def test_self_influence_is_the_weighted_sum_over_checkpoints(engine: Engine) -> None:
    weights, own = dict(engine.model.training.checkpoints), browse.self_influence(engine.store)
    assert len(set(weights.values())) == 3, "equal weights prove nothing"
    for row in range(3):
        expected = 0.0
        for checkpoint in engine.model.checkpoints:
            g = gradients.gradient(at(engine.model, checkpoint), engine.store.examples[row].encoded)
            expected += weights[checkpoint.name] * gradients.inner_product(g, g)
        assert own[row] == pytest.approx(expected, rel=1e-3)
