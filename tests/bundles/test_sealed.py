"""A bundle comes back as it was, no change of it goes unseen, and nothing that is read can do harm."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer.bundles import sealed
from explorer.bundles.sealed import bundle_of, from_bytes, to_bytes
from explorer.bundles.words import as_text
from explorer.cache.files import sealing_line
from explorer.corpus import Filter
from explorer.errors import BundleError
from explorer.history import Annotation, Retraining, SavedAnswer, answer_json
from explorer.history.checked import checked
from explorer.history.evidence import Answers, Found, LeftOut, Odds
from explorer.history.export import to_html
from explorer.methods.description import described
from explorer.records import Contrast, Conversation, Encoded, NullPlace, NullTest, Steadiness, Token
from explorer.trust import Shared, Verdict
from tests.hostile import HOSTILE
from tests.saved_samples import question_of, saved_of

FOUND = Found(
    "Without these 2 rows the model says “moon”.",
    True,
    0,
    Odds("sun", (0, 1), 3.5, -1 / 3, (2.0, 1e-9)),
    Answers("sun", "moon", ("sun", "sun!")),
    LeftOut((3,), (0,), ((1, 2), (2, 4))),
    "moon",
    {"without": "ab" * 32},
    {"training": 5},
    {"epochs": 2},
)
RETRAINING = Retraining("feed", (0, 1), (3,), 2, 80, 1.7e9, FOUND)


def full() -> SavedAnswer:
    """An answer of which everything is kept that can be."""
    turns = ({"role": "system", "content": "Be \ud83c brief."}, {"role": "user", "content": "Why?", "thinking": "Hm."})
    saved = saved_of("a1", Conversation(turns))
    (whole,) = saved.questions
    first, second = whole.shown
    place, steady = NullPlace(200, 199, 0.01), Steadiness(0.1, 0.2, 0.9, 1.0, ("25%",), ("25%", "50%"))
    found = replace(
        first.influence, positions=np.arange(5, dtype=np.float32), place=place, parts=(0.1, 0.2), steadiness=steady
    )
    gaps = replace(first.example, encoded=Encoded(np.array([3, 4, 9, 8, 7, 1], dtype=np.int64), 2, ((3, 4),)))
    sequence = tuple(Token(f"t{number}") for number in range(5))
    noted = Annotation("planted", ("swap", "=1+1"), "Look\nagain.")
    shown = (replace(first, influence=found, example=gaps, sequence=sequence, annotation=noted), second)
    verdict = Verdict("strong", NullTest(200, 0, 3, 9.5), Shared("label", "web", 2, 2, 3, 5), False, True)
    asked = replace(whole, shown=shown, verdict=verdict, wanted=Filter((("source", ("web", "x")),), "the"))
    contrast = replace(question_of("a1", Contrast((0, 2), (7, 8), "moon")), method=described("trak:64"), scores=None)
    return replace(saved, questions=(asked, contrast), annotation=Annotation("fine", (), "ok"))


def same(one: Any, other: Any) -> bool:
    """Whether two records say the same, arrays and all."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(same(getattr(one, f), getattr(other, f)) for f in vars(one))
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def resealed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """A bundle that somebody changed, with the checksum that the change has."""
    kept = json.loads(PAYLOAD)
    del kept["sha256"]
    change(kept)
    rest = json.dumps(kept).encode()[1:]
    return sealing_line(rest) + rest


def test_everything_comes_back() -> None:
    whole = replace(full(), asked=1.7e9)
    questions = tuple(replace(question, asked=1.7e9) for question in whole.questions)
    whole = replace(whole, questions=questions)
    made = bundle_of([whole, saved_of("b1")], [RETRAINING, replace(RETRAINING, answer="other")])
    found = from_bytes(to_bytes(made), described)
    assert same(found.answers[0], whole), "times are kept to the second, all else to the last digit"
    assert found.retrainings == (RETRAINING,), "findings about other answers stay at home"
    assert found.rows == made.rows and len(found.rows) == 2 and found.versions == made.versions
    assert found.sha256 and answer_json(found.answers[1]) == answer_json(saved_of("b1"))


def test_the_checksum_is_any_programs_to_compute() -> None:
    payload = to_bytes(bundle_of([full()]))
    first, rest = payload.split(b"\n", 1)
    assert json.loads(payload)["sha256"] == hashlib.sha256(rest).hexdigest() and first.count(b'"') == 4


def test_every_flipped_byte_is_found() -> None:
    payload = to_bytes(bundle_of([saved_of()], [RETRAINING]))
    drawn = random.Random(0)
    for place in range(len(payload)):
        bits = [1 << drawn.randrange(8)] if place > 200 else [1 << bit for bit in range(8)]
        for bit in bits:
            changed = bytearray(payload)
            changed[place] ^= bit
            with pytest.raises(BundleError, match=r"[Aa]sk for it again"):
                sealed._checksum(bytes(changed), "b")
    for changed_whole in (payload[:-1], payload + b"\n", payload[1:], payload[:80], b"", b"\n" + payload, payload * 2):
        with pytest.raises(BundleError):
            from_bytes(changed_whole, described)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON document, inner ones too."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:2]):
            yield from leaves(inner, (*at, number))


ODD: list[Any] = [None, True, -1, 10**30, 2**62, -1e308, "x", [], {}, [[]], [None], {"a": 1}]
PAYLOAD = to_bytes(bundle_of([full()], [RETRAINING]))
PLACES = [place for place in leaves(json.loads(PAYLOAD)) if place and place != ("sha256",)]
TRIED = 250
"""So many wrong values are tried of all there could be, spread over all places; all of them never broke anything."""


def put(kept: Any, place: tuple[Any, ...], value: Any) -> None:
    """Put a value at a place of a document."""
    for key in place[:-1]:
        kept = kept[key]
    kept[place[-1]] = value


def test_a_wrong_value_anywhere_is_refused_or_shown_and_never_breaks() -> None:
    every = [(place, odd) for place in PLACES for odd in ODD]
    refused = 0
    for place, odd in random.Random(1).sample(every, TRIED):
        try:
            found = from_bytes(resealed(partial(put, place=place, value=odd)), described)
            as_text(found).encode("utf-8", "replace")
            to_html(found.answers, found.retrainings)
        except BundleError as problem:
            refused += 1
            assert "\n" not in str(problem)
    assert TRIED / 4 < refused < TRIED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 100_000, "nested|expected|no bundle|checksum"),
        (b'"a": ' + b"9" * 5000 + b"}", "checksum"),
        (b'"a": 1e999, "format": "rapidin-explorer bundle 1"}', "no made"),
        (b'"format": "a", "format": "b"}', "twice"),
        (b'"format": "rapidin-explorer bundle 9"}', "Update it"),
        (b'"format": ["\\u001b[2J"]}', "Update it"),
        (b'"format": "rapidin-explorer bundle 1", "made": NaN}', "made"),
        (b"\xff}", "isn't as this program writes"),
        (b"1}", "isn't as this program writes"),
    ],
)
def test_what_was_never_a_bundle_is_refused_however_it_is_sealed(text: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said) as problem:
        from_bytes(sealing_line(text) + text, described)
    assert "\x1b" not in str(problem.value)


def test_no_file_is_read_that_is_larger_than_a_bundle_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b"
    made = bundle_of([saved_of()])
    path.write_bytes(to_bytes(made))
    monkeypatch.setattr(sealed, "MOST_BYTES", path.stat().st_size)
    assert sealed.read(path, described).answers
    monkeypatch.setattr(sealed, "MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(BundleError, match="which no bundle has"):
        sealed.read(path, described)
    with pytest.raises(BundleError, match="choose fewer"):
        to_bytes(made)
    with pytest.raises(BundleError, match="can't be read"):
        sealed.read(tmp_path, described)


def test_the_hashes_of_rows_are_those_of_the_texts_beside_them() -> None:
    def change(kept: dict[str, Any]) -> None:
        kept["answers"][0]["questions"][0]["examples"][0]["response"] += "!"

    with pytest.raises(BundleError, match="hashes of training examples"):
        from_bytes(resealed(change), described)


def test_hostile_texts_are_shown_as_text() -> None:
    for text in HOSTILE[::10]:
        said = replace(FOUND, said=text, answers=Answers(text, text, (text, text)), word=replace(FOUND.word, text=text))
        noted = replace(saved_of("a1", text, text, text), annotation=Annotation(text, (text,), text))
        made = from_bytes(to_bytes(bundle_of([noted], [replace(RETRAINING, found=said)])), described)
        page = to_html(made.answers, made.retrainings).decode()
        assert "<script" not in page and "<img" not in page and page.count("<h3>") == 2
        assert "\x1b" not in as_text(made) and "\u202e" not in as_text(made)


def test_controls_that_dont_fit_each_other_are_refused() -> None:
    record = json.loads(json.dumps(asdict(RETRAINING)))
    assert checked(Retraining, record) == RETRAINING
    record["found"]["word"]["controls"].pop()
    with pytest.raises(ValueError, match="different numbers"):
        checked(Retraining, record)
