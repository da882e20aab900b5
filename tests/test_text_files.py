"""The one way to read a text file: what is text, what is JSON, what is CSV, and what each is refused for."""

from pathlib import Path
from typing import Any

import pytest

from explorer.errors import DataError, ModelError
from explorer.text_files import DEEPEST, csv_rows, decoded, json_lines, json_value, read_text


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("text", ["", "one", "one\r\ntwo\n", "a\rb", "\u2028\x0b\x85", "é 🌟"])
def test_text_is_read_as_it_is_with_or_without_a_byte_order_mark(tmp_path: Path, mark: bytes, text: str) -> None:
    (tmp_path / "a.txt").write_bytes(mark + text.encode())
    assert read_text(tmp_path / "a.txt", "The text", DataError) == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Why?".encode("utf-16"), "is UTF-16, and no UTF-8 text; save it as UTF-8"),
        (b"\xfe\xff" + "Why?".encode("utf-16-be"), "is UTF-16"),
        ("Why?".encode("utf-32"), "is UTF-32"),
        ("one\nWhy?".encode("utf-16-le"), "holds a NUL character in line 1"),
        (b"one\ntwo\0", "holds a NUL character in line 2"),
        (b"one\ncaf\xe9", r"is no UTF-8 text \(unexpected end of data, in line 2\); save it as UTF-8"),
        (b"\xed\xa0\x80", r"is no UTF-8 text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is a git-lfs pointer .* run git lfs pull",
        ),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(content: bytes, said: str) -> None:
    with pytest.raises(ModelError, match="^The template a " + said):
        decoded(content, "The template a", ModelError)


@pytest.mark.parametrize("path", [".", "missing", "x" * 5000])
def test_what_cannot_be_opened_is_refused_with_the_reason(path: str) -> None:
    with pytest.raises(DataError, match=f"^The prompts {path} can't be read: "):
        read_text(path, "The prompts", DataError)


@pytest.mark.parametrize("text", ['{"a": 1, "b": [{"a": 2}, {"a": 3}]}', "[NaN]", "3", "[" * DEEPEST + "]" * DEEPEST])
def test_json_is_read(text: str) -> None:
    json_value(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 1}', '"a" stands twice'),
        ('[{"b": {"a": 1, "c": 2, "a": 3}}]', '"a" stands twice'),
        ('{"a\\nb": 1, "a\\nb": 2}', '"a b" stands twice'),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested deeper"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper"),
        ("1" * 5000, "integer"),
        ('{"a": 1,}', "property name .* after a comma: column 9"),
        ("[1,\n2,\n]", "Expecting value after a comma: line 3, column 1"),
        ("", "Expecting value"),
        ("{} {}", "Extra data"),
    ],
)
def test_json_that_can_be_read_in_two_ways_or_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        json_value(text)
    assert "\n" not in str(refused.value)


def test_json_lines_end_at_line_feeds_alone() -> None:
    text = '{"a": "\u2028\x85"}\r\n\n  \n[2]'
    assert list(json_lines(text, "a", DataError)) == [(1, {"a": "\u2028\x85"}), (4, [2])]
    with pytest.raises(DataError, match=r"^a, line 2, is no JSON"):
        list(json_lines("1\n{", "a", DataError))


FEW = "has more or fewer cells than the header"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
        ('a,b\r\n"1\r\n,""",2\r\n\r\n3,4', [(2, {"a": '1\r\n,"', "b": "2"}), (5, {"a": "3", "b": "4"})]),
        ("a\rb\rc", [(2, {"a": "b"}), (3, {"a": "c"})]),
        ("a\n" + "x" * 300_000, [(2, {"a": "x" * 300_000})]),
        (",a\n0,1\n", [(2, {"": "0", "a": "1"})]),
        ("a,, \n1,,\n2,,3\n", [(2, {"a": "1"}), (3, "has a cell in one of several columns without a name")]),
        ("a,b\n1\n1,2,3\n4,5", [(2, FEW), (3, FEW), (4, {"a": "4", "b": "5"})]),
        (" a,\ufeffb\n1,2", [(2, {" a": "1", "\ufeffb": "2"})]),
        ("", []),
        ("a,b\n", []),
    ],
)
def test_csv_is_read_row_by_row_with_its_lines(text: str, rows: list[Any]) -> None:
    assert list(csv_rows(text)) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,a\n1,2,3\n", "line 1, names the column a twice"),
        ('a\n1\n"2', "line 3, is no CSV"),
        ('a\n"1"2\n', "line 2, is no CSV"),
    ],
)
def test_csv_that_can_be_read_in_two_ways_or_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(csv_rows(text))
