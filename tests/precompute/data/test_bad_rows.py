"""All rows that can't be used in one report, whether they can't be read or the model can't read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from explorer.errors import DataError
from explorer.model.language_model import LanguageModel
from explorer.records import Example
from precompute.data import Review, data_hash, read_examples, readable

GOOD = {"prompt": "Why?", "response": "So."}
EMPTY = {"prompt": "Why?", "response": ""}
LONG = {"prompt": "Why?", "response": "x" * 500}


def write(folder: Path, *rows: Any) -> Path:
    """JSON lines, with a blank one before each; a text stands as it is."""
    path = folder / "data.jsonl"
    path.write_text("".join("\n" + (row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_all_bad_rows_are_in_one_report_with_row_line_and_reason(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, EMPTY, "{", GOOD, 3, EMPTY)
    with pytest.raises(DataError) as refused:
        read_examples(path)
    assert str(refused.value) == (
        f"{path} has 4 rows that can't be used: row 2 (line 4), row 6 (line 12): has an empty response; "
        "row 3 (line 6): is not JSON (Expecting property name enclosed in double quotes: column 2); "
        "row 5 (line 10): is a int; expected an object; mend or remove them."
    )


def test_the_first_ten_are_named_and_the_others_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", f"column {number}": "x" * 300} for number in range(1234)]
    with pytest.raises(DataError) as refused:
        read_examples(write(tmp_path, GOOD, *rows), review=Review("data", skip=False))
    text = str(refused.value)
    assert text.startswith("data has 1,234 rows that can't be used: row 2 (line 4): has the columns column 0, prompt;")
    assert text.count("row ") == 10 and "row 11 (line 22)" in text
    assert text.endswith("; and 1,224 more; mend or remove them, or leave out what can't be used with --skip-bad.")


def test_a_reason_that_many_rows_share_is_said_once_and_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        read_examples(write(tmp_path, *[{"question": "Why?", "answer": "So."}] * 300))
    assert str(refused.value).count("--column prompt=NAME reads another column as one of them") == 1
    assert "row 10 (line 20): has the columns answer, question; expected" in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "left_out"),
    [
        ([GOOD, EMPTY], "1 row of data left out: row 2 (line 4): has an empty response."),
        (["{", GOOD, "{"], "2 rows of data left out: row 1 (line 2), row 3 (line 6): is not JSON"),
        ([{}, *[EMPTY] * 15, GOOD], "16 rows of data left out: row 1 (line 2): has the columns nothing; "),
    ],
)
def test_bad_rows_are_left_out_where_that_was_asked_for_and_said(
    tmp_path: Path, rows: list[Any], left_out: str
) -> None:
    review = Review("data", skip=True)
    examples = read_examples(write(tmp_path, *rows), review=review)
    assert [example.response for example in examples] == ["So."]
    assert data_hash(examples) == data_hash(read_examples(write(tmp_path, GOOD)))
    (line,) = review.lines()
    assert line.startswith(left_out)


def test_data_without_a_good_row_is_refused_in_any_case(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 rows that can't be used") as refused:
        read_examples(write(tmp_path, EMPTY, EMPTY), review=Review("data", skip=True))
    assert "--skip-bad" not in str(refused.value)


def test_rows_that_the_model_cannot_read_are_bad_rows_as_well(tmp_path: Path, tiny_model: LanguageModel) -> None:
    strange = {
        "messages": [{"role": "user", "content": "Why?", "name": "Ann"}, {"role": "assistant", "content": "So."}]
    }
    path = write(tmp_path, GOOD, LONG, EMPTY, strange, GOOD)
    review = Review("data", skip=True)
    kept, encoded = readable(tiny_model, read_examples(path, review=review), review)
    assert [example.place for example in kept] == ["row 1 (line 2)", "row 5 (line 10)"]
    assert [list(one.ids) for one in encoded] == [list(tiny_model.encode(each.messages, "So.").ids) for each in kept]
    (line,) = review.lines()
    assert line.startswith(
        "3 rows of data left out: row 3 (line 6): has an empty response; row 2 (line 4): can't be read"
    )
    assert (
        "tokens long" in line and "row 4 (line 8): can't be read by the model: The chat template writes no name" in line
    )


def test_all_rows_that_the_model_cannot_read_are_in_one_report(tiny_model: LanguageModel) -> None:
    asked = ({"role": "user", "content": "Why?"},)
    long, good = Example(asked, "x" * 500), Example(asked, "So.")
    with pytest.raises(
        DataError, match="The data has 2 rows that can't be used: row 1, row 3: can't be read by the model"
    ):
        readable(tiny_model, [long, good, long])
    with pytest.raises(
        DataError, match=r"The data, row 2, can't be read by the model: The text is .* long, .*; mend or"
    ):
        readable(tiny_model, [good, long])


def test_a_row_of_exactly_the_models_context_is_read(tiny_model: LanguageModel) -> None:
    asked = ({"role": "user", "content": "Why?"},)
    shortest = len(tiny_model.encode(asked, "x").ids)
    for length in (tiny_model.context - 1, tiny_model.context):
        _, (encoded,) = readable(tiny_model, [Example(asked, "x" * (length - shortest + 1))])
        assert len(encoded.ids) == length
    with pytest.raises(DataError, match="257 tokens long"):
        readable(tiny_model, [Example(asked, "x" * (tiny_model.context - shortest + 2))])
