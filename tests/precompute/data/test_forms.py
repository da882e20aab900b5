"""Training data in every form people keep it in, and every way it can be wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.errors import DataError
from explorer.records import Example
from precompute.data import data_hash, read_examples

ASKED = ({"role": "user", "content": "Why?"},)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_rows(folder: Path, *rows: Any) -> list[Example]:
    return read_examples(write(folder, "data.json", json.dumps(rows)))


# What is accepted


def test_prompt_and_response_are_read(tmp_path: Path) -> None:
    assert read_rows(tmp_path, {"prompt": "Why?", "response": "So."}) == [Example(ASKED, "So.")]


@pytest.mark.parametrize("answer", ["output", "response"])
@pytest.mark.parametrize("extra", [{}, {"input": ""}, {"input": None}])
def test_alpaca_rows_without_input_are_read(tmp_path: Path, answer: str, extra: dict[str, Any]) -> None:
    (example,) = read_rows(tmp_path, {"instruction": "Why?", answer: "So.", **extra})
    assert (example.messages, example.response, example.columns) == (ASKED, "So.", {})


def test_an_alpaca_input_stands_below_the_instruction(tmp_path: Path) -> None:
    (example,) = read_rows(tmp_path, {"instruction": "Sum up.", "input": "A long text.", "output": "Text."})
    assert example.prompt == "Sum up.\nA long text."
    assert example.columns == {}


def test_chat_messages_are_read_with_system_and_earlier_turns(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]
    (example,) = read_rows(tmp_path, {"messages": turns, "source": "chat"})
    assert list(example.messages) == turns[:-1] and example.response == "So."
    assert example.columns == {"source": "chat"}
    assert example.prompt == "system: Be kind.\nuser: Hi\nassistant: Hello\nuser: Why?"


def test_further_columns_are_kept_as_they_are(tmp_path: Path) -> None:
    columns = {"source": "web", "tags": ["a", "b"], "score": 0.5, "nested": {"x": None}, "input": "not Alpaca's"}
    (example,) = read_rows(tmp_path, {"prompt": "Why?", "response": "So.", **columns})
    assert example.columns == columns


def test_json_lines_may_have_a_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "Why?", "response": "So."})
    path = write(tmp_path, "data.jsonl", b"\xef\xbb\xbf" + f"{line}\r\n\r\n   \n{line}".encode())
    assert read_examples(path) == [Example(ASKED, "So.")] * 2


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    text = "one\u2028two\u0085three\x0bfour"
    line = json.dumps({"prompt": "Why?", "response": text}, ensure_ascii=False)
    (example,) = read_examples(write(tmp_path, "data.jsonl", line))
    assert example.response == text


@pytest.mark.parametrize("name", ["data.json", "DATA.JSON"])
def test_a_json_list_is_read_whatever_the_case_of_its_ending(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, "\ufeff" + json.dumps([{"prompt": "Why?", "response": "So."}]))
    assert read_examples(path) == [Example(ASKED, "So.")]


def test_csv_is_read_with_quotes_line_breaks_and_further_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "data.csv", 'prompt,response,source\nWhy?,"So, and\n""thus"".",web\nHow?,Thus.,\n')
    first, second = read_examples(path)
    assert first == Example(ASKED, 'So, and\n"thus".', {"source": "web"})
    assert second.prompt == "How?" and second.columns == {"source": ""}


@pytest.mark.parametrize("text", ["NA", "None", "null", "007", "4.50", "True", "1e5"])
def test_every_cell_of_a_csv_is_the_text_it_is(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "data.csv", f"\ufeffprompt,response,id\r\nWhy?,{text},{text}\r\n")
    assert read_examples(path) == [Example(ASKED, text, {"id": text})]


def test_parquet_is_read_with_nested_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    pq.write_table(pa.table({"messages": [turns], "label": [3]}), tmp_path / "data.parquet")
    assert read_examples(tmp_path / "data.parquet") == [Example(ASKED, "So.", {"label": 3})]


@given(prompt=st.text(), response=st.text().filter(str.strip), source=st.text())
def test_any_text_survives_json_lines(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, response: str, source: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    row = {"prompt": prompt, "response": response, "source": source}
    path.write_bytes((json.dumps(row) + "\n").encode())
    (example,) = read_examples(path)
    assert (example.prompt, example.response, example.columns) == (prompt, response, {"source": source})


def test_the_hash_is_of_the_content_not_of_the_file_format(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response": "So.", "source": "web"}
    as_json = read_rows(tmp_path, row)
    as_csv = read_examples(write(tmp_path, "data.csv", "source,response,prompt\nweb,So.,Why?\n"))
    assert data_hash(as_json) == data_hash(as_csv)


@pytest.mark.parametrize(
    "other",
    [
        [Example(ASKED, "So!")],
        [Example(({"role": "system", "content": "Why?"},), "So.")],
        [Example(ASKED, "So.", {"a": 2})],
        [Example(ASKED, "So.", {"a": 1}), Example(ASKED, "So.", {"a": 1})],
    ],
)
def test_the_hash_tells_different_data_apart(other: list[Example]) -> None:
    assert data_hash(other) != data_hash([Example(ASKED, "So.", {"a": 1})])


# What is refused

GOOD = {"prompt": "Why?", "response": "So."}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "Why?", "answer": "So."}, r"has the columns answer, question; expected prompt and response"),
        ({}, r"has the columns nothing; expected"),
        ({"prompt": "Why?"}, r"has the columns prompt; expected"),
        ({"prompt": "Why?", "response": ""}, r"has an empty response; mend or remove it"),
        ({"prompt": "Why?", "response": " \n"}, r"has an empty response"),
        ({"prompt": 3, "response": "So."}, r"prompt and response must be text"),
        ({"prompt": "Why?", "response": None}, r"prompt and response must be text"),
        ({"instruction": "Why?", "input": 5, "output": "So."}, r"instruction and output must be text"),
        ("a text", r"is a str; expected an object"),
        (None, r"is a NoneType; expected an object"),
        ({"messages": []}, r"messages must end with an assistant's turn"),
        ({"messages": [{"role": "assistant", "content": "So."}]}, r"messages must end with an assistant's turn"),
        ({"messages": [{"role": "user", "content": "Why?"}] * 2}, r"messages must end with an assistant's turn"),
        ({"messages": [{"role": "user"}]}, r"every message needs a role and a content"),
        ({"messages": [{"role": "user", "content": ["parts"]}]}, r"every message needs a role and a content"),
        ({"messages": ["Why?", "So."]}, r"every message needs a role and a content"),
        ({"messages": None}, r"has the columns messages; expected"),
        ({"messages": "Why?"}, r"messages must be a list"),
        ({"messages": {"role": "user", "content": "Why?"}}, r"messages must be a list"),
        ({"prompt": "Why?", "response": "So.", "note": "\ud83d"}, r"holds half of a character"),
        ({"messages": 7}, r"messages must be a list"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"data\.json, row 2.*{said}"):
        read_rows(tmp_path, GOOD, row)


def test_a_null_messages_column_leaves_the_other_form(tmp_path: Path) -> None:
    (example,) = read_rows(tmp_path, GOOD | {"messages": None})
    assert (example.messages, example.response) == (ASKED, "So.")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "data.jsonl",
            '{"prompt": "a", "response": "b"}\n\n{"prompt": ',
            r"row 2 \(line 3\), is not JSON .*; mend or remove",
        ),
        ("data.jsonl", "", r"holds no rows; give a file with at least one example"),
        ("data.jsonl", b"\xff\xfe{\x00", r"is UTF-16, and no UTF-8 text; save it as UTF-8"),
        ("data.jsonl", "[" * 100_000, r"row 1 \(line 1\), is not JSON \(nested deeper"),
        ("data.json", "[]", r"holds no rows"),
        ("data.json", '{"prompt": "a"}', r"holds one JSON object \(prompt\); expected a list of rows"),
        ("data.json", '{"prompt": "a"}\n{"prompt": "b"}', r"is not JSON .*; JSON lines need the ending \.jsonl"),
        ("data.md", "hello", r"ends in \.md; expected \.jsonl, .* \.arrow or \.txt, also with \.gz or \.zst"),
        ("data", "hello", r"ends in nothing; expected"),
        ("data.parquet", "this is no parquet", r"can't be read as parquet"),
        ("data.json", "[" * 100_000, r"is not JSON"),
        ("data.csv", "", r"holds no rows"),
        ("data.csv", "prompt,response\na,b\nc\n", r"row 2 \(line 3\), has more or fewer cells than the header"),
        ("data.csv", "prompt,response\na,b,c\n", r"row 1 \(line 2\), has more or fewer cells than the header"),
        ("data.csv", 'prompt,response\na,"b', r"line 2, is no CSV .*; mend or remove that row"),
        ("data.csv", b"prompt,response\na,caf\xe9\n", r"is no UTF-8 text .*in line 2\); save it as UTF-8"),
        ("data.csv", "question,answer\na,b\n", r"row 1 \(line 2\), has the columns answer, question"),
    ],
)
def test_a_malformed_file_is_refused_with_the_fix(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=rf"{name}.*{said}"):
        read_examples(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["missing.jsonl", "/nowhere/data.csv", "./a/b", "nothing"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(
        DataError, match=r"There is no file .*; --data takes a \.jsonl, .* \.arrow or \.txt file, a folder"
    ):
        read_examples(name)
