"""Which passages of a text stand word for word in the training examples, and in which of them.

Words are compared, not token ids: a tokenizer takes the same word for another one at the beginning of a text. Case,
blanks and punctuation between words don't count. All words of all texts, one after the other, are sorted by what
follows them (a suffix array), so that whatever a passage says is found by bisection.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydivsufsort import divsufsort

from explorer.corpus.words import UNSPACED, word_pattern
from explorer.records import Span, Token

LEAST_WORDS, LEAST_LETTERS = 5, 12
"""A passage is as long as both; a character of a script without blanks is a word of one letter."""
MOST = 5
"""So many passages are told of a text."""
PATIENCE = 0.02
"""Seconds of one step while the words are sorted in another thread."""


@dataclass(frozen=True)
class Place:
    """A word and where it stands."""

    word: str
    """As it is compared."""
    start: int
    stop: int
    """Half-open, in characters of its text."""


@dataclass(frozen=True)
class Passage:
    """A run of words of a text that stands in training examples, and no longer one around it does."""

    start: int
    stop: int
    """Half-open, in characters of the text."""
    words: tuple[str, ...]
    """As they are compared."""
    rows: tuple[int, ...]
    """The examples that hold it, in the data's order."""


def places(text: str) -> list[Place]:
    """The words of a text in order; each character of a script without blanks is one."""
    found = list[Place]()
    for match in word_pattern().finditer(text):
        parts = [match] if match[0].isascii() else _parts().finditer(text, *match.span())
        for part in parts:
            word = unicodedata.normalize("NFC", part[0]).casefold().strip("_").replace("’", "'")
            if word:
                found.append(Place(word, *part.span()))
    return found


def where(text: str, words: Sequence[str]) -> tuple[int, int] | None:
    """Where a run of words first stands in a text, half-open in characters; None where it doesn't."""
    stands = places(text)
    for first in range(len(stands) - len(words) + 1):
        run = stands[first : first + len(words)]
        if all(place.word == word for place, word in zip(run, words, strict=True)):
            return run[0].start, run[-1].stop
    return None


def differing_words(before: str, after: str) -> Iterator[tuple[list[Place], list[Place]]]:
    """The runs of words that differ between two texts, in order: those of one, and what the other has in their place.

    Either may be empty. Both are without the longest common blocks of the texts' words.
    """
    stands, now = places(before), places(after)
    # Without autojunk: a word that occurs often is no less a word.
    matcher = SequenceMatcher(None, [place.word for place in stands], [place.word for place in now], autojunk=False)
    for kind, first, last, start, stop in matcher.get_opcodes():
        if kind != "equal":
            yield stands[first:last], now[start:stop]


def as_tokens(tokens: Sequence[Token], start: int, stop: int) -> Span:
    """The tokens that hold characters of the text that all together spell; control tokens spell nothing."""
    ends = np.cumsum([0 if token.special else len(token.text) for token in tokens])
    return int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, stop, side="left")) + 1


def as_characters(tokens: Sequence[Token], span: Span) -> tuple[int, int]:
    """The characters of that text that some of the tokens spell, half-open."""
    ends = np.cumsum([0, *(0 if token.special else len(token.text) for token in tokens)])
    return int(ends[span[0]]), int(ends[span[1]])


@cache
def _parts() -> re.Pattern[str]:
    """A character of a script without blanks, with the marks upon it, or a run of others."""
    return re.compile(rf"[{UNSPACED}](?:(?![{UNSPACED}])\W)*|[^{UNSPACED}]+")


class VerbatimIndex:
    """All words of training examples (N), each a prompt and a response, across whose ends no passage goes.

    Asked from any thread, once it is `ready`.
    """

    def __init__(self, examples: Sequence[tuple[str, str]]):
        """Nothing is indexed yet."""
        self._examples = examples
        self._codes: dict[str, int] = {}
        self._words = b""
        """The code of each word (4 bytes, big-endian); 0, which is no word's, ends a text."""
        self._order: memoryview = np.zeros(0, dtype=np.int64).data
        """Places of words, sorted by the words from there on."""
        self._starts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        """The place of the first word of each prompt and of each response (2N), in turns."""
        self.ready = False
        """True once `build` has ended."""

    def __len__(self) -> int:
        """N."""
        return len(self._examples)

    def build(self, examples_a_step: int = 200) -> Iterator[None]:
        """Index all examples, some at each step."""
        codes, starts, pieces, length = self._codes, list[int](), list[NDArray[np.uint32]](), 0
        for first in range(0, len(self._examples), examples_a_step):
            part = list[int]()
            for example in self._examples[first : first + examples_a_step]:
                for text in example:
                    starts.append(length + len(part))
                    part += [codes.setdefault(place.word, len(codes) + 1) for place in places(text)]
                    part.append(0)
            pieces.append(np.asarray(part, dtype=np.uint32))
            length += len(part)
            yield
        if length:
            every = np.concatenate(pieces)
            with ThreadPoolExecutor(1) as pool:
                order = pool.submit(divsufsort, every)
                while not wait([order], PATIENCE).done:
                    yield
            self._words, self._order = every.astype(">u4").tobytes(), order.result().astype(np.int64).data
        self._starts = np.asarray(starts, dtype=np.int64)
        self.ready = True

    def passages(self, text: str, most: int = MOST) -> tuple[Passage, ...]:
        """The passages of a text, each as long as can be, that the fewest examples hold; the rarest first."""
        stands = places(text)
        found = [
            self._passage(stands[first:stop], low)
            for first, stop, low in self._longest([self._codes.get(place.word, 0) for place in stands])
            if _long_enough(place.word for place in stands[first:stop])
        ]
        return tuple(sorted(found, key=lambda passage: (len(passage.rows), -len(passage.words), passage.start))[:most])

    def holders(self, words: Sequence[str], responses: bool = False) -> tuple[int, ...]:
        """The examples that hold a run of words, in the data's order; with `responses` those whose response does.

        Args:
            words: As they are compared (`places`).
            responses: Whether prompts don't count.
        """
        codes = [self._codes.get(word, 0) for word in words]
        low = self._first(codes) if all(codes) else None
        return () if low is None else self._holders(codes, low, responses)

    def occurrences(self, words: Sequence[str]) -> int:
        """How often a run of words stands in all examples."""
        codes = [self._codes.get(word, 0) for word in words]
        low = self._first(codes) if all(codes) else None
        return 0 if low is None else self._high(_packed(codes), low) - low

    def _longest(self, codes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """The runs of words (half-open) that stand somewhere and are within no longer one; the first of each."""
        stop, low = 0, 0
        for first in range(len(codes)):
            stop = max(stop, first)
            begun = stop
            while stop < len(codes) and codes[stop] and (place := self._first(codes[first : stop + 1])) is not None:
                stop, low = stop + 1, place
            if stop > begun:
                yield first, stop, low

    def _first(self, codes: Sequence[int]) -> int | None:
        """The first place in the order whose words begin with these; None where none does."""
        wanted = _packed(codes)
        place = bisect_left(range(len(self._order)), wanted, key=lambda at: self._at(at, len(wanted)))
        return place if place < len(self._order) and self._at(place, len(wanted)) == wanted else None

    def _passage(self, stands: Sequence[Place], low: int) -> Passage:
        words = tuple(place.word for place in stands)
        rows = self._holders([self._codes[word] for word in words], low, responses=False)
        return Passage(stands[0].start, stands[-1].stop, words, rows)

    def _holders(self, codes: Sequence[int], low: int, responses: bool) -> tuple[int, ...]:
        """The examples that hold these words, of which `low` is the first place in the order."""
        high = self._high(_packed(codes), low)
        texts = np.searchsorted(self._starts, np.asarray(self._order[low:high]), side="right") - 1
        # Texts are prompts and responses in turns.
        return tuple(np.unique((texts[texts % 2 == 1] if responses else texts) // 2).tolist())

    def _high(self, wanted: bytes, low: int) -> int:
        """Where the places end in the order whose words begin with these, of which `low` is the first."""
        return bisect_right(range(len(self._order)), wanted, lo=low, key=lambda at: self._at(at, len(wanted)))

    def _at(self, place: int, length: int) -> bytes:
        """So many bytes of the words that one place of the order stands for."""
        first = 4 * self._order[place]
        return self._words[first : first + length]


def _packed(codes: Sequence[int]) -> bytes:
    return np.asarray(codes, dtype=">u4").tobytes()


def _long_enough(words: Iterable[str]) -> bool:
    lengths = [len(word) for word in words]
    return len(lengths) >= LEAST_WORDS and sum(lengths) >= LEAST_LETTERS
