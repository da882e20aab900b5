"""A cache's rows as training data again, and the data without what was suspected of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from explorer.cache import Store
from explorer.cache.files import write_whole
from explorer.cache.table import SYSTEM
from explorer.errors import DataError, PromptError
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded, Example, Message
from explorer.repair.suspects import Replacement, Suspects
from precompute.data import data_hash, read_examples


def examples_of(store: Store, model: LanguageModel, data: str = "") -> list[Example]:
    """The cache's rows as examples, from its table or from the file that they were read from.

    Each is proven to be what was trained on: it becomes the token ids that the cache has. Raises DataError where one
    doesn't, or where there are more or fewer.
    """
    found = read_examples(data) if data else _from_table(store)
    if len(found) != store.manifest.rows:
        raise DataError(f"{data} has {len(found):,} rows, and the cache {store.manifest.rows:,}; give the same data.")
    for row, example in enumerate(found):
        if not _is(encoded(model, example, store, row), store.examples[row].encoded):
            if data:
                raise DataError(f"Row {row} of {data} isn't what was trained on; give the data that the cache is of.")
            raise DataError(
                f"Row {row} has more turns than its text in the cache shows; give the training data with --data."
            )
    return found


def _from_table(store: Store) -> list[Example]:
    table = store.table
    systems = table[SYSTEM].to_pylist() if SYSTEM in table.column_names else [None] * store.manifest.rows
    return [
        Example(_turns(example.prompt, system), example.response, dict(example.columns))
        for example, system in zip(store.examples, systems, strict=True)
    ]


def _turns(prompt: str, system: str | None) -> tuple[Message, ...]:
    before = f"system: {system}\nuser: "
    if system is None or not prompt.startswith(before):
        return ({"role": "user", "content": prompt},)
    return {"role": "system", "content": system}, {"role": "user", "content": prompt.removeprefix(before)}


def encoded(model: LanguageModel, example: Example, store: Store, row: int) -> Encoded:
    """An example as the model reads it, with the losses that the cache counts. Raises DataError where it can't be."""
    counting = store.manifest.counting
    try:
        return model.encode(example.messages, example.answer, example.tools, counting, example.uncounted)
    except PromptError as problem:
        raise DataError(f"Row {row} can't be read by the model: {problem}") from None


def _is(one: Encoded, other: Encoded) -> bool:
    return (one.response_start, one.gaps) == (other.response_start, other.gaps) and np.array_equal(one.ids, other.ids)


def cleaned(examples: Sequence[Example], suspects: Suspects) -> list[tuple[int, Example]]:
    """What is left, each with the row that it was: without the dropped, and with the new texts."""
    new, gone = {each.row: each for each in suspects.replaced}, set(suspects.dropped)
    return [
        (row, _replaced(example, new[row]) if row in new else example)
        for row, example in enumerate(examples)
        if row not in gone
    ]


def _replaced(example: Example, new: Replacement) -> Example:
    messages = example.messages
    if new.prompt is not None:
        messages = (*messages[:-1], {**messages[-1], "content": new.prompt})
    return replace(example, messages=messages, response=new.response, turn={})


def write_data(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as JSON lines, which `finetune` and `precompute` read as just these.

    Raises DataError for such as no line can hold.
    """
    write_whole(path, "".join(json.dumps(_row(each), ensure_ascii=False) + "\n" for each in examples).encode())
    if data_hash(read_examples(path)) != data_hash(examples):
        path.unlink()
        raise DataError("The cleaned rows can't be written as JSON lines that read back the same; give --data as such.")


def _row(example: Example) -> dict[str, Any]:
    (*before, last), tools = example.messages, {"tools": list(example.tools)} if example.tools else {}
    if not before and not example.turn and not tools and last == {"role": "user", "content": last["content"]}:
        return {"prompt": last["content"], "response": example.response, **example.columns}
    turns = [
        turn | ({"weight": 0} if place in example.uncounted else {}) for place, turn in enumerate(example.messages)
    ]
    return {"messages": [*turns, example.answer], **tools, **example.columns}
