"""Untrusted text → text that can be shown: what draws nothing, or reorders its surroundings, becomes a mark.

The browser's components do the same in `tokens.js`; this is for the places where plain text is shown and
for exports. Records keep the text as it is.
"""

import re
import unicodedata

_LAYOUT = "\n\t"
_JOINER = "\u200d"
_VARIATIONS = "\ufe0e\ufe0f"
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Drawn as nothing though not of a category that says so."""


def visible(text: str) -> str:
    """The text with every invisible character as `[U+202E]`; line breaks, tabs and emoji stay as they are."""
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    before, after = "\0" + text[:-1], text[1:] + "\0"
    return "".join(
        f"[U+{ord(char):04X}]" if _hidden(char) and not _shapes(char, left, right) else char
        for left, char, right in zip(before, text, after, strict=True)
    )


def one_line(text: str, length: int) -> str:
    """The text as one line of a table, cut with an ellipsis where it is longer."""
    line = " ".join(text[: 4 * length].split())
    return visible(line if len(line) <= length else line[: length - 1] + "…")


def well_formed(text: str) -> str:
    """The text with half surrogates replaced and NUL left out, which neither UTF-8 nor a database's search takes."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def spreadsheet_cell(value: object) -> object:
    """A value as a CSV cell: text that a spreadsheet would run gets an apostrophe; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = well_formed(value)
    return f"'{text}" if _FORMULA.match(text) else text


def _hidden(char: str) -> bool:
    if char in _LAYOUT:
        return False
    category = unicodedata.category(char)
    return category[0] == "C" or category in ("Zl", "Zp") or bool(_BLANK.match(char))


def _shapes(char: str, left: str, right: str) -> bool:
    """Joiners and variation selectors are left alone only where they shape an emoji."""
    if char == _JOINER:
        return _pictorial(left) and _pictorial(right)
    return char in _VARIATIONS and not left.isspace() and not _hidden(left)


def _pictorial(char: str) -> bool:
    return unicodedata.category(char) in ("So", "Sk") or char == "\ufe0f" or char in "♀♂⚕⚖✈❤"
