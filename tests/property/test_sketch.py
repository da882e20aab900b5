"""RapidGrad: one scatter-add is Algorithm 1; linear, foldable, unbiased, seeded."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer import sketch
from explorer.sketch import Sketcher, SketchSettings
from explorer.store import fold

SMALL_PAD = 64
"""Stands in for the 2²⁰ to which gradients are padded, so that the literal algorithm is quick."""

FEW = settings(max_examples=40)
LENGTHS = st.sampled_from([1, 2, 8, 16, 64, 256])
SIZES = st.lists(st.integers(1, 90), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**40)


@pytest.fixture(autouse=True, scope="module")
def small_pad() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "_PAD_UNIT", SMALL_PAD)
        yield


def algorithm_1(
    vector: NDArray[np.float64], length: int, rounds: int, seed: int, signed: bool = True
) -> NDArray[np.float64]:
    """The paper's Algorithm 1, step by step in float64: (D) → (K)."""
    padded = np.zeros(sketch.padded_length(len(vector), length))
    padded[: len(vector)] = vector
    choices = sketch.divisors(len(padded), sketch._LARGEST_SHUFFLE)
    for round_ in range(rounds):
        rows = int(sketch.generator(seed, "rows", round_).choice(choices))
        matrix = padded.reshape(rows, -1)
        shuffled = np.empty_like(matrix)
        shuffled[sketch.generator(seed, "row shuffle", round_).permutation(rows)] = matrix
        columns = int(sketch.generator(seed, "columns", round_).choice(choices))
        matrix = shuffled.reshape(-1, columns)
        shuffled = np.empty_like(matrix)
        shuffled[:, sketch.generator(seed, "column shuffle", round_).permutation(columns)] = matrix
        padded = shuffled.reshape(-1)
    if signed:
        padded = padded * sketch.rademacher(np.arange(len(padded)), seed)
    return padded.reshape(length, -1).sum(axis=1)


def gradient_of(sizes: list[int], seed: int) -> dict[str, torch.Tensor]:
    """Named tensors of the given sizes with normal entries; two-dimensional where that is possible."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(2, size // 2) if size % 2 == 0 else (size,) for size in sizes]
    return {f"layer {i}": torch.randn(shape, generator=random) for i, shape in enumerate(shapes)}


def sketcher_for(gradient: dict[str, torch.Tensor], length: int, rounds: int = 3, seed: int = 0) -> Sketcher:
    layout = [(name, tuple(part.shape)) for name, part in gradient.items()]
    return Sketcher(layout, SketchSettings(length, rounds, seed))


def flat(gradient: dict[str, torch.Tensor]) -> NDArray[np.float64]:
    return np.concatenate([part.numpy().astype(np.float64).ravel() for part in gradient.values()])


@FEW
@given(sizes=SIZES, length=LENGTHS, rounds=st.integers(1, 6), seed=SEEDS)
def test_one_scatter_add_equals_algorithm_1_step_by_step(sizes: list[int], length: int, rounds: int, seed: int) -> None:
    gradient = gradient_of(sizes, seed % 1000)
    found = sketcher_for(gradient, length, rounds, seed)(gradient)
    expected = algorithm_1(flat(gradient), length, rounds, seed)
    np.testing.assert_allclose(
        found, expected, rtol=1e-5, atol=1e-4, err_msg="the composed table moves or signs a parameter differently"
    )


def test_the_scatter_add_equals_algorithm_1_at_the_padding_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_PAD_UNIT", 1 << 20)
    gradient = gradient_of([700, 301], seed=4)
    found = sketcher_for(gradient, length=4096, rounds=2, seed=7)(gradient)
    np.testing.assert_allclose(found, algorithm_1(flat(gradient), 4096, 2, 7), rtol=1e-5, atol=1e-5)


@FEW
@given(sizes=SIZES, length=LENGTHS, a=st.floats(-3, 3), b=st.floats(-3, 3), seed=SEEDS)
def test_a_sketch_is_linear(sizes: list[int], length: int, a: float, b: float, seed: int) -> None:
    u, v = gradient_of(sizes, 1), gradient_of(sizes, 2)
    sketcher = sketcher_for(u, length, seed=seed)
    mixed = sketcher({name: a * u[name] + b * v[name] for name in u})
    np.testing.assert_allclose(mixed, a * sketcher(u) + b * sketcher(v), rtol=1e-4, atol=1e-4)


@FEW
@given(sizes=SIZES, fine=st.integers(0, 6), steps=st.integers(0, 6), seed=SEEDS)
def test_a_folded_sketch_is_the_coarser_sketch(sizes: list[int], fine: int, steps: int, seed: int) -> None:
    length, coarse = 1 << fine, 1 << max(0, fine - steps)
    gradient = gradient_of(sizes, 3)
    folded = fold(sketcher_for(gradient, length, seed=seed)(gradient), coarse)
    native = sketcher_for(gradient, coarse, seed=seed)(gradient)
    np.testing.assert_allclose(
        folded, native, rtol=1e-4, atol=1e-4, err_msg=f"folding {length} to {coarse} isn't the {coarse}-sketch"
    )


def test_folding_works_on_many_sketches_at_once() -> None:
    sketches = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert fold(sketches, 2).tolist() == [[[1, 5], [9, 13], [17, 21]], [[25, 29], [33, 37], [41, 45]]]


def test_folding_to_a_length_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="length 8 can't be folded to 3"):
        fold(np.zeros(8, dtype=np.float32), 3)


@pytest.mark.parametrize(("length", "rounds", "said"), [(0, 1, "power of two"), (3, 1, "power of two"), (8, 0, "λ")])
def test_settings_algorithm_1_cannot_use_are_refused(length: int, rounds: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SketchSettings(length, rounds)


@FEW
@given(exponent=st.integers(0, 9), rounds=st.integers(1, 8), seed=SEEDS)
def test_the_shuffle_is_a_permutation(exponent: int, rounds: int, seed: int) -> None:
    padded = 3 << exponent
    places = sketch.shuffled_positions(padded, padded, rounds, seed)
    assert sorted(places.tolist()) == list(range(padded)), "two parameters were moved to one place"


@FEW
@given(parameters=st.integers(1, 500), padded=st.sampled_from([512, 1024]), seed=SEEDS)
def test_fewer_parameters_are_moved_to_the_same_places(parameters: int, padded: int, seed: int) -> None:
    some = sketch.shuffled_positions(parameters, padded, 3, seed)
    assert np.array_equal(some, sketch.shuffled_positions(padded, padded, 3, seed)[:parameters])


@given(number=st.integers(1, 5000), largest=st.integers(1, 5000))
def test_divisors_are_all_divisors_up_to_the_limit(number: int, largest: int) -> None:
    assert sketch.divisors(number, largest) == [d for d in range(1, min(number, largest) + 1) if number % d == 0]


@given(parameters=st.integers(1, 10_000), exponent=st.integers(0, 9))
def test_the_padded_length_is_the_next_multiple_of_k_and_of_the_pad(parameters: int, exponent: int) -> None:
    length = 1 << exponent
    padded = sketch.padded_length(parameters, length)
    unit = max(length, SMALL_PAD)
    assert padded % length == padded % SMALL_PAD == 0
    assert parameters <= padded < parameters + unit


def test_signs_are_plus_and_minus_one_in_equal_parts() -> None:
    signs = sketch.rademacher(np.arange(40_000), seed=5)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / np.sqrt(len(signs))
    # Neighbours agree half of the time, whatever their distance.
    for distance in (1, 2, 64, 4096):
        agreement = float((signs[distance:] * signs[:-distance]).mean())
        assert abs(agreement) < 5 / np.sqrt(len(signs)), f"signs {distance} places apart are correlated"


def test_the_same_seed_gives_the_same_sketch_and_another_seed_another() -> None:
    gradient = gradient_of([200, 77], seed=1)
    once, again, other = (sketcher_for(gradient, 32, rounds=5, seed=seed)(gradient) for seed in (3, 3, 4))
    assert np.array_equal(once, again)
    assert not np.allclose(once, other)


def test_randomness_is_a_function_of_seed_and_name() -> None:
    draws = {
        name: sketch.generator(*name).integers(1 << 62)
        for name in [(0, "rows", 0), (0, "rows", 1), (0, "columns", 0), (1, "rows", 0)]
    }
    assert len(set(draws.values())) == len(draws), "two names share one stream"
    assert all(sketch.generator(*name).integers(1 << 62) == draw for name, draw in draws.items())


def aligned() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two vectors at an angle of about 45 degrees, some entries much larger than others."""
    random = np.random.default_rng(0)
    heavy = np.exp(random.normal(0, 1, 300))
    u = random.normal(size=300) * heavy
    return u, (u + random.normal(size=300) * heavy) / np.sqrt(2)


def orthogonal_blocks() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two vectors that live in different tensors, side by side."""
    u, v = np.zeros(300), np.zeros(300)
    u[:40] = np.random.default_rng(1).normal(size=40)
    v[40:90] = np.random.default_rng(2).normal(size=50)
    return u, v


@pytest.mark.parametrize("pair", [aligned, orthogonal_blocks], ids=["aligned", "orthogonal blocks"])
def test_inner_products_are_unbiased_with_the_known_variance(pair) -> None:  # type: ignore[no-untyped-def]
    u, v = pair()
    seeds, length = 400, 32
    products = np.empty(seeds)
    for seed in range(seeds):
        sketcher = Sketcher([("both", (len(u),))], SketchSettings(length, 20, seed))
        products[seed] = sketcher({"both": torch.from_numpy(u)}) @ sketcher({"both": torch.from_numpy(v)})
    true = float(u @ v)
    expected = (float(u @ u) * float(v @ v) + true**2) / length
    bias = abs(products.mean() - true) / np.sqrt(expected / seeds)
    assert bias < 3.5, f"the mean over {seeds} seeds lies {bias:.1f} standard errors from ⟨u, v⟩: the sketch is biased"
    ratio = products.var(ddof=1) / expected
    # The diagonal terms Σ u²v² don't collide, so the formula is an upper bound in expectation;
    # 400 seeds know a variance to about ±15%.
    assert 0.6 < ratio < 1.35, f"the variance is {ratio:.2f} times (‖u‖²‖v‖² + ⟨u,v⟩²)/K: wrong signs or shuffles"
