"""The cache on disk: whole or absent, checked, refused where it doesn't belong."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from explorer.cache import files, manifest, shards, store
from explorer.cache.manifest import CacheSettings, Manifest, Part
from explorer.cache.store import Store
from explorer.cache.verify import verify
from explorer.errors import CacheError, DamageError, MismatchError
from explorer.records import Fingerprint, Token, TrainingRecord
from tests.conftest import Tiny

LAYOUT = (("a.weight", (2, 3)), ("b.weight", (4,)))
FINGERPRINT = Fingerprint("base hash", "adapter hash", "tokenizer hash", "template hash", "float32", LAYOUT)
MANIFEST = Manifest(
    fingerprint=FINGERPRINT,
    training=TrainingRecord(2, 0.001, known=True),
    settings=CacheSettings(length=8, token_length=4, shard_rows=2),
    model="model",
    adapter="../adapter",
    template="chat",
    parts=(Part("train.jsonl", "data hash", 3),),
    rows=3,
    token_rows=2,
    versions={"numpy": "2"},
)
ROWS = [
    {
        "prompt": f"prompt {row}",
        "response": "naïve 🌟\n",
        "ids": np.arange(5 + row),
        "response_start": 3,
        "tokens": [Token("naïve"), Token("", raw="F0 9F"), Token("🌟"), Token("<end>", special=True)],
        "columns": {"source": "sky", "tags": ["a", {"b": None}], "number": 1.5},
    }
    for row in range(3)
]


def shard(rows: int, first: int = 0) -> shards.Arrays:
    """Sketches, norms and losses of `rows` examples."""
    random = np.random.default_rng(first)
    sketch, scale = shards.quantise(random.normal(size=(rows, 8)).astype(np.float32), "float16")
    norms = random.random((rows, 2)).astype(np.float32)
    return {"sketch": sketch, "scale": scale, "norms": norms, "loss": np.arange(rows, dtype=np.float32) + first}


def token_shard() -> shards.Arrays:
    """Token sketches of the rows 0 and 2."""
    sketch, scale = shards.quantise(np.arange(20, dtype=np.float32).reshape(5, 4), "float16")
    return {"sketch": sketch, "scale": scale, "rows": np.array([0, 2]), "offsets": np.array([0, 2, 5])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def finished(folder: Path) -> Store:
    made = store.create_cache(folder, MANIFEST, ROWS)
    return (
        made.add_shard("sketches", shard(2), 2)
        .add_shard("sketches", shard(1, 2), 1)
        .add_shard("tokens", token_shard(), 5)
    )


def digests(folder: Path) -> dict[str, str]:
    """Every file of a folder with its SHA-256."""
    return {str(p.relative_to(folder)): files.file_sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# Round trips

SIZES = st.floats(2.0**-30, 1024.0, width=32)
SKETCHES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.just(0.0) | SIZES | SIZES.map(lambda size: -size),
)


@given(sketches=SKETCHES)
def test_float16_keeps_sketches_to_eleven_bits(sketches: NDArray[np.float32]) -> None:
    stored, scale = shards.quantise(sketches, "float16")
    assert stored.dtype == np.float16
    # Entries far below their row's largest keep fewer bits, but no larger an error.
    allowed = np.maximum(np.abs(sketches) * 2.0**-11, np.abs(sketches).max(axis=1, keepdims=True) * 2.0**-24)
    error = np.abs(stored.astype(np.float64) * scale[:, None] - sketches)
    assert (error <= allowed + 2.0**-149).all(), f"off by {(error - allowed).max()} more than was promised"


@given(sketches=SKETCHES)
def test_int8_keeps_sketches_to_a_254th_of_the_rows_largest(sketches: NDArray[np.float32]) -> None:
    stored, scale = shards.quantise(sketches, "int8")
    assert stored.dtype == np.int8
    error = np.abs(stored.astype(np.float32) * scale[:, None] - sketches).max(axis=1)
    bound = np.abs(sketches).max(axis=1) / 254
    assert (error <= bound * (1 + 1e-4) + 1e-30).all(), f"off by {error.max()}, at most {bound.max()} was promised"


def test_a_row_of_zeros_survives_int8() -> None:
    stored, scale = shards.quantise(np.zeros((2, 4), dtype=np.float32), "int8")
    assert not stored.any() and scale.tolist() == [1, 1]


def test_mapped_arrays_have_the_values_and_types_that_were_packed(tmp_path: Path) -> None:
    arrays: shards.Arrays = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "single": np.array([0.1, -2.5], dtype=np.float32),
        "bytes": np.array([[-128], [127]], dtype=np.int8),
        "long": np.array([2**40]),
        "int": np.array([7], dtype=np.int32),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    payload = shards.pack_arrays(arrays)
    (tmp_path / "x.safetensors").write_bytes(payload)
    found = shards.Mapped(tmp_path / "x.safetensors", hashlib.sha256(payload).hexdigest(), len(payload)).arrays
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("rows", [1, 2, 3, 102])
def test_the_largest_array_lies_where_vectors_like_it_and_others_can_read_the_file(rows: int) -> None:
    from safetensors.numpy import load

    arrays: shards.Arrays = {
        "scale": np.arange(rows, dtype=np.float32),
        "sketch": np.ones((rows, 256), dtype=np.float16),
        "coarse_64": np.ones((rows, 64), dtype=np.int8),
    }
    payload = shards.pack_arrays(arrays)
    found = shards.unpack_arrays(np.frombuffer(payload, dtype=np.uint8), Path("x.safetensors"))
    start = np.frombuffer(payload, dtype=np.uint8).ctypes.data
    assert [(found[name].ctypes.data - start) % shards.ALIGNED for name in ("sketch", "coarse_64")] == [0, 0]
    for name, array in load(payload).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_mapped_arrays_cannot_be_written_to(finished: Store) -> None:
    (sketches, _), *_ = finished.sketches()
    with pytest.raises(ValueError, match="read-only"):
        sketches[0, 0] = 1


def test_a_manifest_survives_json() -> None:
    text = json.dumps(MANIFEST.json())
    assert Manifest.from_json(json.loads(text)) == MANIFEST


def test_an_opened_cache_holds_what_was_written(finished: Store, folder: Path) -> None:
    opened = store.open_cache(folder)
    assert opened.complete and verify(folder) == []
    assert opened.manifest == MANIFEST
    stored = [np.array(sketch) for sketch, _ in opened.sketches()]
    np.testing.assert_array_equal(np.concatenate(stored), np.concatenate([shard(2)["sketch"], shard(1, 2)["sketch"]]))
    np.testing.assert_array_equal(opened.norms, np.concatenate([shard(2)["norms"], shard(1, 2)["norms"]]))
    assert opened.losses.tolist() == [0, 1, 2]


def test_examples_come_back_as_they_were(finished: Store, folder: Path) -> None:
    examples = store.open_cache(folder).examples
    assert [example.row for example in examples] == [0, 1, 2]
    for example, row in zip(examples, ROWS, strict=True):
        assert (example.prompt, example.response, example.columns) == (row["prompt"], row["response"], row["columns"])
        assert list(example.tokens) == row["tokens"]
        np.testing.assert_array_equal(example.encoded.ids, row["ids"])
        assert example.encoded.response_start == 3 and example.source == "sky"
    assert [example.loss for example in examples] == [0, 1, 2]


def test_token_sketches_are_found_by_their_example(finished: Store) -> None:
    first, none, last = (finished.token_sketches(row) for row in range(3))
    assert none is None and first is not None and last is not None
    np.testing.assert_allclose(first, np.arange(8).reshape(2, 4), atol=0.1)
    np.testing.assert_allclose(last, np.arange(8, 20).reshape(3, 4), atol=0.1)


# Damage


def sealed(kept: dict[str, object]) -> bytes:
    """A manifest of any content, with a checksum that is right."""
    rest = (json.dumps(kept, indent=1)[2:] + "\n").encode()
    return f'{{"sha256": "{hashlib.sha256(rest).hexdigest()}",\n'.encode() + rest


DAMAGED = ["examples.parquet", "sketches/00000.safetensors", "sketches/00001.safetensors", "tokens/00000.safetensors"]


@pytest.mark.parametrize("file", DAMAGED)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first byte", "middle", "last byte"])
def test_a_flipped_bit_is_found(finished: Store, folder: Path, file: str, place: float) -> None:
    content = bytearray((folder / file).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    (folder / file).write_bytes(content)
    (problem,) = verify(folder)
    assert problem.file == file and "is damaged" in problem.what and "mend" in problem.remedy
    with pytest.raises(DamageError, match=file):
        store.open_cache(folder).check()


@pytest.mark.parametrize("file", DAMAGED[1:])
def test_a_truncated_shard_is_refused(finished: Store, folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    with pytest.raises(CacheError, match=rf"{file} is cut short .*mend"):
        store.open_cache(folder)


@pytest.mark.parametrize("file", DAMAGED[1:])
def test_a_missing_shard_is_refused(finished: Store, folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CacheError, match=rf"{file} is missing"):
        store.open_cache(folder)


def test_missing_examples_are_found_and_named(finished: Store, folder: Path) -> None:
    (folder / "examples.parquet").unlink()
    assert [problem.file for problem in verify(folder)] == ["examples.parquet"]
    with pytest.raises(DamageError, match=r"examples\.parquet is missing"):
        store.open_cache(folder)


@pytest.mark.parametrize("payload", [b"", b"\xff" * 64, (5).to_bytes(8, "little") + b"[1,2]" + b"0" * 51])
def test_a_shard_that_is_no_safetensors_file_is_damaged(payload: bytes) -> None:
    with pytest.raises(DamageError, match=r"no safetensors file .*verify"):
        shards.unpack_arrays(np.frombuffer(payload, dtype=np.uint8), Path("x.safetensors"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps({"schema": manifest.SCHEMA}),
        json.dumps({"schema": manifest.SCHEMA, "shards": [{}], "examples_sha256": ""}),
        '"\ud800"',
    ],
)
def test_a_damaged_manifest_is_a_cache_error(finished: Store, folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(CacheError, match=r"manifest\.json is damaged"):
        store.open_cache(folder)


def test_a_manifest_with_a_field_too_many_or_too_few_is_damaged(finished: Store, folder: Path) -> None:
    kept = json.loads((folder / "manifest.json").read_text())
    del kept["sha256"]
    for change in ({"settings": {**kept["settings"], "more": 1}}, {"fingerprint": {"base": ""}}, {"training": 3}):
        (folder / "manifest.json").write_bytes(sealed(kept | change))
        with pytest.raises(DamageError, match="damaged"):
            store.open_cache(folder)


def test_a_folder_without_a_manifest_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"is no cache .*`rapidin-explorer precompute`"):
        store.open_cache(tmp_path)


@pytest.mark.parametrize("schema", [1, manifest.SCHEMA + 1])
def test_another_schema_is_refused(finished: Store, folder: Path, schema: int) -> None:
    kept = json.loads((folder / "manifest.json").read_text())
    del kept["sha256"]
    (folder / "manifest.json").write_bytes(sealed(kept | {"schema": schema}))
    for command in (store.open_cache, verify):
        with pytest.raises(CacheError, match=f"has schema {schema}, this program reads 2 to {manifest.SCHEMA}"):
            command(folder)
    with pytest.raises(CacheError, match=f"has schema {schema}, this program reads 2 to {manifest.SCHEMA}"):
        store.open_cache(folder)


def test_an_unfinished_cache_is_refused_with_the_command_that_mends_it(folder: Path) -> None:
    made = store.create_cache(folder, MANIFEST, ROWS).add_shard("sketches", shard(2), 2)
    assert not made.complete
    with pytest.raises(CacheError, match=r"unfinished \(2 of 3 examples\); run the same `rapidin-explorer precompute`"):
        store.open_cache(folder).require_complete()
    (problem,) = verify(folder)
    assert "2 of 3 examples" in problem.what and "the same `rapidin-explorer precompute` again" in problem.remedy


# What a cache belongs to


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("base", "other", "base model"),
        ("adapter", "", "adapter"),
        ("tokenizer", "other", "tokenizer"),
        ("template", "other", "template, or by an earlier version, which ended answers otherwise than this template"),
        ("precision", "bfloat16", "precision"),
        ("layout", LAYOUT[:1], "set of trainable tensors"),
    ],
)
def test_another_model_is_refused_naming_what_differs(finished: Store, field: str, value: object, named: str) -> None:
    other = dataclasses.replace(FINGERPRINT, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match=rf"another {named} \(model model, adapter \.\./adapter, template chat\)"):
        finished.check_model(other)


def test_the_model_it_was_made_with_is_accepted(finished: Store) -> None:
    finished.check_model(FINGERPRINT)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": dataclasses.replace(MANIFEST.settings, seed=1)}, "settings"),
        ({"settings": dataclasses.replace(MANIFEST.settings, batch=4)}, "settings"),
        ({"fingerprint": dataclasses.replace(FINGERPRINT, base="x")}, "fingerprint"),
        ({"fingerprint": dataclasses.replace(FINGERPRINT, precision="4bit")}, "fingerprint"),
        ({"parts": (Part("train.jsonl", "x", 3),)}, "data"),
        ({"rows": 4, "token_rows": 3}, "rows, token_rows"),
    ],
)
def test_another_setting_on_an_existing_folder_is_refused(
    finished: Store, folder: Path, change: dict[str, object], named: str
) -> None:
    before = digests(folder)
    with pytest.raises(MismatchError, match=f"already holds a cache with another {named}; give another folder"):
        store.create_cache(folder, dataclasses.replace(MANIFEST, **change), ROWS)  # type: ignore[arg-type]
    assert digests(folder) == before


def test_newer_libraries_may_finish_an_older_cache(finished: Store, folder: Path) -> None:
    newer = dataclasses.replace(MANIFEST, versions={"numpy": "3"})
    assert store.create_cache(folder, newer, ROWS).manifest.versions == {"numpy": "2"}


def test_a_folder_with_other_things_is_refused_and_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(MismatchError, match=r"holds other files \(thesis\.txt\); give an empty or new folder"):
        store.create_cache(folder, MANIFEST, ROWS)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


# Writing


def test_leftovers_of_a_stopped_write_are_harmless(finished: Store, folder: Path) -> None:
    for name in ("manifest.json.part", "sketches/00002.safetensors.part"):
        (folder / name).write_bytes(b"half")
    assert store.open_cache(folder).complete
    assert [(problem.file, problem.harmful) for problem in verify(folder)] == [
        ("manifest.json.part", False),
        ("sketches/00002.safetensors.part", False),
    ]


def test_a_cache_can_begin_where_a_stopped_run_left_only_leftovers(folder: Path) -> None:
    folder.mkdir()
    (folder / "examples.parquet.part").write_bytes(b"half")
    (folder / "manifest.json.part").write_bytes(b"half")
    store.create_cache(folder, MANIFEST, ROWS)
    assert sorted(path.name for path in folder.iterdir()) == ["examples.parquet", "manifest.copy.json", "manifest.json"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_whole(path, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CacheError, match=r"can't be written: No space left on device\. What was written before is kept"
    ):
        files.write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "a half-written file was left"


def test_a_full_disk_while_sketching_keeps_a_cache_that_can_be_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create_cache(folder, MANIFEST, ROWS).add_shard("sketches", shard(2), 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CacheError):
            made.add_shard("sketches", shard(1, 2), 1)
    opened = store.create_cache(folder, MANIFEST, ROWS)
    assert [one.count for one in opened.shards] == [2]
    assert opened.add_shard("sketches", shard(1, 2), 1).complete


def test_a_second_writer_is_refused(folder: Path) -> None:
    with files.only_writer(folder), pytest.raises(CacheError, match="Another command is writing to"):
        with files.only_writer(folder):
            pass


def test_the_writer_lets_go_when_it_ends(folder: Path) -> None:
    with pytest.raises(RuntimeError), files.only_writer(folder):
        raise RuntimeError("stopped")
    with files.only_writer(folder):
        pass


def test_a_folder_that_cannot_be_made_is_a_cache_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheError, match="can't be made"), files.only_writer(folder):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_a_cache_error_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    folder.mkdir()
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(CacheError, match="can't be written: Permission denied"):
        store.create_cache(folder, MANIFEST, ROWS)
    assert list(folder.iterdir()) == []


def test_a_moved_cache_opens_and_verifies(tiny: Tiny, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny.cache, tmp_path / "elsewhere"))
    store.open_cache(moved).check()
    assert verify(moved) == []
