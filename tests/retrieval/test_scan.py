"""The products of stored sketches and questions, against float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer.cache.store import quantise
from explorer.gradients.threads import threads
from explorer.retrieval import scan

Floats = NDArray[np.float32]


def stored(sketches: Floats, dtype: str, sizes: list[int]) -> list[scan.Rows]:
    """Sketches as shards of these sizes keep them."""
    values, scale = quantise(sketches, dtype)
    ends = np.cumsum(sizes)
    return list(zip(np.split(values, ends[:-1]), np.split(scale, ends[:-1]), strict=True))


def true(rows: list[scan.Rows], queries: Floats) -> NDArray[np.float64]:
    """What the stored numbers give in float64."""
    whole = np.concatenate([sketches.astype(np.float64) * scale[:, None] for sketches, scale in rows])
    return queries.astype(np.float64) @ whole.T


def tolerance(rows: list[scan.Rows], queries: Floats, dtype: str) -> NDArray[np.float64]:
    """Of the lengths' product 2⁻¹⁸, or 2⁻⁷ in bfloat16; for many queries and int8 the query's rounding as well."""
    whole = np.concatenate([sketches.astype(np.float32) * scale[:, None] for sketches, scale in rows])
    lengths = np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(whole, axis=1))
    if dtype == "float16" or len(queries) == 1:
        rounded = len(queries) > 1 and scan._has_bfloat16_units()
        return (lengths * (2**-7 if rounded else 2**-18) + 1e-30).astype(np.float64)
    steps = np.abs(queries).max(axis=1) / 127 / 2
    return (np.outer(steps, np.abs(whole).sum(axis=1)) * 1.001 + 1e-30).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("questions", [1, 2, 65])
@pytest.mark.parametrize(("length", "sizes"), [(1, [1]), (7, [3, 1, 5]), (4096, [130, 1, 200]), (64, [1] * 300)])
def test_products_are_those_of_float64(dtype: str, questions: int, length: int, sizes: list[int]) -> None:
    random = np.random.default_rng(length + questions)
    rows = stored(random.normal(size=(sum(sizes), length)).astype(np.float32), dtype, sizes)
    queries = random.normal(size=(questions, length)).astype(np.float32) * 100
    found = scan.products(rows, queries)
    assert found.shape == (questions, sum(sizes)) and found.dtype == np.float32
    assert (np.abs(found - true(rows, queries)) <= tolerance(rows, queries, dtype)).all()


@pytest.mark.parametrize("questions", [1, 3])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_nothing_overflows_and_no_small_number_is_lost(dtype: str, questions: int) -> None:
    """The largest products that there can be at a great length: everything has one sign and full size."""
    ones = np.ones((3, 1 << 18), dtype=np.float32) * np.array([[1.0], [-1e6], [1e-6]], dtype=np.float32)
    rows = stored(ones, dtype, [2, 1])
    queries = np.full((questions, 1 << 18), 1e6, dtype=np.float32)
    expected = np.array([1.0, -1e6, 1e-6]) * 1e6 * 2**18
    tolerance = 1e-3 if questions == 1 else 2**-7
    np.testing.assert_allclose(scan.products(rows, queries), [expected] * questions, rtol=tolerance)
    wanted = [np.arange(3)] * questions
    np.testing.assert_allclose(scan.selected_products(rows, queries, wanted), [expected] * questions, rtol=1e-3)


def test_a_question_of_zeros_scores_zero() -> None:
    rows = stored(np.ones((4, 16), dtype=np.float32), "float16", [4])
    assert (scan.products(rows, np.zeros((1, 16), dtype=np.float32)) == 0).all()


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    length=st.integers(1, 300),
    dtype=st.sampled_from(["float16", "int8"]),
    wishes=st.lists(st.lists(st.floats(0, 1, exclude_max=True), max_size=12), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_selected_products_are_those_of_all_rows(
    sizes: list[int], length: int, dtype: str, wishes: list[list[float]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    rows = stored(random.normal(size=(sum(sizes), length)).astype(np.float32), dtype, sizes)
    queries = random.normal(size=(len(wishes), length)).astype(np.float32)
    wanted = [np.array([int(wish * sum(sizes)) for wish in some], dtype=np.int64) for some in wishes]
    found = scan.selected_products(rows, queries, wanted)
    expected = [all_[some] for all_, some in zip(true(rows, queries), wanted, strict=True)]
    allowed = [tolerance(rows, query[None], dtype)[0][some] for query, some in zip(queries, wanted, strict=True)]
    for values, right, error in zip(found, expected, allowed, strict=True):
        assert len(values) == len(right) and (np.abs(values - right) <= error).all()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("length", [5, 16, 4096])
def test_single_rows_have_the_same_product_whoever_else_asks(dtype: str, length: int) -> None:
    random = np.random.default_rng(3)
    rows = stored(random.normal(size=(300, length)).astype(np.float32), dtype, [32] * 9 + [12])
    queries = random.normal(size=(5, length)).astype(np.float32)
    wanted = [np.arange(300)[number::2] for number in range(5)]
    together = scan.selected_products(rows, queries, wanted)
    for query, some, found in zip(queries, wanted, together, strict=True):
        (alone,) = scan.selected_products(rows, query[None], [some[::-1]])
        assert np.array_equal(found, alone[::-1])


def test_nothing_beyond_the_rows_is_read() -> None:
    rows = stored(np.ones((4, 16), dtype=np.float32), "float16", [4])
    gaps = [(rows[0][0][:, ::2], rows[0][1])]
    for some, length in ((rows, 17), (gaps, 8)):
        query = np.ones((1, length), dtype=np.float32)
        with pytest.raises(ValueError, match="of one length"):
            scan.products(some, query)
        with pytest.raises(ValueError, match="of one length"):
            scan.selected_products(some, query, [np.arange(2)])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("length", [64, 4096])
def test_a_row_has_the_same_product_wherever_it_stands_and_shards_are_cut(dtype: str, length: int) -> None:
    random = np.random.default_rng(5)
    sketches, query = np.split(random.normal(size=(301, length)).astype(np.float32), [300])
    whole, cut = (stored(sketches, dtype, sizes) for sizes in ([300], [1, 7, 90, 2, 131, 69]))
    found = scan.products(whole, query)
    assert np.array_equal(found, scan.products(cut, query))
    for first in (1, 2, 3):
        moved = stored(sketches[first:], dtype, [300 - first])
        assert np.array_equal(found[:, first:], scan.products(moved, query))


def test_int8_rows_at_odd_places_are_multiplied_too() -> None:
    """Where rows of the format begin at any byte."""
    random = np.random.default_rng(6)
    rows = stored(random.normal(size=(29, 256)).astype(np.float32), "int8", [29])
    query = random.normal(size=(1, 256)).astype(np.float32)
    for place in range(20):
        memory = np.zeros(rows[0][0].size + 32, dtype=np.int8)
        moved = memory[place : place + rows[0][0].size].reshape(29, 256)
        moved[:] = rows[0][0]
        found = scan.products([(moved, rows[0][1])], query)
        assert (np.abs(found - true(rows, query)) <= tolerance(rows, query, "int8")).all()


def test_without_exact_integers_int8_rows_are_multiplied_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_integers_are_exact", lambda: False)
    random = np.random.default_rng(4)
    rows = stored(random.normal(size=(50, 512)).astype(np.float32), "int8", [20, 30])
    queries = random.normal(size=(1, 512)).astype(np.float32)
    np.testing.assert_allclose(scan.products(rows, queries), true(rows, queries), rtol=1e-4, atol=1e-4)


def test_scanning_leaves_torchs_own_threads_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    scan.products(stored(np.ones((2, 8), dtype=np.float32), "float16", [2]), np.ones((1, 8), dtype=np.float32))
    assert torch.get_num_threads() == before
    assert set(threads().map(lambda _: torch.get_num_threads(), range(4))) == {1}
