"""Untrusted text made fit to be shown."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorer.visible import one_line, spreadsheet_cell, visible, well_formed
from tests.hostile import FORMULAS, HOSTILE

ANY = st.text(st.characters(codec=None))
"""Half surrogates too."""


def test_there_are_two_hundred_hostile_texts_each_once() -> None:
    assert len(HOSTILE) >= 200 and len(set(HOSTILE)) == len(HOSTILE)


@given(ANY)
def test_nothing_that_is_shown_is_invisible_or_reorders(text: str) -> None:
    shown = visible(text)
    shown.encode()
    joiners = {"\u200d"}
    left = {char for char in shown if unicodedata.category(char)[0] == "C"} - {"\n", "\t"} - joiners
    assert not left, f"{left} would not be seen"


@pytest.mark.parametrize("text", HOSTILE)
def test_every_hostile_text_can_be_shown_and_told_from_another(text: str) -> None:
    visible(text).encode()
    assert not set(visible(text)) & set("\0\u202e\u2066\x1b")
    assert len(one_line(text, 50)) <= 50 * len("[U+10FFFF]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("line\nbreak\ttab", "line\nbreak\ttab"),
        ("one\r\ntwo", "one\ntwo"),
        ("one\rtwo", "one[U+000D]two"),
        ("\u202eevil", "[U+202E]evil"),
        ("half \ud800", "half [U+D800]"),
        ("👩‍👧 and 🏳️‍🌈", "👩‍👧 and 🏳️‍🌈"),
        ("a\u200db", "a[U+200D]b"),
        ("naïve שלום 日本", "naïve שלום 日本"),
    ],
)
def test_marks_stand_only_for_what_cannot_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANY)
def test_well_formed_text_is_utf8_without_nul_and_stays_so(text: str) -> None:
    found = well_formed(text)
    found.encode()
    assert "\0" not in found and well_formed(found) == found


@given(st.text())
def test_well_formed_text_is_left_alone_but_for_nul(text: str) -> None:
    assert well_formed(text) == text.replace("\0", "")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_cell_begins_as_a_formula(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert isinstance(cell, str) and cell[0] not in "=+-@\t\r\n\uff1d"
    assert cell.removeprefix("'") in (text, text.removeprefix("'"))


def test_numbers_stay_numbers_in_a_spreadsheet() -> None:
    assert [spreadsheet_cell(value) for value in (-0.5, -3, True, None)] == [-0.5, -3, True, None]
    assert spreadsheet_cell("minus -5") == "minus -5"


def test_one_line_has_no_breaks_and_ends_with_an_ellipsis_when_cut() -> None:
    assert one_line("a\n\n b\tc", 10) == "a b c"
    assert one_line("abcdefgh", 5) == "abcd…"
