"""Rows found and ordered; what a cache holds, said."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from explorer import gradients
from explorer.cache.files import file_sha256
from explorer.cache.inventory import cache_report, compared, disk_use
from explorer.cache.store import Store, open_cache
from explorer.corpus import browse
from explorer.engine import Engine
from explorer.history.saved import origin_of
from explorer.records import Fingerprint
from tests.conftest import Tiny
from tests.tiny import ROWS


@pytest.fixture
def store(tiny: Tiny) -> Store:
    return open_cache(tiny.cache)


def test_self_influence_is_the_squared_gradient_times_epochs_and_learning_rate(tiny_engine: Engine) -> None:
    own = browse.self_influence(tiny_engine.store)
    assert own.shape == (len(ROWS),) and len(set(own.tolist())) == len(ROWS)
    for row, example in enumerate(tiny_engine.store.examples):
        g = gradients.gradient(tiny_engine.model, example.encoded)
        expected = tiny_engine.store.manifest.training.scale * gradients.inner_product(g, g)
        assert own[row] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "sources", "rows"),
    [
        ("", [], [0, 1, 2, 3, 4, 5, 6]),
        ("RIVER", [], [2, 5]),
        ("river fish", [], [2]),
        ("water", [], [2, 5]),
        ("", ["sky", "odd"], [0, 1, 6]),
        ("moon", ["water"], []),
        ("NAÏVE 🌟", [], [6]),
        ("</B>", [], [6]),
    ],
)
def test_rows_are_found_by_all_words_and_one_of_the_sources(
    store: Store, words: str, sources: list[str], rows: list[int]
) -> None:
    assert browse.matching(store, browse.searchable(store), words, sources).tolist() == rows


def test_rows_are_ordered_by_falling_value_with_what_is_no_number_last() -> None:
    by = np.array([1.0, np.nan, 3.0, 3.0, -np.inf, 2.0])
    assert browse.ordered(np.arange(6), by).tolist() == [2, 3, 5, 0, 1, 4]
    assert browse.ordered(np.array([5, 0, 2]), by).tolist() == [2, 5, 0]
    assert browse.ordered(np.array([4, 1]), None).tolist() == [4, 1]


def test_disk_use_is_that_of_the_files(store: Store, tmp_path: Path) -> None:
    folder = shutil.copytree(store.folder, tmp_path / "cache")
    for kept in ("methods/fit", "retraining/adapters/one"):
        (folder / kept).parent.mkdir(parents=True, exist_ok=True)
        (folder / kept).write_bytes(b"kept")
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    used = disk_use(open_cache(folder))
    assert sum(used.values()) == there and all(size > 0 for size in used.values())


def test_a_cache_fits_the_model_it_was_made_with_and_no_other(store: Store) -> None:
    made = store.manifest.fingerprint
    assert all(part.same for part in compared(made, made))
    for field in ("base", "adapter", "tokenizer", "template", "precision"):
        parts = compared(made, Fingerprint(**(vars(made) | {field: "other"})))
        assert [part.what for part in parts if not part.same] == [field]
    reordered = dataclasses.replace(made, layout=made.layout[::-1])
    assert [part.what for part in compared(made, reordered) if not part.same] == ["trainable tensors"]


def test_the_origin_names_every_hash(store: Store) -> None:
    origin, report = origin_of(store), cache_report(store)
    assert (origin.base_sha256, origin.adapter_sha256, origin.data_sha256) == (
        report["base_sha256"],
        report["adapter_sha256"],
        report["data_sha256"],
    )
    assert origin.cache_sha256 == file_sha256(store.folder / "manifest.json")
    assert set(origin.facts()) >= {"base sha256", "cache sha256", "versions", "scale"}
