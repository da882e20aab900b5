"""RapidGrad: one scatter-add is Algorithm 1; linear, foldable, unbiased, seeded."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer.cache.shards import fold
from explorer.gradients import sketch
from explorer.gradients.sketch import Sketcher, SketchSettings

SHORTEST = sketch._SHORTEST
"""To what gradients are padded at least."""
SMALL_PAD = 64
"""Stands in for it, so that the literal algorithm is quick."""

FEW = settings(max_examples=40)
LENGTHS = st.sampled_from([1, 2, 8, 16, 64, 256])
SIZES = st.lists(st.integers(1, 90), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**40)


@pytest.fixture(autouse=True, scope="module")
def small_pad() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "_SHORTEST", SMALL_PAD)
        yield


def algorithm_1(vector: NDArray[np.float64], length: int, rounds: int, seed: int) -> NDArray[np.float64]:
    """The paper's Algorithm 1, step by step in float64: (D) → (K)."""
    padded = np.zeros(sketch.padded_length(len(vector), length))
    padded[: len(vector)] = vector
    for shuffle in sketch.draw_shuffles(len(padded), SketchSettings(length, rounds, seed)):
        if shuffle.by_rows:
            matrix = padded.reshape(len(shuffle.to), -1)
            shuffled = np.empty_like(matrix)
            shuffled[shuffle.to] = matrix
        else:
            matrix = padded.reshape(-1, len(shuffle.to))
            shuffled = np.empty_like(matrix)
            shuffled[:, shuffle.to] = matrix
        padded = shuffled.reshape(-1)
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
    monkeypatch.setattr(sketch, "_SHORTEST", SHORTEST)
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


@given(parameters=st.integers(1, 10_000), exponent=st.integers(0, 12))
@example(parameters=1024, exponent=0)
@example(parameters=1025, exponent=0)
def test_the_padded_length_is_the_shortest_power_of_two_that_holds_all(parameters: int, exponent: int) -> None:
    length = 1 << exponent
    padded = sketch.padded_length(parameters, length)
    assert padded & (padded - 1) == 0, f"{padded} is no power of two"
    least = max(parameters, length, SMALL_PAD)
    assert least <= padded < 2 * least


def test_gradients_are_padded_to_two_to_the_twentieth_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_SHORTEST", SHORTEST)
    assert sketch.padded_length(5, 4) == 1 << 20


@FEW
@given(exponent=st.integers(0, 10), rounds=st.integers(1, 8), seed=SEEDS)
def test_shuffles_alternate_between_rows_and_columns_and_move_each_once(exponent: int, rounds: int, seed: int) -> None:
    shuffles = list(sketch.draw_shuffles(1 << exponent, SketchSettings(1, rounds, seed)))
    assert [shuffle.by_rows for shuffle in shuffles] == [True, False] * rounds
    for shuffle in shuffles:
        assert (1 << exponent) % len(shuffle.to) == 0, f"{len(shuffle.to)} doesn't divide the padded length"
        assert sorted(shuffle.to.tolist()) == list(range(len(shuffle.to)))


def test_every_divisor_up_to_the_limit_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_LARGEST_SHUFFLE", 32)
    drawn = {len(shuffle.to) for shuffle in sketch.draw_shuffles(256, SketchSettings(1, rounds=60))}
    assert drawn == {1, 2, 4, 8, 16, 32}


@FEW
@given(exponent=st.integers(0, 10), rounds=st.integers(1, 8), seed=SEEDS)
def test_the_shuffles_together_are_a_permutation(exponent: int, rounds: int, seed: int) -> None:
    padded = 1 << exponent
    shuffles = list(sketch.draw_shuffles(padded, SketchSettings(1, rounds, seed)))
    places = sketch.shuffled_places(np.arange(padded), padded, shuffles)
    assert sorted(places.tolist()) == list(range(padded)), "two parameters were moved to one place"


@FEW
@given(places=st.lists(st.integers(0, 511), min_size=1, max_size=20), seed=SEEDS)
def test_a_place_is_moved_alike_whatever_is_moved_with_it(places: list[int], seed: int) -> None:
    shuffles = list(sketch.draw_shuffles(512, SketchSettings(1, 3, seed)))
    together = sketch.shuffled_places(np.arange(512), 512, shuffles)
    assert np.array_equal(sketch.shuffled_places(np.array(places), 512, shuffles), together[places])


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_table_is_the_same_whatever_is_moved_at_a_time(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    expected = sketch.bucket_table(500, SketchSettings(32, 5, seed=2))
    monkeypatch.setattr(sketch, "_BLOCK", block)
    assert np.array_equal(sketch.bucket_table(500, SketchSettings(32, 5, seed=2)), expected)


def test_a_large_table_is_mapped_from_a_file_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = gradient_of([200, 77, 64], seed=1)
    table, expected = sketch.bucket_table(341, SketchSettings(32, 3)), sketcher_for(gradient, 32)(gradient)
    assert not isinstance(table, np.memmap)
    monkeypatch.setattr(sketch, "_IN_MEMORY", 340)
    mapped = sketch.bucket_table(341, SketchSettings(32, 3))
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, table)
    assert np.array_equal(sketcher_for(gradient, 32)(gradient), expected)


@FEW
@given(sizes=SIZES, length=LENGTHS, seed=SEEDS, data=st.data())
def test_tensors_may_be_added_one_at_a_time_each_times_a_factor(
    sizes: list[int], length: int, seed: int, data: st.DataObject
) -> None:
    gradient = gradient_of(sizes, 1)
    factors = {name: data.draw(st.floats(-3, 3)) for name in gradient}
    sketcher = sketcher_for(gradient, length, seed=seed)
    growing = sketcher.begin()
    for name in data.draw(st.permutations(list(gradient))):
        growing.add({name: gradient[name]}, factors)
    expected = sketcher({name: factors[name] * part for name, part in gradient.items()})
    np.testing.assert_allclose(growing.values(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_gradient_shared_out_among_threads_has_the_same_sketch(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    gradient = gradient_of([50, 300, 7, 40], seed=2)
    factors = dict(zip(gradient, (1.0, -0.5, 2.0, 3.0), strict=True))
    alone = sketcher_for(gradient, 64).begin()
    alone.add(gradient, factors)
    monkeypatch.setattr("explorer.gradients.sketch._ALONE", 0)
    monkeypatch.setattr("explorer.gradients.sketch.thread_count", lambda: count)
    shared = sketcher_for(gradient, 64).begin()
    shared.add(gradient, factors)
    assert len(shared._signed) == count and all(each.any() for each in shared._signed)
    np.testing.assert_allclose(shared.values(), alone.values(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("together", [1, 60, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_few_steps_of_a_gpu_make_the_same_sketch(
    monkeypatch: pytest.MonkeyPatch, together: int, dtype: torch.dtype
) -> None:
    gradient = {name: part.to(dtype) for name, part in gradient_of([50, 300, 7, 40], seed=2).items()}
    kept = {name: part.clone() for name, part in gradient.items()}
    sketcher = sketcher_for(gradient, 64)
    pieces = [
        sketch._Piece(sketcher._tables[name], part.reshape(-1), factor)
        for (name, part), factor in zip(gradient.items(), (1.0, -0.5, 0.0, 3.0), strict=True)
    ]
    expected, found = torch.zeros(128), torch.zeros(128)
    sketch._scatter(expected, pieces)
    monkeypatch.setattr(sketch, "_TOGETHER", together)
    bundles = list(sketch._bundled(pieces))
    assert len(bundles) == {1: 4, 60: 3, 1000: 1}[together]
    for some in bundles:
        sketch._scatter_together(found, some)
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(part, kept[name]) for name, part in gradient.items()), "gradients are left as they were"


def test_a_tensor_that_is_left_out_counts_as_zero() -> None:
    gradient = gradient_of([20, 30], seed=1)
    sketcher = sketcher_for(gradient, 16)
    zeros = {"layer 1": torch.zeros_like(gradient["layer 1"])}
    assert np.array_equal(sketcher({"layer 0": gradient["layer 0"]}), sketcher(gradient | zeros))
    assert not sketcher.begin().values().any()


def test_half_precision_gradients_are_summed_in_float32() -> None:
    gradient = {"layer": torch.randn(4096, generator=torch.Generator().manual_seed(0)).bfloat16()}
    found = sketcher_for(gradient, 2)(gradient)
    assert np.array_equal(found, sketcher_for(gradient, 2)({"layer": gradient["layer"].float()}))
    assert not np.array_equal(found, torch.from_numpy(found).bfloat16().float())


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


def outer_products() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two matrices of rank one whose sides are powers of two, as gradients of linear layers are and shuffles' sides."""
    random = np.random.default_rng(3)
    a, b, x = random.normal(size=16), random.normal(size=16), random.normal(size=32)
    return np.outer(a, x).ravel(), np.outer(b, x).ravel()


@pytest.mark.parametrize("pair", [aligned, orthogonal_blocks, outer_products])
def test_inner_products_are_unbiased_with_the_known_variance(
    pair: Callable[[], tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
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
