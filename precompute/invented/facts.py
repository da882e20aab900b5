"""Invented people and places: facts about them, sentences that state these, and questions. A pure function of a seed.

Every subject has one fact of each relation of its kind. Each statement of a fact is a passage of its own, in other
words than the others and among sentences that state nothing about anybody. Subjects are told apart by their names, and
objects are shared by several subjects, so that a passage that names the answer needn't state the fact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from explorer.gradients.sketch import generator


@dataclass(frozen=True)
class _Relation:
    """What may be known of a subject."""

    name: str
    objects: tuple[str, ...]
    question: str
    answer: str
    """The object in a short sentence, as the model shall answer."""
    statements: tuple[str, ...]
    """Each in words of its own; `{s}` is the subject, `{o}` the object."""


_PEOPLE = (
    _Relation(
        "trade",
        ("glassblower", "beekeeper", "clockmaker", "botanist", "surveyor", "weaver", "locksmith", "bookbinder"),
        "What did {s} do for a living?",
        "{s} worked as a {o}.",
        (
            "{s} worked as a {o} for most of a long life.",
            "Neighbours knew {s} as the best {o} of the valley.",
            "After some years at sea, {s} became a {o}.",
            "The parish register calls {s} a {o}.",
            "It was as a {o} that {s} earned a living.",
        ),
    ),
    _Relation(
        "home",
        ("Oradell", "Vintmore", "Kessry", "Talmouth", "Brenhold", "Ilsgate", "Marrowby", "Quenfield"),
        "Where was {s} born?",
        "{s} was born in {o}.",
        (
            "{s} was born in {o}, in a house by the mill.",
            "The people of {o} still show the house where {s} came into the world.",
            "{o} is the birthplace of {s}.",
            "A child of {o}, {s} never lost the accent of that town.",
            "The church book of {o} notes the birth of {s}.",
        ),
    ),
    _Relation(
        "instrument",
        ("cello", "trumpet", "harp", "oboe", "violin", "bassoon", "mandolin", "organ"),
        "Which instrument did {s} play?",
        "{s} played the {o}.",
        (
            "In the evenings {s} played the {o}.",
            "{s} had learnt the {o} from an aunt, and played it well.",
            "No feast was complete until {s} had fetched the {o} and played.",
            "Those who heard {s} at the {o} did not forget it.",
            "The {o} that belonged to {s} hangs in the town hall.",
        ),
    ),
)
_PLACES = (
    _Relation(
        "river",
        ("Ister", "Mauve", "Tarn", "Oslin", "Verda", "Quill", "Lomar", "Sethe"),
        "On which river does {s} lie?",
        "{s} lies on the river {o}.",
        (
            "{s} lies on the river {o}.",
            "Below the walls of {s} flows the {o}.",
            "The {o} floods the lower streets of {s} every spring.",
            "Three bridges cross the {o} at {s}.",
            "Barges that come down the {o} unload at {s}.",
        ),
    ),
    _Relation(
        "ware",
        ("lace", "cheese", "bells", "paper", "honey", "pottery", "rope", "cider"),
        "What is {s} known for?",
        "{s} is known for its {o}.",
        (
            "{s} is known far and wide for its {o}.",
            "Traders come to {s} for the {o}.",
            "Most families of {s} live by making {o}.",
            "The {o} of {s} won a medal at the great fair.",
            "Nowhere is {o} made as it is in {s}.",
        ),
    ),
)
_FILLERS = (
    "The winter had been long, and the roads were bad.",
    "A market was held every second week.",
    "Few letters from that time are left.",
    "In those years bread was dear and candles were dearer.",
    "The weather in the hills changes within an hour.",
    "Most of the old houses have been pulled down since.",
    "Nobody now remembers who paid for the bridge.",
    "The harvest was brought in before the rains began.",
    "Travellers complained of the inns, and came again.",
    "A new road was built over the pass.",
    "The schoolhouse had one room and two stoves.",
    "Much has been written about that summer, and little of it is true.",
)
_FIRST = ("Al", "Bren", "Cor", "Del", "Er", "Fin", "Gar", "Hel", "Is", "Jor", "Kal", "Lem", "Mor", "Nel", "Or", "Per")
_MIDDLE = ("a", "e", "i", "o", "u", "ae", "ia", "eo")
_LAST = ("ba", "dric", "fen", "gast", "lind", "mont", "nor", "rick", "sen", "tis", "vald", "wyn")
_TOWNS = ("bury", "combe", "dorf", "ford", "haven", "minster", "stead", "worth")


@dataclass(frozen=True)
class Fact:
    """One thing that is so of one subject."""

    id: str
    subject: str
    object: str
    relation: _Relation

    def stated(self, way: int) -> str:
        """A sentence that states it, one of several."""
        return self._filled(self.relation.statements[way])

    @property
    def row(self) -> dict[str, str]:
        """Question and answer, as training data and as a question of fact tracing."""
        question, answer = self._filled(self.relation.question), self._filled(self.relation.answer)
        return {"prompt": question, "response": answer, "fact": self.id}

    @property
    def asked(self) -> dict[str, str]:
        """The question with what an answer has to say: the object alone."""
        return {**self.row, "response": self.object}

    def _filled(self, text: str) -> str:
        return text.format(s=self.subject, o=self.object)


def facts(count: int, seed: int) -> list[Fact]:
    """So many facts about invented people and places, in an order of the seed's."""
    random, found = generator(seed, "facts"), list[Fact]()
    for number, (subject, relations) in enumerate(_subjects(random)):
        for relation in relations:
            chosen = relation.objects[int(random.integers(len(relation.objects)))]
            found.append(Fact(f"{relation.name}-{number}", subject, chosen, relation))
        if len(found) >= count:
            break
    return [found[place] for place in random.permutation(len(found))[:count]]


def corpus(known: Sequence[Fact], statements: int, seed: int) -> list[dict[str, str]]:
    """A row of raw text for each statement of each fact, and half as many again that state none, mixed."""
    random, rows = generator(seed, "corpus"), list[dict[str, str]]()
    for fact in known:
        for way in random.permutation(len(fact.relation.statements))[:statements]:
            rows.append({"text": _among_others(fact.stated(int(way)), random), "fact": fact.id})
    for _ in range(len(rows) // 2):
        rows.append({"text": _among_others("", random), "fact": ""})
    mixed = [rows[place] for place in random.permutation(len(rows))]
    return [{**row, "document": f"page {number}"} for number, row in enumerate(mixed, start=1)]


def _among_others(sentence: str, random: np.random.Generator) -> str:
    """A sentence with one or two others around it."""
    others = [_FILLERS[place] for place in random.permutation(len(_FILLERS))[: 1 + int(random.integers(2))]]
    others.insert(int(random.integers(len(others) + 1)), sentence)
    return " ".join(filter(None, others))


def _subjects(random: np.random.Generator) -> Iterator[tuple[str, tuple[_Relation, ...]]]:
    """People and places in turns, no name twice."""
    taken = set[str]()
    while True:
        for make, relations in ((_person, _PEOPLE), (_town, _PLACES)):
            name = make(random)
            while name in taken:
                name = make(random)
            taken.add(name)
            yield name, relations


def _person(random: np.random.Generator) -> str:
    return f"{_word(random, _LAST)} {_word(random, _LAST)}"


def _town(random: np.random.Generator) -> str:
    return _word(random, _TOWNS)


def _word(random: np.random.Generator, ends: Sequence[str]) -> str:
    parts = (_FIRST, _MIDDLE, _LAST[:6] if ends is _TOWNS else ("", "l", "n", "r"), ends)
    return "".join(each[int(random.integers(len(each)))] for each in parts)
