"""Gradients as AdamW scales them: second moments kept by finetune, and products beside whole matrices in float64."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from explorer.cache.manifest import CacheSettings
from explorer.engine import Engine
from explorer.errors import MethodError, ModelError
from explorer.methods.attributor import Attributor
from explorer.methods.opening import open_method
from explorer.model.loading import load_model
from explorer.records import Answer, Selection
from explorer.serving.session import open_engine
from explorer.training import adamw
from explorer.training.recipe import FinetuneSettings
from explorer.training.replay import Replay, Trail
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.conftest import Tiny
from tests.explicit import Explicit

RECIPE = FinetuneSettings(
    rank=2, targets=("q_proj", "o_proj"), epochs=4, learning_rate=0.02, batch_size=3, checkpoints=2
)
LOSSLESS = 1 << 20
"""A sketch this long has a number for every parameter of a tiny model."""
CHECKPOINTS = {"layer": "1,final", "cosine": "40%,80%", "none": "final"}
"""By the cache's normalisation, where its gradients are taken."""


@pytest.fixture(scope="module")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained here, and caches of it at checkpoints, on the way, and at the end."""
    folder = tmp_path_factory.mktemp("adam")
    rows = read_examples(tiny.data)
    finetune(load_model(str(tiny.model), device="cpu"), rows, folder / "adapter", RECIPE, lambda *_: None)
    for kind, checkpoints in CHECKPOINTS.items():
        model = load_model(str(tiny.model), folder / "adapter", device="cpu", checkpoints=checkpoints)
        settings = CacheSettings(LOSSLESS, 1024, normalisation=kind)
        build_cache(model, rows, folder / kind, settings, tokens=0, data_name="train.jsonl")
    return folder


def question(engine: Engine) -> Answer:
    return engine.given_answer("What shines?", "The moon and the sun.")


def test_the_second_moments_kept_are_those_of_the_training(tiny: Tiny, folder: Path) -> None:
    model = load_model(str(tiny.model), folder / "adapter", device="cpu")
    rows = [model.encode(example.messages, example.response) for example in read_examples(tiny.data)]
    replay = Replay(model, RECIPE, rows)
    for name, steps in (("1", 6), ("final", 12)):
        kept = load_file(folder / "adapter" / "moments" / f"{name}.safetensors")
        moments = replay.shaped(Trail(replay, steps, lambda *_: None).end[2] / adamw.corrections(steps)[1])
        assert kept.keys() == moments.keys()
        for own, moment in moments.items():
            assert kept[own].dtype == torch.bfloat16
            assert torch.allclose(kept[own].float(), moment, rtol=0.005, atol=0)


@pytest.mark.parametrize("selection", [None, (1, 3)])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_products_agree_with_float64(tiny: Tiny, folder: Path, kind: str, selection: Selection) -> None:
    engine = open_engine(folder / kind, device="cpu")
    expected: NDArray[np.float64] = sum(  # type: ignore[assignment]
        part * point.share
        for part, point in zip(parts(tiny, folder, kind, selection), engine.model.checkpoints, strict=True)
    )
    found = open_method(engine, "adam").scores(question(engine), selection)
    expected = expected * engine.store.manifest.training.scale
    # Sketches are kept as float16, and multiplied to 11 bits.
    assert np.abs(found - expected).max() < 3e-3 * np.abs(expected).max()


def parts(tiny: Tiny, folder: Path, kind: str, selection: Selection) -> list[NDArray[np.float64]]:
    """Every checkpoint's ⟨P∇L(t), ∇L(s_k)⟩ (N), all of them divided by the norms of all checkpoints together."""
    moments = at_checkpoints(tiny, folder, CHECKPOINTS[kind])
    all_of_question = np.concatenate([each.mean(axis=0) for _, each, _ in moments])
    sizes = [np.linalg.norm(np.concatenate(each)) for each in zip(*(rows for _, _, rows in moments), strict=True)]
    found = []
    for explicit, each, rows in moments:
        start, stop = selection if isinstance(selection, tuple) else (0, len(each))
        q, whole = each[start:stop].mean(axis=0), each.mean(axis=0)
        if kind == "layer":
            q, rows = explicit.divided(q, whole, kind), [explicit.divided(row, row, kind) for row in rows]
        if kind == "cosine":
            q = q / np.linalg.norm(all_of_question)
            rows = [row / size for row, size in zip(rows, sizes, strict=True)]
        found.append(np.array([row @ q for row in rows]))
    return found


@cache
def at_checkpoints(
    tiny: Tiny, folder: Path, checkpoints: str
) -> list[tuple[Explicit, NDArray[np.float64], list[NDArray[np.float64]]]]:
    """By checkpoint: P∇L(t^j) of every token of the question (G, D), and ∇L(s_k) of every row (D)."""
    model = load_model(str(tiny.model), folder / "adapter", device="cpu", precision="float64", checkpoints=checkpoints)
    rows = [model.encode(example.messages, example.response) for example in read_examples(tiny.data)]
    asked = model.encode([{"role": "user", "content": "What shines?"}], "The moon and the sun.")
    found = []
    for point in model.checkpoints:
        explicit = Explicit(model, {**point.tensors})
        moments = load_file(folder / "adapter" / "moments" / f"{'1' if point.name == '1' else 'final'}.safetensors")
        flat = np.concatenate([moments[name].double().numpy().reshape(-1) for name in point.tensors])
        preconditioned = explicit.token_gradients(asked) / (np.sqrt(flat) + 1e-8)
        found.append((explicit, preconditioned, [explicit.gradient(row) for row in rows]))
    return found


def test_token_values_average_to_the_score(folder: Path) -> None:
    engine = open_engine(folder / "layer", device="cpu")
    method, answer = open_method(engine, "adam"), question(engine)
    scores, values = method.scores(answer, None), method.values(answer, None, 3)
    assert values is not None and values.mean() == pytest.approx(scores[3], abs=2e-3 * float(np.abs(scores).max()))


def test_another_normalisation_than_the_caches_can_be_named(folder: Path) -> None:
    engine = open_engine(folder / "none", device="cpu")
    answer = question(engine)
    plain, cosine = (open_method(engine, name).scores(answer, None) for name in ("adam", "adam:cosine"))
    size = np.linalg.norm(engine.store.norms, axis=1)
    assert np.corrcoef(plain / size, cosine)[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(plain, cosine)[0, 1] < 0.9999
    with pytest.raises(MethodError, match="takes a normalisation, one of layer, cosine, none; not odd"):
        open_method(engine, "adam:odd").scores(answer, None)


def test_an_adapter_whose_moments_were_not_kept_is_refused_before_there_is_work(tiny: Tiny) -> None:
    with pytest.raises(MethodError, match=r"needs the second moments .* they weren't kept; .* finetune"):
        Attributor(open_method(open_engine(tiny.cache, device="cpu"), "adam")).cost()


def test_moments_of_another_adapter_are_refused(folder: Path) -> None:
    engine = open_engine(folder / "none", device="cpu")
    path = folder / "adapter" / "moments" / "final.safetensors"
    before, tensors = path.read_bytes(), load_file(path)
    try:
        save_file(dict(list(tensors.items())[1:]), path)
        with pytest.raises(ModelError, match=r"second moments .*final.safetensors.* lacks"):
            Attributor(open_method(engine, "adam")).cost()
    finally:
        path.write_bytes(before)
