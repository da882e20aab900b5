"""The table of examples, `examples.parquet`: prompts, responses, token ids, the user's own columns."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from explorer.records import Encoded, ExampleRow, Token

_TOKEN = pa.struct([("text", pa.string()), ("raw", pa.string()), ("special", pa.bool_())])
# Parquet calls what a list holds `element`; under another name a table that was read would pack into other bytes.
_FORM = pa.schema(
    [
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("ids", pa.list_(pa.field("element", pa.int64()))),
        ("response_start", pa.int64()),
        ("tokens", pa.list_(pa.field("element", _TOKEN))),
        ("columns", pa.string()),
    ]
)


SYSTEM = "system"
"""The column with the system prompts that examples begin with; only in caches of which some do."""
GAPS = "gaps"
"""The column with what isn't in the loss behind `response_start`; only in tables where there is such."""
_GAPS = pa.list_(pa.field("element", pa.list_(pa.field("element", pa.int64()))))


def examples_table(examples: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of `examples.parquet`; columns of mixed kind are kept as JSON text."""
    table = pa.table(
        {
            "prompt": [e["prompt"] for e in examples],
            "response": [e["response"] for e in examples],
            "ids": [e["ids"].tolist() for e in examples],
            "response_start": [e["response_start"] for e in examples],
            "tokens": [[dataclasses.asdict(token) for token in e["tokens"]] for e in examples],
            "columns": [json.dumps(e["columns"], default=str, ensure_ascii=False) for e in examples],
        },
        schema=_FORM,
    )
    if any(e.get(GAPS) for e in examples):
        table = table.append_column(pa.field(GAPS, _GAPS), pa.array([[*map(list, e[GAPS])] for e in examples], _GAPS))
    if not any(SYSTEM in e for e in examples):
        return table
    return table.append_column(pa.field(SYSTEM, pa.string()), pa.array([e[SYSTEM] for e in examples], pa.string()))


def joined_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of examples one after the other."""
    return pa.concat_tables(tables, promote_options="default")


def pack_table(table: pa.Table) -> bytes:
    """The table as a Parquet file; the bytes don't depend on the pieces it was put together from."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def unpack_table(content: NDArray[np.uint8], columns: Sequence[str] | None = None) -> pa.Table:
    """What `pack_table` packed, or some columns of it."""
    return pq.read_table(pa.BufferReader(pa.py_buffer(content)), columns=columns and list(columns))


def encoded_examples(table: pa.Table) -> list[Encoded]:
    """The token ids of every row."""
    kept = table.select([name for name in ("ids", "response_start", GAPS) if name in table.column_names])
    return [_encoded(row) for row in kept.to_pylist()]


def _encoded(kept: Mapping[str, Any]) -> Encoded:
    gaps = tuple((start, stop) for start, stop in kept.get(GAPS) or ())
    return Encoded(np.asarray(kept["ids"], dtype=np.int64), kept["response_start"], gaps)


def example_row(number: int, id: int, kept: Mapping[str, Any], loss: float) -> ExampleRow:
    """A row of the table as a record."""
    return ExampleRow(
        row=number,
        id=id,
        prompt=kept["prompt"],
        response=kept["response"],
        encoded=_encoded(kept),
        tokens=tuple(Token(**token) for token in kept["tokens"]),
        loss=loss,
        columns=json.loads(kept["columns"]),
    )
