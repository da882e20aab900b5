"""Files of every format, packed or not, whole or damaged; folders and hub data sets with their splits."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorer.errors import DataError
from explorer.records import Example
from precompute.data import Reading, read_examples
from precompute.data.sets import chosen_split

ROW = {"prompt": "Why?", "response": "So.", "source": "web"}
EXAMPLE = Example(({"role": "user", "content": "Why?"},), "So.", {"source": "web"})


def packed(content: bytes, how: str) -> bytes:
    if how == "gz":
        return gzip.compress(content)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def content_of(ending: str) -> bytes:
    """Two rows in a format."""
    if ending in ("jsonl", "ndjson"):
        return (json.dumps(ROW) + "\n").encode() * 2
    if ending == "json":
        return json.dumps([ROW, ROW], indent=1).encode()
    if ending in ("csv", "tsv"):
        cells = [list(ROW), list(ROW.values()), list(ROW.values())]
        return "\r\n".join(("," if ending == "csv" else "\t").join(row) for row in cells).encode()
    table, sink = pa.Table.from_pylist([ROW, ROW]), pa.BufferOutputStream()
    if ending == "parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


ENDINGS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow")


@pytest.mark.parametrize("how", ["", "gz", "zst"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_is_read_packed_or_not(tmp_path: Path, ending: str, how: str) -> None:
    content = content_of(ending)
    path = tmp_path / f"data.{ending}{'.' * bool(how)}{how}"
    path.write_bytes(packed(content, how) if how else content)
    assert read_examples(path) == [EXAMPLE] * 2
    # Some programs unpack a file and keep its name, others do the opposite.
    path.write_bytes(content if how else packed(content, "gz"))
    assert read_examples(path) == [EXAMPLE] * 2


def test_both_kinds_of_arrow_files_are_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ROW])
    with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert read_examples(tmp_path / "data.arrow") == [EXAMPLE]


def test_long_cells_quotes_and_an_index_without_a_name_are_read(tmp_path: Path) -> None:
    long = "so " * 100_000 + "it is"
    (tmp_path / "data.csv").write_text(f',prompt,response\n0,"Why?",{long}\n', encoding="utf-8")
    (example,) = read_examples(tmp_path / "data.csv")
    assert example.response == long and example.columns == {"": "0"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "data.jsonl",
            '{"data": 1}\n{"prompt": "a", "prompt": "b"}',
            'row 2 .line 2.: is not JSON .the key "prompt" stands',
        ),
        (
            "data.jsonl",
            '[\n{"prompt": "a",\n"response": "b"}\n]',
            "is one JSON text over many lines; .* the ending .json",
        ),
        ("data.jsonl", '{"prompt": "Why?", "response": "So.",}\n', "row 1 .line 1., is not JSON .* after a comma"),
        ("data.jsonl", '{"prompt": "Why?", "response": NaN}', "prompt and response must be text"),
        ("data.jsonl", '{"prompt": "Why?", "n": %s}' % ("1" * 5000), "row 1 .line 1., is not JSON .*integer"),
        ("data.jsonl", '{"prompt": "Why?", "n": %s}' % ("[" * 200 + "]" * 200), "nested deeper"),
        ("data.jsonl", '{"prompt": "Why?\0"}', "holds a NUL character in line 1"),
        ("data.jsonl.gz", gzip.compress(b"x" * 1000, mtime=0)[:20], "can't be read"),
        ("data.jsonl.gz", b"\x1f\x8b broken", "can't be read"),
        ("data.jsonl.zst", packed(b"x" * 1000, "zst")[:12], "can't be read"),
        ("data.jsonl.bz2", b"BZh", r"ends in \.bz2; expected"),
        ("data.gz", gzip.compress(b"{}", mtime=0), "ends in nothing; expected"),
        (
            "data.json",
            '{"data": [{"prompt": "a"}], "version": 1}',
            "one JSON object .data, version.; .* save the list data",
        ),
        ("data.json", '[{"prompt": "a"},]', "is not JSON .* after a comma: column 18"),
        ("data.json", "3", "holds a JSON int; expected a list"),
        ("data.json", json.dumps([ROW]).encode("utf-16"), "is UTF-16, and no UTF-8 text"),
        ("data.csv", "prompt,response,prompt\na,b,c\n", "line 1, names the column prompt twice"),
        (
            "data.csv",
            "prompt,response,,\na,b,,c\n",
            "row 1 .line 2., has a cell in one of several columns without a name",
        ),
        ("data.csv", "prompt;response\na;b\n", "has a semicolon between its cells; expected a comma"),
        ("data.tsv", "prompt,response\na,b\n", "has a comma between its cells; expected a tab"),
        ("data.csv", "prompt\tresponse\na\tb\n", "has a tab between its cells; expected a comma"),
        ("data.csv", "prompt,response\na,b\0\n", "holds a NUL character in line 2"),
        ("data.csv", "\ufeff\ufeffprompt,response\na,b\n", r"has the columns response, '\\ufeffprompt'"),
        ("data.parquet", content_of("parquet")[:-30], "can't be read as parquet"),
        ("data.arrow", content_of("arrow")[:100], "can't be read as arrow"),
        ("data.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a git-lfs pointer"),
        ("data.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a git-lfs pointer"),
    ],
)
def test_a_damaged_file_is_refused_by_what_is_wrong_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"{name}.*{said}") as refused:
        read_examples(path)
    assert "\n" not in str(refused.value)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["prompt", "response", "prompt"])
    with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="has two columns of the same name"):
        read_examples(tmp_path / "data.arrow")


# Folders and hubs


def saved(folder: Path, *splits: str) -> Path:
    own = datasets.Dataset.from_list([ROW])
    (datasets.DatasetDict(dict.fromkeys(splits, own)) if splits else own).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize(
    ("splits", "wanted"), [((), ""), (("train",), ""), (("sft",), ""), (("test", "train"), ""), (("a", "b"), "b")]
)
def test_a_saved_folder_is_read(tmp_path: Path, splits: tuple[str, ...], wanted: str) -> None:
    assert read_examples(saved(tmp_path / "set", *splits), Reading(split=wanted)) == [EXAMPLE]


@pytest.mark.parametrize(
    ("splits", "reading", "said"),
    [
        (("a", "b"), Reading(), "has the splits a, b, and none is named train; name one with --split"),
        (("a", "b"), Reading(split="c"), "has no split c; it has: a, b"),
        ((), Reading(split="c"), "has no splits; leave out --split"),
        (("train",), Reading(config="c"), "is no hub data set; leave out --config"),
    ],
)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, splits: tuple[str, ...], reading: Reading, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_examples(saved(tmp_path / "set", *splits), reading)


def test_another_folder_is_refused_with_what_lies_in_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder that save_to_disk wrote; and it has no file of data"):
        read_examples(tmp_path)
    (tmp_path / "README.md").write_text("Read me.")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "train.parquet").write_bytes(content_of("parquet"))
    with pytest.raises(DataError, match=r"save_to_disk wrote; give a file of data, such as its deep.train\.parquet"):
        read_examples(tmp_path)
    (tmp_path / "data.jsonl").write_text("{}")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match="can't be read as a data set"):
        read_examples(tmp_path)
    with pytest.raises(DataError, match="is no hub data set; leave out --split"):
        read_examples(tmp_path / "data.jsonl", Reading(split="train"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the library reads as it reads a hub's, in place of the hub `some/data`."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    folder.mkdir()
    load, names = datasets.load_dataset, datasets.get_dataset_split_names
    local = {"some/data": str(folder)}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *a, **k: load(local[name], *a, **k))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, *a: names(local[name], *a))
    return folder


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(content_of("jsonl"))


@pytest.mark.parametrize(
    ("files", "reading"),
    [
        (("train.jsonl", "test.jsonl"), Reading()),
        (("test.jsonl",), Reading()),
        (("test.jsonl", "validation.jsonl"), Reading(split="test")),
        (("train.jsonl",), Reading(split="train[:2]")),
    ],
)
def test_a_hub_data_set_is_read_with_or_without_a_split_named_train(
    hub: Path, files: tuple[str, ...], reading: Reading
) -> None:
    put(hub, *files)
    assert read_examples("some/data", reading) == [EXAMPLE] * 2


def test_a_hub_data_set_that_leaves_a_choice_is_refused_with_what_there_is(hub: Path) -> None:
    put(hub, "test.jsonl", "validation.jsonl")
    with pytest.raises(DataError, match=r"some/data has the splits (validation, test|test, validation), and none is"):
        read_examples("some/data")
    with pytest.raises(DataError, match="some/data has no split train; it has: "):
        read_examples("some/data", Reading(split="train"))
    configs = "".join(f"- config_name: {each}\n  data_files: {each}.jsonl\n" for each in ("test", "validation"))
    (hub / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(DataError, match=r"did not give it .*'test', 'validation'.*; name one with --config") as refused:
        read_examples("some/data")
    assert "\n" not in str(refused.value)
    assert read_examples("some/data", Reading(config="test")) == [EXAMPLE] * 2


@pytest.mark.parametrize(
    ("known", "wanted", "found"), [(["train", "a"], "", "train"), (["a"], "", "a"), (["a"], "a", "a")]
)
def test_a_split_is_chosen(known: list[str], wanted: str, found: str) -> None:
    assert chosen_split("data", wanted, known) == found


def test_what_is_no_path_is_refused(tmp_path: Path) -> None:
    nowhere: Any = tmp_path / ("x" * 5000)
    with pytest.raises(DataError, match="can't be read: File name too long"):
        read_examples(nowhere)
