"""Every first- and second-order method against a plain float64 implementation with whole matrices."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache.manifest import CacheSettings
from explorer.cache.store import fold
from explorer.engine import Engine
from explorer.errors import MethodError, UnsupportedError
from explorer.methods.attributor import Attributor
from explorer.methods.first_order import directions, inner_products
from explorer.methods.first_order.directions import at_checkpoint
from explorer.methods.opening import open_method
from explorer.methods.second_order import influence
from explorer.methods.second_order.curvature import GaussNewton, batches, curvature_rows
from explorer.methods.second_order.factors import drawn_labels, draws
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.records import Answer, Encoded, Selection
from explorer.serving.session import open_engine
from explorer.training.recipe import FinetuneSettings
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.finetune import finetune
from tests.asking import asking
from tests.conftest import Tiny
from tests.explicit import Explicit, mean_gauss_newton
from tests.explicit_factors import explicit_ekfac
from tests.tiny import save_tiny_change

ROWS = 2
"""Curvature rows."""
LOSSLESS = 1 << 20
"""A sketch this long has a number for every parameter of a tiny model."""

Opened = Callable[[str], tuple[Engine, Explicit]]


def cache_of(tiny: Tiny, adapter: Path, folder: Path, settings: CacheSettings, checkpoints: str = "final") -> Engine:
    model = load_model(str(tiny.model), adapter, device="cpu", checkpoints=checkpoints)
    build_cache(model, read_examples(tiny.data), folder, settings, tokens=0, data_name="train.jsonl")
    return open_engine(folder, device="cpu")


@pytest.fixture(scope="module")
def opened(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A cache of lossless sketches of any normalisation, and the same model in float64."""
    folder = tmp_path_factory.mktemp("methods")

    explicit = Explicit(load_model(str(tiny.model), tiny.adapter, device="cpu", precision="float64"))

    @cache
    def open_one(normalisation: str) -> tuple[Engine, Explicit]:
        settings = CacheSettings(LOSSLESS, 1024, normalisation=normalisation)
        return cache_of(tiny, tiny.adapter, folder / normalisation, settings), explicit

    return open_one


def question(engine: Engine) -> Answer:
    return engine.given_answer("What shines?", "The moon and the sun.")


def encoded_rows(engine: Engine) -> list[Encoded]:
    return [example.encoded for example in engine.store.examples]


def all_gradients(explicit: Explicit, engine: Engine) -> NDArray[np.float64]:
    """∇L(s_k) (N, D)."""
    return np.stack([explicit.gradient(encoded) for encoded in encoded_rows(engine)])


def asked_gradient(explicit: Explicit, answer: Answer, selection: Selection) -> NDArray[np.float64]:
    start, stop = selection if isinstance(selection, tuple) else (0, len(answer.tokens))
    return np.asarray(explicit.token_gradients(answer.encoded)[start:stop].mean(axis=0))


def products(explicit: Explicit, engine: Engine, selection: Selection, kind: str) -> NDArray[np.float64]:
    """⟨∇L(t), ∇L(s_k)⟩ (N), divided as `kind` says."""
    answer = question(engine)
    whole = asked_gradient(explicit, answer, None)
    q = explicit.divided(asked_gradient(explicit, answer, selection), whole, kind)
    return np.array([explicit.divided(g, g, kind) @ q for g in all_gradients(explicit, engine)])


def assert_agree(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    """Equal to a share of the largest."""
    assert found.shape == expected.shape
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst < tolerance, f"off by {worst:.2g} of the largest"


def ggn(engine: Engine, explicit: Explicit, count: int = ROWS) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """The mean Gauss-Newton matrix of the curvature rows, and each row's."""
    chosen = curvature_rows(engine.store.manifest.data_sha256, engine.store.manifest.rows, count)
    each = [explicit.gauss_newton(encoded_rows(engine)[row]) for row in chosen]
    return np.asarray(np.mean(each, axis=0)), each


KINDS = [("graddot", "none"), ("gradcos", "cosine"), ("gradlayer", "layer"), ("tracincp", "none")]


@pytest.mark.parametrize("kept", ["layer", "cosine", "none"])
@pytest.mark.parametrize("selection", [None, (1, 3)])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_gradient_products_agree_with_float64_whatever_the_cache_keeps(
    opened: Opened, name: str, kind: str, selection: Selection, kept: str
) -> None:
    engine, explicit = opened(kept)
    method = open_method(engine, name)
    expected = products(explicit, engine, selection, kind)
    if kind != "cosine":
        expected = expected * engine.store.manifest.training.scale
    found = method.scores(question(engine), selection)
    # Sketches are kept as float16, and multiplied to 11 bits.
    assert_agree(found, expected, 2e-3)
    if kind != kept and "layer" in (kept, kind):
        own = engine.store.folder / "methods" / f"sketches-{'layer' if kind == 'layer' else 'none'}.json"
        assert own.is_file(), "the cache can't serve, so that sketches of the method's own are kept"


@pytest.mark.parametrize(("name", "kind"), [("graddot-whole", "none"), ("gradcos-whole", "cosine")])
def test_the_loss_of_prompt_and_response_agrees_with_float64(opened: Opened, name: str, kind: str) -> None:
    engine, explicit = opened("none")
    answer = question(engine)

    def whole(encoded: Encoded) -> NDArray[np.float64]:
        return explicit.gradient(Encoded(encoded.ids, 1))

    q = whole(answer.encoded)
    expected = np.array(
        [explicit.divided(g, g, kind) @ explicit.divided(q, q, kind) for g in map(whole, encoded_rows(engine))]
    )
    method = open_method(engine, name)
    assert_agree(
        method.scores(answer, None), expected * (1 if kind == "cosine" else engine.store.manifest.training.scale), 2e-3
    )
    assert method.values(answer, None, 0) is None


@pytest.mark.parametrize("name", ["graddot", "gradcos", "gradlayer", "datainf", "cg", "ekfac"])
def test_token_values_average_to_the_score(opened: Opened, name: str) -> None:
    engine, _ = opened("layer" if name != "gradlayer" else "cosine")
    method, answer = open_method(engine, name, ROWS), question(engine)
    scores = method.scores(answer, None)
    for row in (0, 3):
        values = method.values(answer, None, row)
        assert values is not None and len(values) == len(engine.store.examples[row].tokens)
        assert values.mean() == pytest.approx(scores[row], rel=1e-3, abs=1e-3 * float(np.abs(scores).max()))


def test_rapidin_as_a_method_gives_the_explorers_own_scores(tiny_engine: Engine) -> None:
    answer = question(tiny_engine)
    asking(tiny_engine).ask(answer, None)
    own = asking(tiny_engine).ranking(answer, None).scores
    # The explorer reads the rows that it shows once more, without rounding products to 11 bits.
    assert_agree(open_method(tiny_engine, "rapidin").scores(answer, None), own.astype(np.float64), 1e-3)


def test_a_shorter_rapidin_is_that_of_a_folded_cache(opened: Opened) -> None:
    engine, _ = opened("cosine")
    answer = question(engine)
    query = engine.sketcher(engine.direction(answer, None)) * engine.store.manifest.training.scale
    rows = np.concatenate([sketch.astype(np.float32) * scale[:, None] for sketch, scale in engine.store.sketches()])
    found = open_method(engine, "rapidin:64").scores(answer, None)
    assert_agree(found, (fold(rows, 64) @ fold(query, 64)).astype(np.float64), 2e-3)


@pytest.mark.parametrize("value", ["3", str(2 * LOSSLESS), "0", "many"])
def test_a_length_that_sketches_do_not_fold_to_is_refused(opened: Opened, value: str) -> None:
    engine, _ = opened("cosine")
    with pytest.raises(MethodError, match=r"fold|takes"):
        open_method(engine, f"rapidin:{value}").scores(question(engine), None)


@pytest.mark.parametrize("kept", ["cosine", "none", "layer"])
def test_trak_agrees_with_float64(opened: Opened, kept: str) -> None:
    engine, explicit = opened(kept)
    answer, length = question(engine), 64
    kind = "layer" if kept == "layer" else "none"

    def feature(g: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = zip(engine.sketcher._tables, explicit.split(g), strict=True)
        sketch = engine.sketcher({name: torch.from_numpy(part.astype(np.float32)) for name, part in parts})
        return fold(sketch, length).astype(np.float64)

    phi = np.stack([feature(explicit.divided(g, g, kind)) for g in all_gradients(explicit, engine)])
    whole = asked_gradient(explicit, answer, None)
    # The question's size is one factor for all examples.
    asked = feature(explicit.divided(whole, whole, kept)) * engine.store.manifest.training.scale
    gram = phi.T @ phi
    solved = np.linalg.solve(gram + 0.1 * np.trace(gram) / length * np.eye(length), asked)
    expected = phi @ solved * (1 - np.exp(-engine.store.losses.astype(np.float64)))
    assert_agree(open_method(engine, f"trak:{length}").scores(answer, None), expected, 5e-3)


def test_gauss_newton_products_agree_with_the_explicit_matrix(opened: Opened) -> None:
    engine, explicit = opened("none")
    model = at_checkpoint(engine.model, "")
    chosen = curvature_rows(engine.store.manifest.data_sha256, engine.store.manifest.rows, ROWS)
    rows = [encoded_rows(engine)[row] for row in chosen]
    curvature = GaussNewton(model, rows, range(len(rows)))
    v = curvature.start("test")
    found = curvature(v).numpy()
    assert_agree(found, mean_gauss_newton(explicit, rows) @ v.double().numpy(), 1e-4)
    assert_agree(curvature(1e6 * v).numpy() / 1e6, found.astype(np.float64), 1e-5)
    assert not curvature(torch.zeros_like(v)).any()


def test_rows_of_about_the_same_length_go_through_together() -> None:
    assert batches([90, 10, 300, 80, 12, 85, 100]) == [[1, 4, 3], [5, 0], [6], [2]]


def preconditioned(
    engine: Engine, explicit: Explicit, inverse: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """⟨P∇L(t), ∇L(s_k)⟩ (N)."""
    q = asked_gradient(explicit, question(engine), None)
    return np.asarray(all_gradients(explicit, engine) @ inverse(q))


@pytest.mark.parametrize("kept", ["none", "layer"])
def test_conjugate_gradients_agree_with_the_explicit_inverse(opened: Opened, kept: str) -> None:
    engine, explicit = opened(kept)
    method = open_method(engine, "cg:200", ROWS)
    assert isinstance(method, influence.ConjugateGradients)
    mean, _ = ggn(engine, explicit)
    damped = mean + method.damping * np.eye(len(mean))
    expected = preconditioned(engine, explicit, lambda q: np.linalg.inv(damped) @ q)
    assert_agree(method.scores(question(engine), None), expected, 2e-3)


def test_conjugate_gradients_from_ekfac_on_are_nearer_at_once_and_end_where_others_do(opened: Opened) -> None:
    engine, explicit = opened("none")
    mean, _ = ggn(engine, explicit)

    def found(name: str) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        method = open_method(engine, name, ROWS)
        assert isinstance(method, influence.ConjugateGradients)
        damped = mean + method.damping * np.eye(len(mean))
        expected = preconditioned(engine, explicit, lambda q: np.linalg.inv(damped) @ q)
        return method.scores(question(engine), None), expected

    assert_agree(*found("ekfac-cg:200"), 2e-3)
    near, far = (np.abs(scores - expected).max() for scores, expected in (found("ekfac-cg:1"), found("cg:1")))
    assert near < far


def test_the_damping_is_a_share_of_the_largest_eigenvalue(opened: Opened) -> None:
    engine, explicit = opened("none")
    method = open_method(engine, "cg", ROWS)
    assert isinstance(method, influence.ConjugateGradients)
    mean, each = ggn(engine, explicit)
    assert method.damping == pytest.approx(influence.DAMPING * np.linalg.eigvalsh(mean)[-1], rel=0.02)
    highest = max(np.linalg.eigvalsh(matrix)[-1] for matrix in each)
    assert highest / 2 < method.sharpness[1] < highest * 1.001, "LiSSA converges with any scale above half of it"


def test_lissa_agrees_with_the_explicit_recursion(opened: Opened) -> None:
    engine, explicit = opened("none")
    method = open_method(engine, "lissa:50", ROWS)
    assert isinstance(method, influence.Lissa)
    _, each = ggn(engine, explicit)
    scale = method.sharpness[1] + method.damping

    def inverse(q: NDArray[np.float64]) -> NDArray[np.float64]:
        x = q
        for step in range(50):
            x = q + x - (each[step % ROWS] @ x + method.damping * x) / scale
        return x / scale

    assert_agree(method.scores(question(engine), None), preconditioned(engine, explicit, inverse), 2e-3)


def test_arnoldi_agrees_with_the_explicit_eigenvectors(opened: Opened) -> None:
    engine, explicit = opened("none")
    mean, _ = ggn(engine, explicit)
    values, vectors = np.linalg.eigh(mean)
    values, vectors = values[-5:], vectors[:, -5:]
    damping = influence.DAMPING * values[-1]
    expected = preconditioned(engine, explicit, lambda q: vectors @ ((vectors.T @ q) / (values + damping)))
    # Of forty eigenvectors the five largest are found well; the method is asked for five of them.
    method = open_method(engine, "arnoldi:40", ROWS)
    assert isinstance(method, influence.Arnoldi)
    found_values, found_vectors = (each.double().numpy() for each in method._pairs)
    assert found_values[-5:] == pytest.approx(values, rel=1e-3)
    rotation = np.abs(found_vectors[-5:] @ vectors)
    assert np.allclose(rotation, np.eye(5), atol=2e-2), "the same eigenvectors, but for their sign"
    q = asked_gradient(explicit, question(engine), None)
    found = all_gradients(explicit, engine) @ (
        ((found_vectors[-5:] @ q) / (found_values[-5:] + damping)) @ found_vectors[-5:]
    )
    assert_agree(found.astype(np.float32), expected, 1e-2)
    own = all_gradients(explicit, engine) @ (((found_vectors @ q) / (found_values + damping)) @ found_vectors)
    assert_agree(method.scores(question(engine), None), own, 2e-3)


@pytest.mark.parametrize("most", [1 << 27, 0])
def test_datainf_agrees_with_float64_whether_or_not_its_rows_are_held(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(influence, "_HELD", most)
    engine, explicit = opened("none")
    method = open_method(engine, "datainf", ROWS)
    assert isinstance(method, influence.DataInf)
    every = [np.asarray(part) for part in explicit.split(all_gradients(explicit, engine))]

    def inverse(q: NDArray[np.float64]) -> NDArray[np.float64]:
        found = []
        for part, v in zip(every, explicit.split(q), strict=True):
            damping = 0.1 * (part**2).sum(axis=1).mean() / part.shape[1]
            # The mean of the inverses of λ + g gᵀ, each by itself.
            inverses = [np.linalg.inv(damping * np.eye(len(v)) + np.outer(g, g)) for g in part[method.curvature_rows]]
            found.append(np.mean(inverses, axis=0) @ v)
        return np.concatenate(found)

    assert_agree(method.scores(question(engine), None), preconditioned(engine, explicit, inverse), 2e-3)


@pytest.mark.parametrize("sharpness", [1.0, 12.0])
def test_drawn_labels_have_the_fisher_matrix_in_the_mean(sharpness: float) -> None:
    """Over all tokens together: whatever is drawn for one says nothing of another."""
    logits = sharpness * torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4)))
    p = logits.softmax(-1).numpy()
    expected = np.zeros((8, 8))
    for token in range(2):
        own = slice(4 * token, 4 * token + 4)
        expected[own, own] = np.diag(p[token]) - np.outer(p[token], p[token])
    total = np.zeros((8, 8))
    for draw in range(4000):
        labels, weights = drawn_labels(logits, f"{draw}")
        g = ((p - np.eye(4)[labels.numpy()]) * weights.numpy()[:, None]).reshape(-1)
        total += np.outer(g, g) / 4000
    assert np.abs(total - expected).max() < 0.05 * np.abs(expected).max()


def test_few_rows_are_drawn_for_more_often() -> None:
    assert [draws(rows) for rows in (1, 4, 16, 63, 64, 1000)] == [64, 16, 4, 2, 1, 1]


def test_ekfac_agrees_with_dense_kronecker_factors_in_float64(opened: Opened) -> None:
    engine, explicit = opened("none")
    rows = curvature_rows(engine.store.manifest.data_sha256, engine.store.manifest.rows, ROWS)
    expected = preconditioned(engine, explicit, explicit_ekfac(explicit, rows, encoded_rows(engine)))
    assert_agree(open_method(engine, "ekfac", ROWS).scores(question(engine), None), expected, 1e-2)


@pytest.fixture(scope="module")
def perceptrons(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Explicit]:
    """A cache whose adapter changes attention and MLPs."""
    folder = tmp_path_factory.mktemp("perceptrons")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "up_proj", "down_proj"])
    adapter = save_tiny_change(folder / "adapter", tiny.model, config)
    engine = cache_of(tiny, adapter, folder / "cache", CacheSettings(LOSSLESS, 1024, normalisation="none"))
    return engine, Explicit(load_model(str(tiny.model), adapter, device="cpu", precision="float64"))


def test_ekfac_of_the_mlps_alone_leaves_out_attention(perceptrons: tuple[Engine, Explicit]) -> None:
    engine, explicit = perceptrons
    rows = curvature_rows(engine.store.manifest.data_sha256, engine.store.manifest.rows, ROWS)
    every = explicit_ekfac(explicit, rows, encoded_rows(engine))
    mask = np.concatenate(
        [np.full(size, ".mlp." in name) for name, size in zip(explicit.tensors, explicit.sizes, strict=True)]
    )
    assert mask.any() and not mask.all()
    expected = preconditioned(engine, explicit, lambda q: every(q * mask) * mask)
    assert_agree(open_method(engine, "ekfac-mlp", ROWS).scores(question(engine), None), expected, 1e-2)


def test_ekfac_of_mlps_is_refused_where_none_is_trained(opened: Opened) -> None:
    engine, _ = opened("none")
    with pytest.raises(UnsupportedError, match="in MLPs"):
        open_method(engine, "ekfac-mlp", ROWS).scores(question(engine), None)


# Checkpoints


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Path]:
    """A cosine cache over two of a training's checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    settings = FinetuneSettings(rank=2, targets=("q_proj", "o_proj"), epochs=2, learning_rate=0.02, checkpoints=2)
    model = load_model(str(tiny.model), device="cpu")
    finetune(model, read_examples(tiny.data), folder / "adapter", settings, lambda step, of, loss: None)
    cached = CacheSettings(LOSSLESS, 1024, normalisation="cosine")
    return cache_of(tiny, folder / "adapter", folder / "cache", cached, "all"), folder / "adapter"


@cache
def at_each(tiny: Tiny, adapter: Path) -> list[tuple[float, Explicit]]:
    """The same model in float64 at every checkpoint, each with its e·η."""
    model = load_model(str(tiny.model), adapter, device="cpu", checkpoints="all", precision="float64")
    return [(point.share * model.training.scale, Explicit(model, dict(point.tensors))) for point in model.checkpoints]


def test_tracincp_sums_over_the_checkpoints(tiny: Tiny, trained: tuple[Engine, Path]) -> None:
    engine, adapter = trained
    points = at_each(tiny, adapter)
    assert len(points) == 2
    expected = sum(weight * products(explicit, engine, None, "none") for weight, explicit in points)
    assert_agree(open_method(engine, "tracincp").scores(question(engine), None), np.asarray(expected), 2e-3)


@pytest.mark.parametrize(("value", "number"), [("", 1), (":1", 0), (":final", 1)])
@pytest.mark.parametrize(("name", "kind"), [("graddot", "none"), ("gradcos", "cosine"), ("gradlayer", "layer")])
def test_tracin_is_at_one_checkpoint(
    tiny: Tiny, trained: tuple[Engine, Path], name: str, kind: str, value: str, number: int
) -> None:
    engine, adapter = trained
    weight, explicit = at_each(tiny, adapter)[number]
    expected = products(explicit, engine, None, kind) * (1.0 if kind == "cosine" else weight)
    assert_agree(open_method(engine, f"{name}{value}").scores(question(engine), None), expected, 2e-3)


def test_a_checkpoint_that_is_not_cached_is_refused(trained: tuple[Engine, Path], tiny_engine: Engine) -> None:
    engine, _ = trained
    with pytest.raises(MethodError, match="no checkpoint 7; it has: 1, final"):
        open_method(engine, "graddot:7").scores(question(engine), None)
    with pytest.raises(MethodError, match="the final model alone"):
        open_method(tiny_engine, "graddot:1").scores(question(tiny_engine), None)


def test_second_order_methods_are_at_the_last_checkpoint(tiny: Tiny, trained: tuple[Engine, Path]) -> None:
    engine, adapter = trained
    _, explicit = at_each(tiny, adapter)[-1]
    method = open_method(engine, "cg:200", 1)
    assert isinstance(method, influence.ConjugateGradients)
    mean, _ = ggn(engine, explicit, 1)
    damped = mean + method.damping * np.eye(len(mean))
    expected = preconditioned(engine, explicit, lambda q: np.linalg.inv(damped) @ q)
    assert_agree(method.scores(question(engine), None), expected, 2e-3)


def test_a_question_s_gradient_is_computed_once_for_all_methods(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = opened("none")
    computed, gradient = list[object](), gradients.gradient

    def counting(model: LanguageModel, encoded: Encoded, selection: Selection = None) -> gradients.Gradient:
        computed.append(selection)
        return gradient(model, encoded, selection)

    monkeypatch.setattr(gradients, "gradient", counting)
    answer = engine.given_answer("What shines?", "The stars and the moon.")
    for name in ("graddot", "gradcos"):
        for selection in (None, (1, 2), (2, 3)):
            open_method(engine, name).scores(answer, selection)
    assert computed == [None, (1, 2), (2, 3)]
    directions.forget(engine.model)
    open_method(engine, "graddot").scores(answer, None)
    assert computed[3:] == [None]


# Half precision, contrasts, rankings


def test_a_contrast_is_the_difference_of_two_questions(opened: Opened) -> None:
    engine, explicit = opened("none")
    answer = question(engine)
    contrast = engine.contrast(answer, (1, 2), "sun")
    other = np.concatenate([answer.encoded.ids[: answer.encoded.response_start + 1], contrast.instead])
    instead = explicit.token_gradients(Encoded(other, answer.encoded.response_start))[1:].sum(axis=0)
    q = explicit.token_gradients(answer.encoded)[1] - instead
    expected = all_gradients(explicit, engine) @ q * engine.store.manifest.training.scale
    assert_agree(open_method(engine, "graddot").scores(answer, contrast), expected, 2e-3)


def test_a_ranking_by_sketches_is_made_exact_and_ordered_anew(tiny_engine: Engine) -> None:
    method, answer = open_method(tiny_engine, "rapidin:256"), question(tiny_engine)
    assert isinstance(method, inner_products.Folded) and not method.exact
    rough = Attributor(method).exact_ranking(answer, None, 7, approximate=True)
    exact = Attributor(method).exact_ranking(answer, None, 7)
    assert not rough.exact and exact.exact
    scores = [found.score for found in exact.influences]
    assert scores == sorted(scores, reverse=True)
    asking(tiny_engine).ask(answer, None)
    precise = [asking(tiny_engine).refine(answer, None, row).score for row in range(7)]
    assert scores == pytest.approx(sorted(precise, reverse=True), rel=1e-4)


def test_what_a_method_costs_is_reported_as_it_is_spent(opened: Opened) -> None:
    engine, _ = opened("layer")
    told: list[tuple[str, int, int]] = []
    shutil.rmtree(engine.store.folder / "methods", ignore_errors=True)
    method = open_method(engine, "graddot", report=lambda *each: told.append(each))
    method.fit()
    assert told == [("training gradients", row + 1, 7) for row in range(7)]
    method.scores(question(engine), None)
    open_method(engine, "graddot", report=lambda *each: told.append(each)).scores(question(engine), None)
    assert len(told) == 7, "what was made is kept"
    assert json.dumps(told)
