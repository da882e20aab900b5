"""Methods: how they are named, what is kept of them, and that each ranks."""

import json
from pathlib import Path

import numpy as np
import pytest

from explorer.cache.manifest import METHODS as FOLDER
from explorer.cache.manifest import CacheSettings
from explorer.cache.store import open_cache
from explorer.cache.verify import verify
from explorer.engine import Engine
from explorer.errors import MethodError
from explorer.methods.abilities import ABILITIES
from explorer.methods.attributor import Attributor
from explorer.methods.description import METHODS, askable, choose
from explorer.methods.fitted import keep_fitted, key_of, read_fitted, try_to_keep
from explorer.methods.opening import CLASSES, open_method
from explorer.model.loading import load_model
from explorer.records import Can
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import append_examples, build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.conftest import Tiny
from tests.tiny import save_tiny_data, save_tiny_encoder

SMALL = {"cg": ":2", "ekfac-cg": ":2", "lissa": ":4", "arnoldi": ":2"}


@pytest.fixture(scope="module")
def engine(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A cache of an adapter on attention and MLPs, so that every method can be asked."""
    folder = tmp_path_factory.mktemp("methods")
    recipe = FinetuneSettings(rank=2, targets=("q_proj", "up_proj"), epochs=3, learning_rate=0.05)
    base = load_model(str(tiny.model), device="cpu")
    finetune(base, read_examples(tiny.data), folder / "adapter", recipe, lambda *_: None)
    model = load_model(str(tiny.model), folder / "adapter", device="cpu")
    settings = CacheSettings(4096, 1024, normalisation="cosine")
    rows = read_examples(tiny.data)
    build_cache(model, rows, folder / "cache", settings, tokens=0, data_name="train.jsonl", null_prompts=3)
    return open_engine(folder / "cache", device="cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def test_every_described_method_is_there_and_the_other_way_round() -> None:
    assert list(CLASSES) == list(METHODS)
    for name, described in METHODS.items():
        assert described.name == name
        assert described.family in ("no gradient", "first order", "second order", "whole training")
        assert all([described.what, described.assumes, described.costs])


@pytest.mark.parametrize("name", askable(followed=False))
@pytest.mark.parametrize("selection", [None, (3, 4)])
def test_every_method_ranks_all_examples(
    engine: Engine, encoder: Path, name: str, selection: tuple[int, int] | None
) -> None:
    value = f":{encoder}" if name == "embedding" else SMALL.get(name, "")
    method = open_method(engine, name + value, rows=2)
    answer = engine.given_answer("What shines?", "The moon and the sun.")
    method.fit()
    scores = method.scores(answer, selection)
    assert scores.shape == (7,) and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert len(set(scores.tolist())) > 1, "it tells examples apart"
    again = open_method(engine, name + value, rows=2).scores(answer, selection)
    # Where arrays lie in memory shows in the last bit of their products.
    np.testing.assert_allclose(again, scores, rtol=1e-5, atol=1e-6 * np.abs(scores).max())
    best = Attributor(method).exact_ranking(answer, selection, 3)
    worst = Attributor(method).exact_ranking(answer, selection, 3, opponents=True)
    assert len(best.influences) == len(worst.influences) == 3
    assert best.influences[0].score > worst.influences[0].score
    for influence in best.influences:
        assert (influence.values is not None) == METHODS[name].token_values
        if influence.values is not None:
            rounding = 1e-5 * float(np.abs(influence.values).max())
            assert float(influence.values.mean(dtype=float)) == pytest.approx(influence.score, abs=rounding)
    assert (engine.store.folder / FOLDER).is_dir() or not METHODS[name].fitted


@pytest.mark.parametrize("name", METHODS)
def test_a_method_can_do_what_its_description_says(engine: Engine, encoder: Path, name: str) -> None:
    method = open_method(engine, name)
    for ability, kind in ABILITIES.items():
        assert isinstance(method, kind) == method.chosen.can(ability), f"{name}: {ability.name}"
    assert set(ABILITIES) | {Can.TEXTS} == set(Can)


def test_a_value_makes_another_method_that_says_no_more_than_its_scores(engine: Engine) -> None:
    method = open_method(engine, "rapidin:256")
    assert not any(method.chosen.can(ability) or isinstance(method, kind) for ability, kind in ABILITIES.items())
    assert (method.chosen.written, open_method(engine, "rapidin").chosen.written) == ("rapidin:256", "")


@pytest.mark.parametrize("name", ["bm25", "embedding", "repsim", "cka"])
def test_methods_without_gradients_refuse_contrasts(engine: Engine, encoder: Path, name: str) -> None:
    answer = engine.given_answer("What shines?", "The moon and the sun.")
    contrast = engine.contrast(answer, (1, 2), "sun")
    value = f":{encoder}" if name == "embedding" else ""
    with pytest.raises(MethodError, match="can't say why this and not that"):
        open_method(engine, name + value).scores(answer, contrast)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("voodoo", "no method voodoo; `rapidin-explorer methods` lists them: rapidin, rapidin-centred"),
        ("bm25:3", "bm25 takes no value"),
        ("cg:", "cg takes VALUE: iterations"),
    ],
)
def test_a_method_that_is_not_there_is_refused(name: str, said: str) -> None:
    with pytest.raises(MethodError) as refused:
        choose(name)
    assert said in str(refused.value)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_value_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(MethodError, match=r"cg:VALUE takes iterations"):
        choose(f"cg:{value}").number(10)


# What is kept


@pytest.fixture
def cache(tiny: Tiny, tmp_path: Path) -> Path:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    settings = CacheSettings(256, 64)
    build_cache(model, read_examples(tiny.data), tmp_path / "cache", settings, tokens=0, data_name="train.jsonl")
    return tmp_path / "cache"


ARRAYS = {"vectors": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_what_was_fitted_is_read_again_for_the_same_settings_alone(cache: Path) -> None:
    store = open_cache(cache)
    key = key_of(store, rows=[1, 2], checkpoint="")
    assert read_fitted(store, "ekfac", key) is None
    keep_fitted(store, "ekfac", key, ARRAYS)
    again = open_cache(cache)
    found = read_fitted(again, "ekfac", key_of(again, rows=[1, 2], checkpoint=""))
    assert found is not None and np.array_equal(found["vectors"], ARRAYS["vectors"])
    assert read_fitted(again, "ekfac", key_of(again, rows=[1, 3], checkpoint="")) is None
    assert read_fitted(again, "ekfac-mlp", key) is None


@pytest.mark.parametrize("file", ["ekfac.json", "ekfac.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 200])
def test_what_is_damaged_counts_as_not_fitted(cache: Path, file: str, damage: bytes) -> None:
    store = open_cache(cache)
    keep_fitted(store, "ekfac", key_of(store), ARRAYS)
    (cache / FOLDER / file).write_bytes(damage)
    assert read_fitted(store, "ekfac", key_of(store)) is None


def test_one_flipped_bit_counts_as_not_fitted(cache: Path) -> None:
    store = open_cache(cache)
    keep_fitted(store, "ekfac", key_of(store), ARRAYS)
    path = cache / FOLDER / "ekfac.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    assert read_fitted(store, "ekfac", key_of(store)) is None


def test_verify_and_reopening_pass_over_what_was_fitted(cache: Path) -> None:
    store = open_cache(cache)
    keep_fitted(store, "ekfac", key_of(store), ARRAYS)
    assert verify(cache) == []
    open_cache(cache).check()


def test_a_folder_that_can_not_be_written_costs_the_fit_and_nothing_else(cache: Path) -> None:
    store = open_cache(cache)
    (cache / FOLDER).write_bytes(b"a file in its place")
    assert not try_to_keep(store, "ekfac", key_of(store), ARRAYS)
    assert read_fitted(store, "ekfac", key_of(store)) is None


def test_appending_data_makes_a_fit_void_and_leaves_it_alone(tiny: Tiny, cache: Path, tmp_path: Path) -> None:
    engine = open_engine(cache, device="cpu")
    answer = engine.given_answer("What shines?", "The moon.")
    open_method(engine, "repsim").scores(answer, None)
    kept = json.loads((cache / FOLDER / "repsim.json").read_text())
    more = save_tiny_data(tmp_path / "more.jsonl", [{"prompt": "What burns?", "response": "The sun."}])
    append_examples(engine.model, read_examples(more), cache, 0, "more.jsonl")
    assert json.loads((cache / FOLDER / "repsim.json").read_text()) == kept
    grown = open_engine(cache, device="cpu")
    assert open_method(grown, "repsim").scores(answer, None).shape == (8,)
    assert json.loads((cache / FOLDER / "repsim.json").read_text())["for"]["data"] != kept["for"]["data"]
