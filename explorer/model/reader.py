"""How the tokens of a sequence are shown: their texts, and the bytes of those that are no whole character."""

from functools import cache
from typing import Any

from explorer.records import Token


class TokenReader:
    """Turns token ids, one after the other, into what each is shown as.

    The texts join to the decoded sequence. A character spread over several
    tokens is shown on the last of them; the others carry their bytes.
    """

    def __init__(self, tokenizer: Any):
        """Begin a sequence."""
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        # Decoded on its own a token may lose its leading space: each is decoded behind an anchor.
        self._anchor: list[int] = []
        self._pending: list[int] = []

    def __call__(self, token: int) -> Token:
        """The next token."""
        token = int(token)
        if token in self._special:
            self._anchor, self._pending = [], []
            return Token(self._tokenizer.convert_ids_to_tokens(token), special=True)
        before = self._decode(self._anchor)
        text = self._decode([*self._anchor, *self._pending, token])[len(before) :]
        raw = " ".join(_token_bytes(self._tokenizer, part) for part in [*self._pending, token])
        # The replacement sign stands for half a character, or, seldom, for itself.
        if text.endswith("\ufffd") and not raw.endswith("EF BF BD"):
            self._pending = [*self._pending, token][1 - _LONGEST_CHARACTER :]
            return Token("", raw=_token_bytes(self._tokenizer, token))
        # Bytes that never became a character were shown as such, each in its turn.
        if self._pending:
            text = text.lstrip("\ufffd") or text[-1:]
        self._anchor, self._pending = [*self._pending, token], []
        return Token(text)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


_LONGEST_CHARACTER = 4
"""Bytes of the longest UTF-8 character, so at most that many tokens make one."""


def _token_bytes(tokenizer: Any, token: int) -> str:
    """The bytes of one byte-level token in hexadecimal, for tokens that are no whole character."""
    piece = tokenizer.convert_ids_to_tokens(token)
    table = _byte_characters()
    if all(character in table for character in piece):
        return " ".join(f"{table[character]:02X}" for character in piece)
    return piece.strip("<>").removeprefix("0x")


@cache
def _byte_characters() -> dict[str, int]:
    """The byte each printable stand-in of a byte-level vocabulary means (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
