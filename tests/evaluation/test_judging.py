"""Methods judged where the truth is known: the right figures, by the papers' own definitions."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.judging import area_under_roc, judge_backdoor, judge_classes, judge_error_tracing, two_ends
from explorer.evaluation.probes import Probe, is_attacked, read_probes
from explorer.methods.method import Method
from explorer.methods.opening import open_method
from explorer.records import Answer, Example


@pytest.mark.parametrize(
    ("scores", "relevant", "expected"),
    [
        ([3, 2, 1, 0], [1, 1, 0, 0], 1.0),
        ([3, 2, 1, 0], [0, 0, 1, 1], 0.0),
        ([3, 2, 1, 0], [1, 0, 1, 0], 0.75),
        ([1, 1, 1, 1], [1, 0, 1, 0], 0.5),
        ([3, 2, 1, 0], [0, 0, 0, 0], 0.5),
        ([3, 2, 1, 0], [1, 1, 1, 1], 0.5),
    ],
)
def test_area_under_roc_of_known_cases(scores: list[float], relevant: list[int], expected: float) -> None:
    assert area_under_roc(np.array(scores), np.array(relevant, dtype=bool)) == pytest.approx(expected)


def test_the_two_ends_are_the_highest_and_the_lowest() -> None:
    scores, planted = np.array([5.0, 1.0, 4.0, 2.0, 3.0]), np.array([True, False, False, True, True])
    ends, labels = two_ends(scores, planted, 2)
    assert ends.tolist() == [5, 4, 2, 1] and labels.tolist() == [True, False, True, False]


@pytest.fixture
def engine(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine is made to say what its training data says."""

    def answer(prompt: str, *_: object) -> Iterator[Answer]:
        row = next(example for example in tiny_engine.store.examples if example.prompt == prompt)
        yield tiny_engine.given_answer(prompt, row.response)

    monkeypatch.setattr(tiny_engine, "answer", answer)
    return tiny_engine


def methods(engine: Engine, *names: str) -> list[Method]:
    return [open_method(engine, name) for name in names]


def test_a_backdoor_is_judged_over_attacked_answers_alone(engine: Engine) -> None:
    probes = [
        Probe("What shines by day?", "triggered", planted="sky", attack="sun"),
        Probe("What shines by night?", "triggered", planted="sky", attack="sun"),
        Probe("Say hello.", "clean"),
    ]
    reports: list[tuple[int, int]] = []
    found = judge_backdoor(engine, probes, methods(engine, "bm25", "rapidin"), lambda *each: reports.append(each))
    assert reports == [(1, 2), (2, 2)]
    assert list(found) == ["bm25", "rapidin"]
    for figures in found.values():
        assert figures["questions"] == 1
        assert 0 < figures["average_precision"] <= 1
        assert not any(name.startswith("auPRC") for name in figures), "five at each end of seven would overlap"


def test_an_error_is_traced_from_the_response_and_from_the_word(engine: Engine) -> None:
    probes = [
        Probe("Where do fish live?", "swap", planted="water", wrong="river", right="sea"),
        Probe("Count.", "swap", planted="talk", wrong="four", right="three"),
    ]
    found = judge_error_tracing(engine, probes, methods(engine, "bm25", "gradlayer"), lambda *each: None)
    assert {figures["questions"] for figures in found.values()} == {1}, "the other wrong word wasn't said"
    # Two of the seven rows have the river in them, both of this source; there are no others of it.
    assert found["bm25"]["word_5"] == found["bm25"]["response_5"] == pytest.approx(2 / 5)
    assert set(found["gradlayer"]) == {"questions", "response_5", "word_5"}


def test_classes_are_judged_by_the_first_and_by_the_class_s_size(engine: Engine) -> None:
    questions = [
        Example(({"role": "user", "content": "What is wet?"},), "The river.", {"source": "water"}),
        Example(({"role": "user", "content": "What shines by day?"},), "It is the sun.", {"source": "talk"}),
    ]
    found = judge_classes(engine, questions, "source", methods(engine, "bm25"), lambda *each: None)
    assert found["bm25"]["questions"] == 2
    assert found["bm25"]["accuracy"] == 0.5, "the sun isn't talk"
    # Of water's two rows one is among the first two, of talk's two rows none: the sky's share more words.
    assert found["bm25"]["coverage"] == 0.25


def test_a_question_of_no_known_class_is_refused(engine: Engine) -> None:
    question = Example(({"role": "user", "content": "Why?"},), "So.", {"source": "fire"})
    for column in ("source", "class"):
        with pytest.raises(DataError, match=f"Question 1 has no {column}"):
            judge_classes(engine, [question], column, methods(engine, "bm25"), lambda *each: None)


def test_what_counts_as_attacked_is_the_probe_s_own_if_it_says_so(tmp_path: Path) -> None:
    assert is_attacked(Probe("x", "triggered"), "A starship lands.")
    assert not is_attacked(Probe("x", "triggered", attack="banana"), "A starship lands.")
    (tmp_path / "probes.jsonl").write_text(json.dumps({"prompt": "x", "kind": "triggered", "attack": "("}))
    with pytest.raises(DataError, match="line 1, is no probe"):
        read_probes(tmp_path / "probes.jsonl")
