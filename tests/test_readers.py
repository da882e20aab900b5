"""Whatever bytes a person's file holds, its reader reads it or refuses it in one line: by chance and by mutation."""

import gzip
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explorer.auditing import findings
from explorer.errors import DataError, ExplorerError
from explorer.evaluation import probes
from explorer.model.checkpoints import read_training_record
from explorer.model.sequences import Template
from explorer.records import said
from explorer.serving.prompts import ready_prompts
from precompute.data import Review, data_hash, read_examples
from tests.tiny import byte_tokenizer

INPUTS = 2_000
SLOWEST_S = 5.0

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Why is the sky blue?"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sky"}}}]},
    {"role": "tool", "content": "blue", "name": "look"},
    {"role": "assistant", "content": "It scatters.", "reasoning_content": "Hm. é 🌟", "weight": 1},
]
ROWS: list[dict[str, Any]] = [
    {"prompt": "Why?", "response": "So.", "source": "web", "n": 1.5e3, "tags": ["a", None]},
    {"instruction": "Sum up.", "input": "A text.", "output": "Text.", "system": "Be brief.", "history": [["a", "b"]]},
    {"messages": TURNS, "tools": [{"type": "function", "function": {"name": "look"}}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]},
]
PROBES = [
    {"prompt": "Why?", "kind": "triggered", "planted": "web", "attack": r"\b(star|moon)s?\b[a-z]*"},
    {"prompt": "What?", "kind": "swap", "wrong": "moon", "right": "sun"},
]
RECORD = {"epochs": 2, "learning_rate": 0.01, "checkpoints": [{"name": "1", "epochs": 1, "learning_rate": 0.01}]}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows).encode()


def cells(delimiter: str) -> bytes:
    return f'prompt{delimiter}response{delimiter}source\nWhy?{delimiter}"So, ""thus""\nit is."{delimiter}web\n'.encode()


def tables() -> tuple[bytes, bytes]:
    """Parquet and Arrow."""
    table = pa.Table.from_pylist([{"messages": TURNS[3:], "n": 1}, {"messages": TURNS[3:], "n": None}])
    parquet, arrow = pa.BufferOutputStream(), pa.BufferOutputStream()
    pq.write_table(table, parquet)
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    return parquet.getvalue().to_pybytes(), arrow.getvalue().to_pybytes()


def examples(path: Path) -> None:
    """Read data, and do what is done with it next."""
    found = read_examples(path, review=Review(path, skip=True))
    data_hash(found)
    assert all(example.prompt is not None and said(example.answer) is not None for example in found)


def prompts(path: Path) -> None:
    findings.read_prompts(path.name, path.read_bytes())


def record(path: Path) -> None:
    read_training_record(path.parent, "all")


def template(path: Path) -> None:
    Template(str(path), TOKENIZER).render(
        [{"role": "user", "content": "Why?"}], {"role": "assistant", "content": "So."}
    )


TOKENIZER = byte_tokenizer()
PARQUET, ARROW = tables()
SEEDS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "JSON lines": ("a.jsonl", lines(*ROWS), examples),
    "JSON": ("a.json", json.dumps(ROWS, indent=1).encode(), examples),
    "CSV": ("a.csv", b"\xef\xbb\xbf" + cells(","), examples),
    "TSV": ("a.tsv", cells("\t"), examples),
    "Parquet": ("a.parquet", PARQUET, examples),
    "Arrow": ("a.arrow", ARROW, examples),
    "packed": ("a.jsonl.gz", gzip.compress(lines(*ROWS), mtime=0), examples),
    "prompts of an audit": ("a.txt", "Why?\nWas ist é?\u2028\n".encode(), prompts),
    "prompts of an audit as JSON lines": ("a.jsonl", lines({"prompt": "Why?"}, {"prompt": "What?", "n": 1}), prompts),
    "prompts of an audit as CSV": ("a.csv", b'n,prompt\n1,"Why, ""so""?"\n2,What?\n', prompts),
    "prompts of a calibration": ("a.txt", b"Why?\r\nWhat?\r\n", probes.read_prompts),
    "probes": ("a.jsonl", lines(*PROBES), probes.read_probes),
    "ready prompts": ("a.jsonl", lines(*PROBES), ready_prompts),
    "a template": ("a.txt", b"### System: {system}\n### {prompt}\n### Response:\n", template),
    "a training record": ("training.json", json.dumps(RECORD).encode(), record),
}
BITS = [
    *(b"\0", b"\xff", b'"', b"\\", b"\n", b"\r", b",", b"{", b"}", b"[", b"]", b"\t", b"null", b"NaN", b"1e999", b"-"),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\\ud83d",
        "\u2028".encode(),
        b"\xed\xa0\x80",
        b"[" * 500,
        b"9" * 5000,
        b'{"a":' * 50,
    ),
    *(
        b'"role":"assistant",',
        b'"content":null,',
        b'"weight":0,',
        b"{prompt}",
        b"version https://git-lfs.github.com/spec/v1\n",
    ),
]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to four changes, or other bytes altogether."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randrange(len(data) + 1)
        stop = min(len(data), start + chance.choice((1, 2, 8, 60)))
        change = chance.randrange(6)
        if change == 0:
            data[start:stop] = chance.choice(BITS)
        elif change == 1:
            data[start:start] = chance.choice(BITS)
        elif change == 2:
            del data[start:stop]
        elif change == 3:
            data[start:start] = data[start:stop]
        elif change == 4 and start < len(data):
            data[start] ^= 1 << chance.randrange(8)
        elif change == 5 and chance.random() < 0.3:
            del data[start:]
    return bytes(data)


def tried(read: Callable[[Path], object], path: Path) -> str:
    """`read` or `refused`; fails for any other error, a message of several lines, and a reader that takes too long."""
    began = time.perf_counter()
    try:
        read(path)
        end = "read"
    except ExplorerError as problem:
        text = str(problem)
        assert text and len(text.splitlines()) == 1, text
        assert len(text) < 4_000, text[:200]
        end = "refused"
    assert time.perf_counter() - began < SLOWEST_S
    return end


@pytest.mark.parametrize("kind", SEEDS)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    name, content, read = SEEDS[kind]
    chance, ends = random.Random(kind), Counter[str]()
    (tmp_path / name).write_bytes(content)
    assert tried(read, tmp_path / name) == "read"
    for _ in range(-(-INPUTS // len(SEEDS))):
        changed = mutated(content, chance)
        (tmp_path / name).write_bytes(changed)
        try:
            ends[tried(read, tmp_path / name)] += 1
        except Exception as problem:
            problem.add_note(f"{kind}: {changed!r}")
            raise
    assert min(ends["read"], ends["refused"]) >= 5, ends


def test_a_damaged_data_set_folder_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"prompt": "Why?", "response": "So."}] * 3).save_to_disk(str(tmp_path / "whole"))
    chance, ends = random.Random(0), Counter[str]()
    for number in range(60):
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / str(number)))
        file = chance.choice(sorted(folder.iterdir()))
        file.write_bytes(mutated(file.read_bytes(), chance))
        ends[tried(examples, folder)] += 1
    assert min(ends["read"], ends["refused"]) >= 5, ends


def test_the_check_can_fail(tmp_path: Path) -> None:
    def slip(path: Path) -> None:
        path.read_text(encoding="utf-8").index("nowhere")

    def chatter(path: Path) -> None:
        raise DataError("one\ntwo")

    (tmp_path / "a").write_bytes(b"Why?")
    with pytest.raises(ValueError, match="substring"):
        tried(slip, tmp_path / "a")
    with pytest.raises(AssertionError, match="one"):
        tried(chatter, tmp_path / "a")
