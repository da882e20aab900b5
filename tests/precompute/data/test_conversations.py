"""What belongs to a row's conversation: system, history, tools, keys of turns; what is refused, and what is said."""

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
from precompute.data.forms import NAMES, read_row
from precompute.data.rows import BadRow, Row

ASKED = ({"role": "user", "content": "Why?"},)
GOOD = {"prompt": "Why?", "response": "So."}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "data.json"
    path.write_text(json.dumps(rows))
    return path


def read_rows(folder: Path, *rows: Any) -> list[Example]:
    return read_examples(write(folder, *rows))


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
    path = write(tmp_path, row)
    assert read_examples(path, Reading(columns=named_columns(pairs))) == [Example(ASKED, "So.", columns)]


@pytest.mark.parametrize("pairs", [["question"], ["question=prompt"], ["prompt="], ["prompt=a", "prompt=b"]])
def test_a_column_is_named_once_and_by_a_known_name(pairs: list[str]) -> None:
    with pytest.raises(DataError, match=r"--column (takes NAME=COLUMN|names prompt twice)"):
        named_columns(pairs)


def test_a_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
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
    path = write(tmp_path, *rows)
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
        {"prompt": "Why?", "context": "A text.", "system_prompt": "Be kind.", "response": "So."},
        {"messages": [SYSTEM, USER, ANSWER], "system_prompt": "Be kind."},
        {"instruction": "Why?", "context": "", "input": "A text.", "response": "So."},
    ]
    review = Review("data")
    examples = read_examples(write(tmp_path, *rows), None, review)
    assert [len(example.messages) for example in examples] == [3, 3, 3, 1, 1, 2, 1]
    loss, context, system = review.lines()
    assert loss.startswith("Only the last answer") and loss.endswith("(2 rows).")
    assert "--column input=context" in context and context.endswith("(1 row).")
    assert "--column system=system_prompt" in system and system.endswith("(1 row).")


KEYS = ("role", "content", "from", "value", "weight", "tool_calls", "thinking", "type", "text", "more")
LEAVES = (
    st.none() | st.booleans() | st.floats() | st.sampled_from(["", "user", "assistant", "gpt", "text", "[]", "So."])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)


@given(
    row=st.dictionaries(st.sampled_from([*NAMES, "label", "functions"]), VALUES, max_size=4),
    columnar=st.booleans(),
)
def test_any_row_is_an_example_or_a_bad_row(row: dict[str, Any], columnar: bool) -> None:
    for form in ({}, {"prompt": "Why?", "response": "So."}, {"messages": [USER, ANSWER]}):
        try:
            example = read_row(Row(1, row | form, columnar=columnar), {}, Review())
        except BadRow as problem:
            assert str(problem) and "\n" not in str(problem)
        else:
            assert data_hash([example]) and isinstance(example.prompt + said(example.answer), str)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": [*EARLIER, USER, ANSWER]}, True),
        ({"messages": [EARLIER[0], EARLIER[1] | {"weight": 1}, USER, ANSWER]}, True),
        ({"messages": [EARLIER[0], EARLIER[1] | {"weight": 0}, USER, ANSWER]}, False),
        ({"messages": [SYSTEM, USER, ANSWER]}, False),
        ({"instruction": "Why?", "output": "So.", "history": [["Hi", "Hello"]]}, True),
        ({"prompt": [*EARLIER, USER], "completion": [ANSWER]}, False),
        ({"prompt": [EARLIER[0]], "completion": [EARLIER[1], USER, ANSWER]}, True),
    ],
)
def test_earlier_answers_that_are_not_in_the_loss_here_are_said(
    tmp_path: Path, row: dict[str, Any], told: bool
) -> None:
    review = Review("data")
    read_examples(write(tmp_path, GOOD, row), review=review)
    found = [line for line in review.lines() if "Only the last answer of a conversation is in the loss" in line]
    assert len(found) == told
