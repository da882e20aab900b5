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
from explorer.records import Example, said
from precompute.data import Reading, Review, data_hash, named_columns, read_examples

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
        ("data.txt", "hello", r"ends in \.txt; expected \.jsonl, .* \.parquet or \.arrow, also with \.gz or \.zst"),
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
    with pytest.raises(DataError, match=r"There is no file .*; --data takes a \.jsonl, .* \.arrow file, a folder"):
        read_examples(name)


# What belongs to a conversation

SYSTEM = {"role": "system", "content": "Be kind."}
USER, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
CALLS = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"instruction": "Why?", "output": "So.", "system": "Be kind."}, [SYSTEM, USER]),
        ({"instruction": "Why?", "output": "So.", "history": [["Hi", "Hello"]]}, [*EARLIER, USER]),
        (
            {"instruction": "Why?", "output": "So.", "system": "Be kind.", "history": '[["Hi", "Hello"]]'},
            [SYSTEM, *EARLIER, USER],
        ),
        (
            {"prompt": "Why?", "response": "So.", "system": "Be kind.", "history": [("Hi", "Hello")]},
            [SYSTEM, *EARLIER, USER],
        ),
        ({"prompt": "Why?", "completion": "So."}, [USER]),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, [SYSTEM, USER]),
        ({"prompt": [SYSTEM, USER], "response": "So."}, [SYSTEM, USER]),
        ({"prompt": "Why?", "completion": [ANSWER], "system": "Be kind."}, [SYSTEM, USER]),
        ({"messages": [USER, ANSWER], "system": "Be kind."}, [SYSTEM, USER]),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "Be kind."}, [SYSTEM, USER]),
        ({"messages": json.dumps([SYSTEM, USER, ANSWER])}, [SYSTEM, USER]),
        ({"messages": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, [USER]),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, [USER]),
        ({"conversations": [USER, ANSWER], "system": "Be kind."}, [SYSTEM, USER]),
        (
            {"conversations": [{"from": "system", "value": "Be kind."}, USER, {"from": "gpt", "value": "So."}]},
            [SYSTEM, USER],
        ),
    ],
)
def test_what_goes_with_a_form_becomes_turns(tmp_path: Path, row: dict[str, Any], turns: list[Any]) -> None:
    (example,) = read_rows(tmp_path, row)
    assert (list(example.messages), example.response, example.columns) == (turns, "So.", {})


@pytest.mark.parametrize("empty", [None, "", []])
@pytest.mark.parametrize("name", ["system", "history", "tools"])
def test_what_says_nothing_stays_a_label(tmp_path: Path, name: str, empty: Any) -> None:
    (example,) = read_rows(tmp_path, {"instruction": "Why?", "output": "So.", name: empty})
    assert (example.messages, example.columns) == (ASKED, {name: empty})


def test_tools_and_their_calls_go_to_the_template(tmp_path: Path) -> None:
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": CALLS, "refusal": None, "annotations": []},
        {"role": "tool", "content": "blue", "name": "look", "tool_call_id": "1"},
        {"role": "assistant", "content": "So.", "reasoning_content": "Hm."},
    ]
    for tools in (TOOLS, json.dumps(TOOLS)):
        (example,) = read_rows(tmp_path, {"messages": turns, "tools": tools})
        assert example.messages[1] == {"role": "assistant", "content": None, "tool_calls": CALLS}
        assert example.messages[2] == turns[2]
        assert example.answer == turns[3] and example.tools == tuple(TOOLS) and not example.columns
        assert example.prompt == f"user: Why?\nassistant: {json.dumps(CALLS)}\ntool: blue"
        assert said(example.answer) == "Hm.\nSo."


def test_an_answer_may_call_tools_and_say_nothing(tmp_path: Path) -> None:
    call = {"name": "look", "arguments": {"at": "sky"}}
    shared = {"from": "function_call", "value": json.dumps(call)}
    for rows in (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]},
            ]
        },
        {"conversations": [{"from": "human", "value": "Why?"}, shared]},
    ):
        (example,) = read_rows(tmp_path, rows)
        assert example.response == "" and example.answer["tool_calls"] == [{"type": "function", "function": call}]
        assert example.answer["content"] is None and '"look"' in said(example.answer)


def test_what_a_tool_said_is_read_from_sharegpt(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Why?"},
        {"from": "function_call", "value": '[{"name": "a", "arguments": "b"}]'},
    ]
    turns += [{"from": "observation", "value": "blue"}, {"from": "gpt", "value": "So."}]
    (example,) = read_rows(tmp_path, {"conversations": turns})
    assert [turn["role"] for turn in example.messages] == ["user", "assistant", "tool"]


def test_a_content_in_parts_is_their_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?", "image_url": None}]
    (example,) = read_rows(tmp_path, {"messages": [{"role": "user", "content": parts}, ANSWER]})
    assert example.messages == ASKED


def test_keys_that_only_other_rows_of_a_table_have_are_left_out(tmp_path: Path) -> None:
    call = {"function": {"name": "look", "arguments": {"at": "sky"}}}
    other = {"function": {"name": "go", "arguments": {"to": "sea"}}}
    rows = [[USER, {"role": "assistant", "content": "", "tool_calls": [each]}] for each in (call, other)]
    pq.write_table(pa.table({"messages": [*rows, [USER, ANSWER]]}), tmp_path / "data.parquet")
    first, second, third = read_examples(tmp_path / "data.parquet")
    assert first.turn["tool_calls"] == [call] and second.turn["tool_calls"] == [other]
    assert third == Example(ASKED, "So.")


def test_the_hash_is_what_it_was_and_sees_what_is_new(tmp_path: Path) -> None:
    plain = read_rows(tmp_path, {"messages": [SYSTEM, USER, ANSWER], "source": "web", "n": 1})
    assert data_hash(plain) == "325789c7d4b72eaea189b7ff688cdb4d0533c49729a12fcc499439a91ae7a7e0"
    with_tools = read_rows(tmp_path, {"messages": [SYSTEM, USER, ANSWER], "source": "web", "n": 1, "tools": TOOLS})
    thinking = {**ANSWER, "thinking": "Hm."}
    with_thoughts = read_rows(tmp_path, {"messages": [SYSTEM, USER, thinking], "source": "web", "n": 1})
    assert len({data_hash(each) for each in (plain, with_tools, with_thoughts)}) == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "has a weight of 0 on its last answer"),
        (
            {"messages": [USER, {**ANSWER, "weight": 0.5}]},
            r"has a weight of 0\.5 on a turn of assistant; an answer's may be",
        ),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "has a weight of 1 on a turn of user"),
        ({"messages": [USER, {**ANSWER, "weight": "1"}]}, "has a weight of '1'"),
        (
            {"messages": [USER, {**ANSWER, "loss": False}]},
            "has a turn with loss, which isn't understood; known are name",
        ),
        ({"messages": [{**USER, "images": ["a.png"]}, ANSWER]}, "has a turn with images, which isn't understood"),
        ({"messages": [{**USER, "from": "human"}, ANSWER]}, "has a turn with from, which isn't understood"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "has a turn without a content"),
        ({"messages": [USER, {"role": "assistant", "content": "", "thinking": "Hm."}]}, "has an empty response"),
        ({"messages": [USER, {**ANSWER, "tool_calls": ["look"]}]}, "has a turn whose tool_calls isn't understood"),
        ({"messages": [USER, {**ANSWER, "thinking": 3}]}, "has a turn whose thinking isn't understood: it is a int"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "a"}]}, ANSWER]},
            "has a content with a part of the type image, which isn't understood",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}]}, ANSWER]},
            "has a content with a part of the type text with cache, which isn't understood",
        ),
        ({"messages": [USER, ANSWER, USER]}, "messages must end with an assistant's turn"),
        ({"messages": [USER, ANSWER], "chat_template_kwargs": {"a": 1}}, "has chat_template_kwargs"),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "Be brief."}, "has a column system that says something else"),
        ({"messages": [USER, ANSWER], "tools": ["look"]}, "tools must be a list of descriptions"),
        ({"messages": [USER, ANSWER], "tools": "look"}, "tools must be a list of descriptions"),
        ({"prompt": "Why?", "response": "So.", "system": {"a": 1}}, "system must be text; rename the column"),
        ({"instruction": "Why?", "output": "So.", "history": [["Hi"]]}, "history must be a list of pairs"),
        ({"instruction": "Why?", "output": "So.", "history": "Hi"}, "history must be a list of pairs"),
        ({"instruction": "Why?", "output": "So.", "history": [["Hi", None]]}, "history must be a list of pairs"),
        ({"conversations": [{"from": "bot", "value": "Why?"}, ANSWER]}, "has a turn from bot; known are human"),
        (
            {"conversations": [USER, {"from": "function_call", "value": "look"}]},
            "has a turn from function_call that isn't",
        ),
        ({"conversations": [{"from": "human", "value": 3}, ANSWER]}, "every message needs a role and a content"),
        ({"prompt": [USER], "completion": [USER]}, "completion must end with an assistant's turn"),
        ({"messages": [USER, ANSWER], "functions": TOOLS}, "has functions, .* --column tools=functions reads them"),
        ({"prompt": [USER], "completion": 3}, "completion must be a list"),
        ({"prompt": "Why?", "completion": "So.", "label": False}, "has a completion whose label is false"),
        ({"text": "Why? So."}, "has a text alone, which doesn't say where the response begins; expected prompt and"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, "is a preference pair .* --column response=chosen"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "is a preference pair .* --column messages=chosen"),
        ({" prompt": "Why?", "response": "So."}, "has the columns ' prompt', response; expected"),
        (
            {"messages": [USER, ANSWER], "prompt": "Why?", "response": "No."},
            "has messages and also prompt and response, with another answer; --column messages=messages reads",
        ),
        (
            {"instruction": "Why?", "output": "So.", "response": "No."},
            "has instruction and output and also instruction and response, with another answer; --column output=output",
        ),
    ],
)
def test_nothing_that_may_have_been_trained_on_is_left_out_in_silence(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"data\.json, row 2, .*{said}") as refused:
        read_rows(tmp_path, GOOD, row)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("pairs", "row", "columns"),
    [
        (
            ["prompt=question", "response=reply"],
            {"question": "Why?", "reply": "So.", "prompt": "id 3"},
            {"prompt": "id 3"},
        ),
        (["input=context"], {"instruction": "Why?", "context": "", "response": "So."}, {}),
        (["messages=conversation"], {"conversation": [USER, ANSWER]}, {}),
        (["response=chosen"], {"prompt": "Why?", "chosen": "So.", "rejected": "No."}, {"rejected": "No."}),
        (
            ["response=response"],
            {"prompt": "Why?", "response": "So.", "messages": [USER, SYSTEM]},
            {"messages": [USER, SYSTEM]},
        ),
        (["output=output"], {"instruction": "Why?", "output": "So.", "response": "No."}, {"response": "No."}),
    ],
)
def test_other_columns_can_stand_for_the_known_ones(
    tmp_path: Path, pairs: list[str], row: dict[str, Any], columns: dict[str, Any]
) -> None:
    path = write(tmp_path, "data.json", json.dumps([row]))
    assert read_examples(path, Reading(columns=named_columns(pairs))) == [Example(ASKED, "So.", columns)]


@pytest.mark.parametrize("pairs", [["question"], ["question=prompt"], ["prompt="], ["prompt=a", "prompt=b"]])
def test_a_column_is_named_once_and_by_a_known_name(pairs: list[str]) -> None:
    with pytest.raises(DataError, match=r"--column (takes NAME=COLUMN|names prompt twice)"):
        named_columns(pairs)


def test_a_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "data.json", json.dumps([GOOD]))
    with pytest.raises(DataError, match="has no column question to read as prompt; its columns are: prompt, response"):
        read_examples(path, Reading(columns={"prompt": "question"}))


@pytest.mark.parametrize(
    "other",
    [
        {"messages": []},
        {"messages": ""},
        {"messages": None},
        {"prompt": "", "response": ""},
        {"completion": "So.", "prompt": "?"},
    ],
)
def test_a_form_without_an_answer_leaves_another(tmp_path: Path, other: dict[str, Any]) -> None:
    (example,) = read_rows(tmp_path, {"instruction": "Why?", "output": "So."} | other)
    assert (example.messages, example.response, example.columns) == (ASKED, "So.", other)


def test_what_became_part_of_the_prompt_is_said(tmp_path: Path) -> None:
    review = Review("data")
    rows = [{"prompt": "Why?", "response": "So.", "persona": "Be kind.", "tools": TOOLS}, GOOD]
    path = write(tmp_path, "data.json", json.dumps(rows))
    read_examples(path, Reading(columns={"system": "persona"}), review)
    assert review.lines() == [
        "The column persona is read as system, and is part of the prompt (1 row).",
        "The column tools is read as tools, and is part of the prompt (1 row).",
    ]


def test_what_the_data_asks_and_is_not_done_is_said_once(tmp_path: Path) -> None:
    weighted = [USER, {**ANSWER, "weight": 1}, USER, {**ANSWER, "weight": 1}]
    rows = [
        {"messages": weighted},
        {"prompt": [USER], "completion": [ANSWER, USER, ANSWER]},
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
        {"instruction": "Why?", "context": "A text.", "response": "So."},
    ]
    review = Review("data")
    examples = read_examples(write(tmp_path, "data.json", json.dumps(rows)), None, review)
    assert [len(example.messages) for example in examples] == [3, 3, 3, 1]
    loss, context = review.lines()
    assert loss.startswith("Only the last answer") and loss.endswith("(2 rows).")
    assert "--column input=context" in context and context.endswith("(1 row).")
