"""A model's tokenizer: which one was trained with, and how the tokens of a sequence are shown.

A token is shown as its text, or as its bytes where it is no whole character.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from explorer.errors import ModelError
from explorer.model.files import as_ours, counted, folder_hash, read_object, require_fetched
from explorer.records import Token
from explorer.text_files import read_text

_TOKENIZER = ("tokenizer*.json", "vocab*", "merges.txt")
"""The files that tell tokenizers apart."""
_ALSO = ("special_tokens_map.json", "added_tokens.json", "tokenizer.model")
_CHAT = "chat_template.jinja"


def load_tokenizer(folder: Path, adapter: Path | None, rows: int) -> tuple[Any, str]:
    """The tokenizer that was trained with, and its hash: that beside the adapter, or else the base's.

    A chat template beside the adapter takes the place of the base's, which is used where there is none. The hash is
    that of the base's files wherever the two are the same tokenizer. Raises ModelError where it can't be read, or
    gives tokens that a network with so many `rows` of embeddings has none of.
    """
    own = adapter is not None and any(
        (adapter / file).is_file() for file in ("tokenizer_config.json", "tokenizer.json")
    )
    if adapter is None or not own:
        tokenizer = _read_tokenizer(folder)
        if adapter is not None and (adapter / _CHAT).is_file():
            tokenizer.chat_template = read_text(adapter / _CHAT, "The chat template", ModelError)
        _refuse_other_vocabulary(tokenizer, rows, folder)
        return tokenizer, folder_hash(folder, *_TOKENIZER)
    tokenizer = _read_tokenizer(adapter)
    _refuse_other_vocabulary(tokenizer, rows, adapter)
    try:
        of_base = _read_tokenizer(folder)
    except ModelError:
        # A base without a tokenizer that can be read does no harm: it isn't used.
        return tokenizer, folder_hash(adapter, *_TOKENIZER, *_ALSO)
    tokenizer.chat_template = tokenizer.chat_template or of_base.chat_template
    same = _marks(tokenizer) == _marks(of_base)
    return tokenizer, folder_hash(folder, *_TOKENIZER) if same else folder_hash(adapter, *_TOKENIZER, *_ALSO)


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    config = folder / "tokenizer_config.json"
    patterns = ("tokenizer.json", "vocab*", "merges.txt", "*.model", *_ALSO)
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not files:
        raise ModelError(f"{folder} holds no tokenizer.json; copy it there from where the model comes from.")
    for path in files:
        require_fetched(path)
    described = read_object(config)
    with as_ours(f"The tokenizer in {folder} can't be read"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception:
            # Which file it is isn't said, and reading all of them takes as long as the tokenizer itself.
            for path in files:
                if path.suffix == ".json":
                    read_object(path)
            raise
    end = tokenizer.eos_token
    # Where no file names it, transformers takes what is usual, and adds that to the vocabulary.
    if end is None or ("eos_token" not in described and not any(_holds(path, end) for path in files)):
        raise ModelError(f"{config} names no token that ends a sequence (eos_token); copy it anew.")
    return tokenizer


def _holds(path: Path, token: str) -> bool:
    return token in read_text(path, "The file", ModelError) if path.suffix in (".json", ".txt") else False


def _marks(tokenizer: Any) -> dict[str, Any]:
    """What decides how a tokenizer takes a text apart, and what it puts at the ends of a sequence."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    # Left behind by whoever used it last.
    for passing in ("truncation", "padding"):
        rules.pop(passing, None)
    return {
        "rules": rules,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "added": {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()},
    }


def _refuse_other_vocabulary(tokenizer: Any, rows: int, where: Path) -> None:
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows]
    # Some tokenizers know a few tokens that stand for no text, such as a place for a picture.
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    template = str(tokenizer.chat_template or "")
    if lost := sorted(token for token in beyond if token not in special or token in used or token in template):
        raise ModelError(
            f"The tokenizer in {where} has {len(tokenizer):,} tokens, and the model embeddings of {rows:,}: "
            f"there is none of {counted(lost, 'token')}. Give the tokenizer of this model, or the model with its "
            "embeddings resized as in training."
        )


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
