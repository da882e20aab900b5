"""Preference pairs, as TRL documents them and takes them apart: the chosen answer is read."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from explorer.errors import DataError
from explorer.records import Example
from precompute.data import Reading, Review, named_columns, read_examples
from precompute.data.forms import PAIRS

ASKED = ({"role": "user", "content": "Why?"},)
SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}
GOOD, BAD = {"role": "assistant", "content": "So."}, {"role": "assistant", "content": "No."}


def read(folder: Path, *rows: Any, reading: Reading | None = None, review: Review | None = None) -> list[Example]:
    path = folder / "data.json"
    path.write_text(json.dumps(rows))
    return read_examples(path, reading or Reading(), review)


FORMS: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "texts": ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, [USER]),
    "turns": ({"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, [SYSTEM, USER]),
    "conversations": ({"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, [SYSTEM, USER]),
    "conversations with their question": (
        {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        [USER],
    ),
    "conversations with their beginning": (
        {"prompt": [SYSTEM, USER], "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]},
        [SYSTEM, USER],
    ),
    "Alpaca": ({"instruction": "Why", "input": "so?", "chosen": "So.", "rejected": "No."}, []),
    "several answers": (
        {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, USER, BAD]},
        [USER, GOOD, USER],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_chosen_answer_is_read(form: str, tmp_path: Path) -> None:
    row, messages = FORMS[form]
    (example,) = read(tmp_path, row)
    expected = messages or [{"role": "user", "content": "Why\nso?"}]
    assert (list(example.messages), example.response) == (expected, "So.")
    assert example.columns == {"rejected": row["rejected"]}


@pytest.mark.parametrize("form", ["turns", "conversations", "several answers"])
@pytest.mark.parametrize("way", ["parquet", "json", "disk"])
def test_files_that_datasets_writes_are_read_as_trl_takes_them_apart(form: str, way: str, tmp_path: Path) -> None:
    from trl.data_utils import maybe_extract_prompt

    row, _ = FORMS[form]
    own, path = datasets.Dataset.from_list([row]), tmp_path / f"data.{'parquet' if way == 'parquet' else 'jsonl'}"
    if way == "disk":
        path = tmp_path / "data"
        own.save_to_disk(str(path))
    else:
        (own.to_parquet if way == "parquet" else own.to_json)(str(path))
    (example,) = read_examples(path)
    taken = maybe_extract_prompt(row)
    assert [*example.messages, {"role": "assistant", "content": example.response}] == taken["prompt"] + taken["chosen"]


def test_it_is_said_once_that_the_chosen_answers_are_read(tmp_path: Path) -> None:
    review = Review("data")
    read(tmp_path, *[FORMS["texts"][0]] * 3, review=review)
    (line,) = review.lines()
    assert PAIRS in line


def test_the_sides_may_have_other_names(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "better": "So.", "worse": "No."}
    reading = Reading(columns=named_columns(["chosen=better", "rejected=worse"]))
    assert read(tmp_path, row, reading=reading) == [Example(ASKED, "So.", {"worse": "No."})]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            "is a preference pair that doesn't say where its prompt ends; expected prompt, chosen, rejected",
        ),
        ({"prompt": "How?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "has a prompt that its chosen conversa"),
        ({"prompt": [SYSTEM], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "has a prompt that its chosen conve"),
        ({"prompt": "Why?", "chosen": "So."}, "has the columns chosen, prompt; expected"),
        ({"prompt": "Why?", "chosen": " ", "rejected": "No."}, "has an empty response"),
        ({"prompt": "Why?", "chosen": [USER], "rejected": [BAD]}, "chosen must end with an assistant's turn"),
        ({"prompt": "Why?", "chosen": {"a": 1}, "rejected": "No."}, "has another kind of value: prompt and chosen"),
        (
            {"prompt": "Why?", "response": "Then.", "chosen": "So.", "rejected": "No."},
            "has prompt and response and also prompt and chosen, with another answer; --column response=response",
        ),
    ],
)
def test_pairs_that_can_not_be_told_apart_are_refused(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, row)
