"""Folders and data sets → rows: of documents, those that `save_to_disk` wrote, and those of a data hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from explorer.errors import DataError
from explorer.visible import one_line
from precompute.data.files import file_rows, is_data, is_document
from precompute.data.rows import Row


def folder_rows(path: Path, split: str) -> list[Row]:
    """All rows of a folder that `save_to_disk` wrote, or of documents alone, by their names.

    Raises DataError for another one, or an unknown split.
    """
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        there = [*path.glob("*"), *path.glob("*/*")]
        files = sorted(str(each.relative_to(path)) for each in there if each.is_file() and is_data(each))
        if texts := _documents(path):
            return texts
        give = f"give a file of data, such as its {files[0]}" if files else "and it has no file of data"
        raise DataError(f"{path} is no folder that save_to_disk wrote; {give}.")
    from datasets import DatasetDict, load_from_disk

    try:
        found: Any = load_from_disk(str(path))
        if isinstance(found, DatasetDict):
            found = found[chosen_split(path, split, list(found))]
        elif split:
            raise DataError(f"{path} has no splits; leave out --split.")
        return _rows(found)
    except DataError:
        raise
    except Exception as problem:
        raise DataError(f"{path} can't be read as a data set ({one_line(str(problem), 300)}).") from None


def hub_rows(name: str, split: str, config: str) -> list[Row]:
    """All rows of one split of a hub data set. Raises DataError where the hub doesn't give it, or has no such split."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).suffix:
        raise DataError(
            f"There is no file {name}; --data takes a .jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt file, a "
            "folder of .txt files or one that save_to_disk wrote, or a hub id."
        )
    import datasets

    try:
        known = datasets.get_dataset_split_names(name, config or None)
        # A part of a split, such as train[:10%], and several, such as train+test, are named as the library names them.
        wanted = split if set(split) & set("[+") else chosen_split(name, split, known)
        return _rows(datasets.load_dataset(name, config or None, split=wanted))
    except DataError:
        raise
    except Exception as problem:
        said = one_line(str(problem), 300)
        hint = "; name one with --config" if "config" in said.lower() and not config else ""
        raise DataError(f"{name} is no file here, and the data hub did not give it ({said}){hint}.") from problem


def _documents(path: Path) -> list[Row]:
    """A row for each document of a folder that holds no other data; none where it does."""
    files = sorted(each for each in path.rglob("*") if each.is_file() and is_data(each))
    if not all(map(is_document, files)):
        return []
    texts = [row.value["text"] for each in files for row in file_rows(each)]
    named = zip(files, texts, strict=True)
    return [
        Row(number, {"text": text, "document": str(file.relative_to(path))})
        for number, (file, text) in enumerate(named, start=1)
    ]


def chosen_split(source: object, wanted: str, known: Sequence[str]) -> str:
    """The split that was asked for; unasked `train`, or the only one. Raises DataError that lists what there is."""
    have = one_line(", ".join(known), 200)
    if wanted:
        if wanted not in known:
            raise DataError(f"{source} has no split {wanted}; it has: {have}.")
        return wanted
    if "train" in known:
        return "train"
    if len(known) == 1:
        return known[0]
    raise DataError(f"{source} has the splits {have}, and none is named train; name one with --split.")


def _rows(found: Any) -> list[Row]:
    # What was damaged in a way that reads could trip over is found here.
    found.data.validate(full=True)
    return [Row(number, row, columnar=True) for number, row in enumerate(found.to_list(), start=1)]
