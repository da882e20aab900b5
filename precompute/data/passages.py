"""Documents → passages of a few hundred tokens, each with its place in its document.

A document is one sequence: the token that ended the one before it, its own, and the one that ends it, as trainings on
documents one behind the other have it. It is cut where a word begins. A passage repeats the last token before it, which
it is read behind, so that every token of the document is in the loss once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.errors import PromptError
from explorer.model.sequences import NO_END
from explorer.records import DOCUMENT, START, STOP, Counting, Encoded, Example

if TYPE_CHECKING:
    from explorer.model.language_model import LanguageModel

_Spans = Sequence[tuple[int, int]]
"""The characters of every token, as half-open ranges."""


def passages(model: "LanguageModel", document: Example, counting: Counting) -> list[tuple[Example, Encoded]]:
    """The passages of raw text, in order, and their token ids; all but the first of these are in the loss.

    `counting` says how long they may be, what ends a document, and behind how many tokens it was cut in the training.
    Raises PromptError for a text that leaves nothing to predict, or that this tokenizer doesn't give places for.
    """
    ids, spans, opening = _sequence(model.tokenizer, document.response, counting)
    model.check(np.asarray(ids, dtype=np.int64), len(ids))
    if len(ids) < 2:
        raise PromptError("The text has nothing in it that could be predicted.")
    longest, found = min(counting.chunk, model.context), list[tuple[Example, Encoded]]()
    for start, stop in _cuts(document.response, spans, opening, longest - 1):
        begin, end = spans[start][0], spans[stop - 1][1]
        columns = {**document.columns, START: begin, STOP: end}
        text = document.response[begin:end]
        place = f"{document.place}, characters {begin:,} to {end:,}" if document.place else ""
        passage = replace(document, response=text, columns=columns, place=place)
        found.append((passage, Encoded(np.asarray(ids[start - 1 : stop], dtype=np.int64), 1)))
    return found


def document_name(example: Example) -> str:
    """What a document is called."""
    return str(example.columns.get(DOCUMENT, ""))


def _sequence(tokenizer: Any, text: str, counting: Counting) -> tuple[list[int], _Spans, int]:
    """The ids of a whole document, the characters of each, and how many stand before its text."""
    if not tokenizer.is_fast:
        raise PromptError(
            "The tokenizer doesn't tell where in a text its tokens stand; give one with a tokenizer.json."
        )
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    end = _end(tokenizer, counting.end)
    opening = tokenizer("")["input_ids"][:1] or end
    ids = [*opening, *read["input_ids"], *end]
    spans = [(0, 0)] * len(opening) + [*read["offset_mapping"]] + [(len(text), len(text))] * len(end)
    most = counting.longest or len(ids)
    return ids[:most], spans[:most], len(opening)


def _end(tokenizer: Any, named: str) -> list[int]:
    """What ends a document: the named token, or else the end of sequence. Raises PromptError where there is none."""
    if named == NO_END:
        return []
    token = tokenizer.get_vocab().get(named) if named else tokenizer.eos_token_id
    if token is None:
        raise PromptError(f"The vocabulary has no token {named} that could end a document; give another --end.")
    return [token]


def _cuts(text: str, spans: _Spans, opening: int, most: int) -> Iterator[tuple[int, int]]:
    """Where the passages of a document begin and end among its tokens, `most` tokens each at most.

    A passage ends before a word, where there is one in its second half; or else before a character.
    """
    start, count = max(opening, 1), len(spans)
    while start < count:
        stop = min(start + most, count)
        if stop < count:
            # What would be left shall say something: the end of the document alone doesn't.
            last = stop if spans[stop][0] < len(text) else stop - 1
            half = range(last, start + most // 2, -1)
            word = next((place for place in half if _begins_word(text, spans, place)), 0)
            stop = word or next((place for place in half if _begins_character(spans, place)), last)
        yield start, stop
        start = stop


def _begins_character(spans: _Spans, place: int) -> bool:
    return spans[place][0] >= spans[place - 1][1]


def _begins_word(text: str, spans: _Spans, place: int) -> bool:
    first = spans[place][0]
    return _begins_character(spans, place) and (text[first : first + 1].isspace() or text[first - 1 : first].isspace())
