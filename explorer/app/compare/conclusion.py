"""What two answers' examples come to, in a sentence: what is behind the one, and isn't behind the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from explorer.corpus import Corpus
from explorer.trust import Shared
from explorer.views import shortened

LONGEST = 60
"""Characters of a label or a word that a sentence carries."""


@dataclass(frozen=True)
class Side:
    """One answer, and what its first examples share."""

    name: str
    """What the page calls the answer."""
    shared: Shared | None
    """None where they share nothing that the rest of the data seldom has."""
    clear: bool
    """Whether its evidence is more than unrelated prompts have, or isn't known."""

    @property
    def found(self) -> Shared | None:
        """What may be said to be behind the answer."""
        return self.shared if self.clear else None


def holders(rows: Sequence[int], shared: Shared | None, corpus: Corpus) -> set[int]:
    """Which of some rows have what the examples behind the other answer share."""
    if shared is None:
        return set()
    if shared.kind == "label":
        return {row for row in rows if corpus.sources[row] == shared.name}
    return {row for row in rows if shared.name.casefold() in corpus.words(row)}


def conclusion(left: Side, right: Side, in_left: int, in_right: int, opponents: bool) -> str:
    """The sentence, in which names of labels and words are untrusted text.

    Args:
        left: The one answer.
        right: The other.
        in_left: How many of the left one's first examples have what the right one's share.
        in_right: The other way round.
        opponents: Whether the examples made the answers less likely.
    """
    behind = "against" if opponents else "behind"
    one, other = left.found, right.found
    if one is None and other is None:
        return f"The examples {behind} the two answers have no common source: they share no label and no word."
    if one is not None and other is not None:
        if (one.kind, one.name) == (other.kind, other.name):
            return (
                f"{_examples(one)} are {behind} both answers: {_of(one)} for {left.name}, {_of(other)} for "
                f"{right.name}."
            )
        return f"{_only(left, one, right, in_right, behind)} {_only(right, other, left, in_left, behind)}"
    if one is not None:
        return f"{_only(left, one, right, in_right, behind)} {_unclear(right)}".strip()
    assert other is not None
    return f"{_only(right, other, left, in_left, behind)} {_unclear(left)}".strip()


def _only(side: Side, shared: Shared, beside: Side, count: int, behind: str) -> str:
    also = f"not {behind} {beside.name}" if 2 * count < shared.of else f"also {behind} {beside.name}"
    return f"{_examples(shared)} are {behind} {side.name} ({_of(shared)}), {also} ({count} of {shared.of})."


def _unclear(side: Side) -> str:
    return "" if side.clear else f"{side.name} has no clear source."


def _examples(shared: Shared) -> str:
    name = shortened(shared.name, LONGEST)
    return f"Examples from {name}" if shared.kind == "label" else f"Examples with \u201c{name}\u201d"


def _of(shared: Shared) -> str:
    return f"{shared.shown} of {shared.of}"
