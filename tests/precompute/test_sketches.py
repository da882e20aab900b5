"""Shards of example sketches: normalised on the way, the same in batches, finished where a run stopped."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import peft
import pytest
import torch

import precompute.build
from explorer import gradients
from explorer.cache.files import file_sha256
from explorer.cache.manifest import CacheSettings
from explorer.cache.shards import Arrays
from explorer.cache.store import Store, open_cache
from explorer.engine import make_sketcher
from explorer.errors import MismatchError, UnsupportedError
from explorer.gradients.sketch import Sketcher
from explorer.methods.opening import open_method
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.normalisation import KINDS, divisors
from explorer.records import Encoded
from explorer.serving.session import open_engine
from precompute import batching
from precompute.batching import SIZES, fastest_batch
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.sketches import NormalisedSketch, sketch_shard
from tests.conftest import Tiny
from tests.tiny import ROWS, save_tiny_change

SETTINGS = CacheSettings(length=4096, token_length=1024)


@pytest.fixture(params=["adapter", "all parameters"], scope="module")
def model(request: pytest.FixtureRequest, tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter if request.param == "adapter" else None, device="cpu")


@pytest.fixture(scope="module")
def untold(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model some of whose tensors' gradients can't be told apart by sequence."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], use_dora=True)
    adapter = save_tiny_change(tmp_path_factory.mktemp("untold") / "adapter", tiny.model, config)
    return load_model(str(tiny.model), adapter, device="cpu")


def encoded(model: LanguageModel) -> list[Encoded]:
    return [model.encode([{"role": "user", "content": row["prompt"]}], row["response"]) for row in ROWS]


def shard(model: LanguageModel, settings: CacheSettings, rows: Sequence[tuple[int, Encoded]]) -> Arrays:
    """The shard of some rows, whose steps were one a row."""
    *steps, arrays = sketch_shard(model, make_sketcher(model, settings), settings, rows)
    assert steps == [None] * len(rows) and arrays is not None
    return arrays


def values(arrays: Arrays) -> np.ndarray:
    return arrays["sketch"].astype(np.float32) * arrays["scale"][:, None]


# Normalisation on the way


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_normalised_on_the_way_has_the_sketch_of_the_divided_gradient(
    model: LanguageModel, kind: str
) -> None:
    sketcher = make_sketcher(model, SETTINGS)
    gradient = gradients.gradient(model, encoded(model)[0])
    norms = gradients.norms(gradient)
    assert norms.max() > 1.5 * norms.min() > 0, "the kinds must differ"
    growing = NormalisedSketch(sketcher, list(gradient), kind)
    for name in reversed(gradient):
        growing.add({name: gradient[name]})
    expected = sketcher(gradients.divided(gradient, divisors(norms, kind)))
    np.testing.assert_allclose(growing.values(), expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))
    np.testing.assert_allclose(growing.norms, norms, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_zeros_and_tensors_that_never_come_have_norm_zero(model: LanguageModel, kind: str) -> None:
    sketcher = make_sketcher(model, SETTINGS)
    names = [name for name, _ in model.fingerprint.layout]
    nothing = NormalisedSketch(sketcher, names, kind)
    assert not nothing.values().any() and nothing.norms.tolist() == [0.0] * len(names)
    some = NormalisedSketch(sketcher, names, kind)
    some.add({names[0]: torch.zeros_like(model.trainable[names[0]])})
    some.add({names[1]: torch.ones_like(model.trainable[names[1]])})
    assert np.isfinite(some.values()).all() and some.values().any()
    assert [float(norm) > 0 for norm in some.norms] == [False, True] + [False] * (len(names) - 2)


# Batches


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_made_in_batches_equals_one_made_one_by_one(model: LanguageModel, kind: str) -> None:
    rows = [(10 + row, item) for row, item in enumerate(encoded(model))]
    lengths = [len(item.ids) for _, item in rows]
    assert lengths != sorted(lengths), "batches must change the order of the work"
    alone, together = (
        shard(model, dataclasses.replace(SETTINGS, normalisation=kind, batch=batch), rows) for batch in (1, 3)
    )
    assert alone.keys() == together.keys()
    np.testing.assert_allclose(together["norms"], alone["norms"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=1e-4)
    # Float16 keeps eleven bits, so entries may differ by one of its steps.
    found, expected = values(together), values(alone)
    for row in range(len(rows)):
        error = np.linalg.norm(found[row] - expected[row]) / np.linalg.norm(expected[row])
        assert error < 5e-4, f"row {row} is off by {error:.1e} of its length"


def test_float32_sketches_made_in_batches_differ_by_less_than_one_in_ten_thousand(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precompute.sketches.quantise", lambda found, dtype: (found, np.ones(len(found))))
    rows = list(enumerate(encoded(model)))
    alone, together = (shard(model, dataclasses.replace(SETTINGS, batch=batch), rows)["sketch"] for batch in (1, 3))
    error = np.linalg.norm(together - alone, axis=1) / np.linalg.norm(alone, axis=1)
    assert error.max() < 1e-4, f"a row is off by {error.max():.1e} of its length"


def test_rows_keep_their_order_in_a_shard_made_in_batches(model: LanguageModel) -> None:
    items = encoded(model)
    by_length = sorted(range(len(items)), key=lambda row: -len(items[row].ids))
    found = shard(model, dataclasses.replace(SETTINGS, batch=3), [(row, items[row]) for row in by_length])
    for place, row in enumerate(by_length):
        expected = shard(model, SETTINGS, [(row, items[row])])
        np.testing.assert_allclose(found["norms"][place], expected["norms"][0], rtol=1e-4, atol=1e-7)
        assert found["loss"][place] == pytest.approx(expected["loss"][0], rel=1e-4)


def test_a_batch_of_tensors_that_cannot_be_told_apart_is_refused_by_name(untold: LanguageModel) -> None:
    rows = list(enumerate(encoded(untold)))
    with pytest.raises(UnsupportedError, match=r"^\S+q_proj\.lora_magnitude_vector\S+ belongs to a DoraLinearLayer"):
        shard(untold, dataclasses.replace(SETTINGS, batch=2), rows)
    assert np.isfinite(values(shard(untold, SETTINGS, rows))).all()


# How large batches are


def fastest(model: LanguageModel, items: Sequence[Encoded]) -> int:
    return fastest_batch(model, make_sketcher(model, SETTINGS), SETTINGS, items)


def test_the_fastest_batch_is_one_of_the_sizes_that_are_tried(model: LanguageModel) -> None:
    assert fastest(model, encoded(model)) in (1, *SIZES)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39, 16: 0.1}, 4),
        ({1: 1.0, 2: 0.99, 4: 0.1, 8: 0.1, 16: 0.1}, 1),
        ({1: 1.0, 2: 0.9, 4: 0.8, 8: 0.7, 16: 0.6}, 16),
    ],
    ids=["until nothing is gained", "not for a twentieth", "up to the largest"],
)
def test_batches_grow_while_that_saves_time(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], expected: int
) -> None:
    monkeypatch.setattr(batching, "_seconds", lambda model, sketcher, settings, sample: seconds[settings.batch])
    monkeypatch.setattr(batching, "_MOST_TOKENS", 1 << 20)
    assert fastest(model, 3 * encoded(model)) == expected


def test_a_processor_tries_no_batch_of_very_many_tokens(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_seconds", lambda model, sketcher, settings, sample: 1 / settings.batch)
    longest = max(len(item.ids) for item in encoded(model))
    monkeypatch.setattr(batching, "_MOST_TOKENS", 4 * longest)
    assert fastest(model, 8 * [max(encoded(model), key=lambda item: len(item.ids))]) == 4


def test_a_batch_is_never_larger_than_the_data(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_seconds", lambda model, sketcher, settings, sample: 1 / settings.batch)
    assert fastest(model, encoded(model)) == 4 < len(ROWS) < 8
    assert fastest(model, encoded(model)[:1]) == 1


def test_batches_stop_growing_where_memory_ends(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(model: LanguageModel, sketcher: Sketcher, settings: CacheSettings, sample: Sequence[Encoded]) -> float:
        if settings.batch > 2:
            raise torch.OutOfMemoryError
        return 1 / settings.batch

    monkeypatch.setattr(batching, "_seconds", seconds)
    assert fastest(model, encoded(model)) == 2


def test_tensors_that_cannot_be_told_apart_are_taken_one_by_one(untold: LanguageModel) -> None:
    assert fastest(untold, encoded(untold)) == 1


# A run that was stopped, and taken up again


def build(tiny: Tiny, folder: Path, batch: int, stop_after: int = 0, mixed: bool = False) -> Store:
    """A cache of all rows; the run is stopped after so many examples, if at all."""

    def report(stage: str, done: int, total: int) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    settings = CacheSettings(length=1024, token_length=256, batch=batch, mixed_precision=mixed)
    return build_cache(model, read_examples(tiny.data), folder, settings, 2, "train.jsonl", report)


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_a_stopped_run_in_batches_ends_with_the_bytes_of_an_undisturbed_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", 3)
    build(tiny, tmp_path / "undisturbed", batch=2)
    with pytest.raises(KeyboardInterrupt):
        build(tiny, tmp_path / "stopped", batch=2, stop_after=5)
    assert [one.count for one in open_cache(tmp_path / "stopped").shards] == [3]
    build(tiny, tmp_path / "stopped", batch=2)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "undisturbed")


def test_a_stopped_run_is_not_taken_up_with_batches_of_another_size(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", 3)
    with pytest.raises(KeyboardInterrupt):
        build(tiny, tmp_path / "cache", batch=2, stop_after=4)
    before = digests(tmp_path / "cache")
    with pytest.raises(MismatchError, match="already holds a cache with another settings; give another folder"):
        build(tiny, tmp_path / "cache", batch=3)
    assert digests(tmp_path / "cache") == before


def test_a_stopped_run_keeps_its_batches_when_the_fastest_are_asked_for(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", 3)
    monkeypatch.setattr(precompute.build, "fastest_batch", lambda *_: 2)
    with pytest.raises(KeyboardInterrupt):
        build(tiny, tmp_path / "cache", batch=0, stop_after=4)
    monkeypatch.setattr(precompute.build, "fastest_batch", lambda *_: 4)
    store = build(tiny, tmp_path / "cache", batch=0)
    assert store.complete and store.manifest.settings.batch == 2


# Mixed precision


@pytest.mark.parametrize("batch", [1, 2])
def test_sketches_in_mixed_precision_are_about_those_in_float32(tiny: Tiny, batch: int) -> None:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu", checkpoints="50%,100%", tensors="lora_B")
    rows = list(enumerate(encoded(model)))
    single, mixed = (
        shard(model, dataclasses.replace(SETTINGS, batch=batch, mixed_precision=mixed), rows) for mixed in (False, True)
    )
    one, other = values(single), values(mixed)
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert not np.array_equal(one, other) and cosines.min() > 0.999
    np.testing.assert_allclose(mixed["norms"], single["norms"], rtol=0.05)
    np.testing.assert_allclose(mixed["loss"], single["loss"], rtol=0.01)


def test_a_stopped_run_in_mixed_precision_ends_with_the_bytes_of_an_undisturbed_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute.build, "EXAMPLES_PER_SHARD", 3)
    made = build(tiny, tmp_path / "undisturbed", batch=2, mixed=True)
    with pytest.raises(KeyboardInterrupt):
        build(tiny, tmp_path / "stopped", batch=2, stop_after=5, mixed=True)
    with pytest.raises(MismatchError, match="already holds a cache with another settings"):
        build(tiny, tmp_path / "stopped", batch=2)
    build(tiny, tmp_path / "stopped", batch=2, mixed=True)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "undisturbed")
    tokens = made.shards_of("tokens")[0]
    (tmp_path / "undisturbed" / tokens.file).write_bytes(b"damaged")
    build(tiny, tmp_path / "undisturbed", batch=2, mixed=True)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "undisturbed"), "mended in the precision of the cache"


def test_the_manifest_of_a_cache_in_float32_has_no_word_of_mixed_precision(tiny: Tiny, tmp_path: Path) -> None:
    """As all from before there was any: such a cache keeps its bytes, and is read as one in float32."""
    single, mixed = (build(tiny, tmp_path / str(each), batch=2, mixed=each) for each in (False, True))
    assert b"mixed_precision" not in (single.folder / "manifest.json").read_bytes()
    assert not open_cache(single.folder).manifest.settings.mixed_precision
    assert open_cache(mixed.folder).manifest.settings.mixed_precision


@pytest.mark.parametrize("name", ["rapidin", "gradcos"])
def test_exact_values_over_a_cache_in_mixed_precision_are_those_over_one_in_float32(
    tiny: Tiny, tmp_path: Path, name: str
) -> None:
    """They are divided by norms in float32, which such a cache doesn't have."""
    found, norms = [], []
    for mixed in (False, True):
        engine = open_engine(build(tiny, tmp_path / str(mixed), batch=2, mixed=mixed).folder, device="cpu")
        answer, method = engine.given_answer("What shines by day?", "It is the moon."), open_method(engine, name)
        method.fit()
        engine.ask(answer, None)
        found.append([method.values(answer, None, row) for row in range(3)])
        norms.append(engine.store.norms)
    assert not np.allclose(norms[0], norms[1], rtol=1e-4)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(np.abs(one).max()))
