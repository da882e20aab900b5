"""Reads a cache by the rules of `docs/cache-format.md` alone; of the explorer it only asks what it would have said."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from explorer import retrieval
from explorer.cache.generations import drop
from explorer.cache.store import create_cache, open_cache
from explorer.retrieval import scores
from tests.cache.test_store import MANIFEST, ROWS, shard, token_shard
from tests.conftest import Tiny

TYPES = {"F16": "<f2", "F32": "<f4", "I8": "<i1", "I32": "<i4", "I64": "<i8"}


def read_manifest(folder: Path) -> dict[str, Any]:
    first, rest = (folder / "manifest.json").read_bytes().split(b"\n", 1)
    assert first == b'{"sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",'
    found: dict[str, Any] = json.loads(first + rest)
    assert found["schema"] == 4
    return found


def read_shard(folder: Path, listed: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    content = (folder / listed["file"]).read_bytes()
    assert len(content) == listed["size"] and hashlib.sha256(content).hexdigest() == listed["sha256"]
    (length,) = struct.unpack("<Q", content[:8])
    data = content[8 + length :]
    found = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            found[name] = np.frombuffer(data[start:stop], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def expand(ids: list[list[int]]) -> list[int]:
    return [number for start, stop in ids for number in range(start, stop)]


@pytest.fixture(params=["made", "after a drop"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = create_cache(tmp_path / "cache", MANIFEST, ROWS)
    made = made.add_shard("sketches", shard(2), 2).add_shard("sketches", shard(1, 2), 1)
    made.add_shard("tokens", token_shard(), 5)
    if request.param != "made":
        drop(tmp_path / "cache", [0])
    return tmp_path / "cache"


def check(folder: Path) -> None:
    """Scores of a question, for examples and tokens, by the document and by the explorer."""
    found, store = read_manifest(folder), open_cache(folder)
    assert (folder / "manifest.copy.json").read_bytes() == (folder / "manifest.json").read_bytes()
    settings, training = found["settings"], found["training"]
    scale = sum(weight for _, weight in training["checkpoints"]) or training["epochs"] * training["learning_rate"]
    query = np.random.default_rng(0).normal(size=settings["length"]).astype(np.float32)
    folded = query.reshape(settings["token_length"], -1).sum(axis=1)
    ids: list[int] = []
    values: list[float] = []
    tokens: dict[int, Any] = {}
    for listed in found["shards"]:
        arrays = read_shard(folder, listed)
        if listed["kind"] == "sketches":
            assert arrays["norms"].shape == (listed["count"], len(found["fingerprint"]["layout"]))
            ids += expand(listed["ids"])
            values += (scale * (arrays["sketch"].astype(np.float64) @ query) * arrays["scale"]).tolist()
        elif listed["kind"] == "tokens":
            assert arrays["rows"].tolist() == expand(listed["ids"])
            each = scale * (arrays["sketch"].astype(np.float64) @ folded) * arrays["scale"]
            for i, number in enumerate(arrays["rows"].tolist()):
                tokens[number] = each[arrays["offsets"][i] : arrays["offsets"][i + 1]]
    table = pq.read_table(folder / found["examples"]["file"]).to_pylist()
    assert len(table) == len(ids) == found["rows"] and len(tokens) == found["token_rows"]
    expected = retrieval.example_scores(store, query[None])[0].values
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    for row, (example, kept) in enumerate(zip(store.examples, table, strict=True)):
        assert (example.id, example.prompt, example.response) == (ids[row], kept["prompt"], kept["response"])
        assert example.columns == json.loads(kept["columns"]) and kept["response_start"] < len(kept["ids"])
        own = scores.token_scores(store, query, row, float(expected[row]))
        assert (own is None) == (ids[row] not in tokens)
        if own is not None:
            shifted = tokens[ids[row]] + (expected[row] - tokens[ids[row]].mean())
            np.testing.assert_allclose(own, shifted, rtol=1e-3, atol=1e-4 * np.abs(own).max())


def test_a_cache_is_read_by_the_document_alone(folder: Path) -> None:
    check(folder)


def test_so_is_a_cache_of_a_model(tiny: Tiny) -> None:
    check(tiny.cache)


def test_the_document_names_every_key_and_array(tiny: Tiny) -> None:
    text = (Path(__file__).parents[2] / "docs/cache-format.md").read_text(encoding="utf-8")
    found = read_manifest(tiny.cache)
    names = {*found, *found["fingerprint"], *found["training"], *found["settings"], *found["parts"][0]}
    for listed in found["shards"]:
        names |= {*listed, *read_shard(tiny.cache, listed)}
    names |= set(pq.read_table(tiny.cache / "examples.parquet").column_names)
    assert [name for name in sorted(names) if f"`{name}`" not in text and f'"{name}"' not in text] == []
