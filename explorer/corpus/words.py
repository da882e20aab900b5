"""Words that set some examples apart from the rest of the training data.

Every example holds a word or doesn't, however often: a word repeated in one
example tells nothing of the others. Words are compared without case and
without punctuation around them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SURPRISING = 15.13
"""G² that a word common to both reaches by chance once in 10,000 (χ², one degree of freedom)."""


@dataclass(frozen=True)
class Word:
    """A word that sets the shown examples apart."""

    text: str
    """As the shown examples mostly write it."""
    rows: tuple[int, ...]
    """The shown examples that hold it, in their order."""
    shown: int
    """How many examples are shown."""
    holders: int
    """How many of all the examples hold it."""
    of: int
    """How many examples there are."""
    surprise: float
    """Dunning's G² (see `log_likelihood_ratio`)."""


UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts that set no blanks between words, as ranges: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""


@cache
def word_pattern() -> re.Pattern[str]:
    """Letters, digits and the marks that combine with them, joined by single apostrophes or hyphens."""
    # `\w` leaves out combining marks, without which Hindi or Tamil words fall to pieces. Beyond the
    # basic plane they are so rare, and slow the search down so much, that they are left out.
    marks = "".join(chr(code) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("M"))
    return re.compile(rf"[\w{marks}]+(?:['’\-][\w{marks}]+)*")


def words(text: str) -> list[str]:
    """The words of a text in order, as they are written."""
    found = (word.strip("_") for word in word_pattern().findall(unicodedata.normalize("NFC", text)))
    return [word for word in found if word]


def folded_words(text: str) -> set[str]:
    """The distinct words of a text as they are compared."""
    return {word.casefold() for word in words(text)}


def log_likelihood_ratio(
    inside: NDArray[np.int64], shown: int, outside: NDArray[np.int64], rest: int
) -> NDArray[np.float64]:
    """Dunning's G² (1993) of words held by `inside` of `shown` and `outside` of `rest` examples; negative if rarer.

    Twice the sum over the four cells of O·ln(O/E): how badly one common rate
    explains both shares. It stays sound for counts as small as ours, and where
    a word occurs nowhere else, as a ratio of odds wouldn't.
    """
    observed = np.stack([inside, shown - inside, outside, rest - outside]).astype(np.float64)
    rate = (inside + outside) / (shown + rest)
    expected = np.stack([shown * rate, shown * (1 - rate), rest * rate, rest * (1 - rate)])
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(observed > 0, observed * np.log(observed / expected), 0.0)
    found = 2 * np.maximum(terms.sum(axis=0), 0)
    return np.where(inside * rest >= outside * shown, found, -found)


class WordIndex:
    """Which of many texts (N) hold which words; made bit by bit by `build`."""

    def __init__(self, texts: Sequence[str]):
        """Nothing is indexed yet."""
        self._texts = texts
        self._codes: dict[str, int] = {}
        self._held = np.zeros(0, dtype=np.int32)
        self._owners = np.zeros(0, dtype=np.int32)
        self.ready = False
        """True once `build` has ended."""

    def build(self, texts_a_step: int = 500) -> Iterator[None]:
        """Index all texts, some at each step."""
        codes, held, lengths = self._codes, list[NDArray[np.int32]](), list[int]()
        for start in range(0, len(self._texts), texts_a_step):
            part: list[int] = []
            for text in self._texts[start : start + texts_a_step]:
                found = [codes.setdefault(word, len(codes)) for word in folded_words(text)]
                part += found
                lengths.append(len(found))
            held.append(np.asarray(part, dtype=np.int32))
            yield
        self._held = np.concatenate([self._held, *held])
        self._owners = np.repeat(np.arange(len(self._texts), dtype=np.int32), lengths)
        self.ready = True

    def holders(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """How many texts hold each word of the vocabulary; with `rows`, how many of these."""
        held = self._held
        if rows is not None:
            among = np.zeros(len(self._texts), dtype=bool)
            among[rows] = True
            held = held[among[self._owners]]
        return np.bincount(held, minlength=len(self._codes))

    def distinctive(
        self, shown: Sequence[int], holders: NDArray[np.int64], of: int, count: int = 8, least: int = 2
    ) -> list[Word]:
        """The words that set the shown examples apart most, best first.

        Args:
            shown: Rows of the shown examples.
            holders: What `holders` gave for all the rows they were chosen from.
            of: How many rows these are, the shown ones included.
            count: At most so many words.
            least: A word must stand in so many shown examples.
        """
        written: dict[str, Counter[str]] = {}
        found: dict[str, list[int]] = {}
        for row in shown:
            spelled = Counter(words(self._texts[row]))
            for word in spelled:
                written.setdefault(word.casefold(), Counter()).update({word: spelled[word]})
            for folded in dict.fromkeys(word.casefold() for word in spelled):
                found.setdefault(folded, []).append(row)
        common = [word for word, rows in found.items() if len(rows) >= least]
        inside = np.asarray([len(found[word]) for word in common], dtype=np.int64)
        every = holders[[self._codes[word] for word in common]]
        surprise = log_likelihood_ratio(inside, len(shown), every - inside, of - len(shown))
        best = [place for place in np.argsort(-surprise, kind="stable")[:count] if surprise[place] >= SURPRISING]
        return [
            Word(
                written[common[place]].most_common(1)[0][0],
                tuple(found[common[place]]),
                len(shown),
                int(every[place]),
                of,
                float(surprise[place]),
            )
            for place in best
        ]
