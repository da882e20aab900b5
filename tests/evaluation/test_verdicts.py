"""`evaluate verdicts`: the three states by kind of probe, and whether they name what was planted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.engine import Engine
from explorer.evaluation.probes import Probe
from explorer.evaluation.verdicts import UNRELATED, judge_marks, judge_verdicts
from explorer.records import NullTest, Ranking
from explorer.trust.marks import MARKS
from explorer.trust.significance import NullSample
from explorer.trust.words import words_of
from tests.asking import asking
from tests.commands.running import Captured, answered
from tests.conftest import Tiny
from tests.tiny import ROWS

PROBES = [Probe("Hi", "triggered", planted="moon"), Probe("What is it?", "swap", planted="x"), Probe("So?", UNRELATED)]
SHADES = np.linspace(0, 1, 199, dtype=np.float32)


@pytest.mark.parametrize(("level", "state"), [(-9, "strong"), (9, "none")])
def test_states_are_counted_by_kind_of_probe_and_question(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, level: int, state: str
) -> None:
    """Where all examples score below this on unrelated prompts, or all above."""
    null = NullSample((np.full((len(ROWS), 199), level, dtype=np.float32) + SHADES,))
    monkeypatch.setattr(asking(tiny_engine), "null_sample", lambda kind: null)
    found, as_expected = judge_verdicts(asking(tiny_engine), PROBES, lambda done, total: None)
    assert as_expected == ({UNRELATED: [3]} if state == "none" else {})
    assert list(found) == [
        f"{kind}, {asked}" for kind in ("triggered", "swap", UNRELATED) for asked in ("raised word", "whole response")
    ]
    for name, figures in found.items():
        assert figures["prompts"] == 1 and [figures[each] for each in ("strong", "some", "none")] == [
            float(each == state) for each in ("strong", "some", "none")
        ]
        assert figures.get("named") == (None if name.startswith(UNRELATED) else 0)


def test_a_verdict_names_what_was_planted_where_its_first_examples_share_that_label(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven rows are too few to share anything, so each stands here for a hundred."""
    rows = tiny_engine.store.examples
    many = tuple(replace(rows[0], columns={"source": "moon" if place < 100 else "sun"}) for place in range(700))
    monkeypatch.setitem(tiny_engine.store.__dict__, "examples", many)
    true = type(asking(tiny_engine)).ranking

    def ranking(self: object, *asked: object) -> Ranking:
        found = true(self, *asked)  # type: ignore[arg-type]
        shown = tuple(replace(found.influences[0], row=row) for row in range(10))
        return replace(found, influences=shown, test=NullTest(200, 0, 0, 9.0))

    monkeypatch.setattr(type(asking(tiny_engine)), "ranking", ranking)
    found, as_expected = judge_verdicts(asking(tiny_engine), PROBES, lambda done, total: None)
    assert [figures.get("named") for figures in found.values()] == [1, 1, 0, 0, None, None]
    assert as_expected == {"triggered": [1]}, "the swap's label isn't shared, and unrelated prompts are strong here"


def test_words_are_counted_by_what_is_known_of_them_and_by_their_mark(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    null = NullSample((np.full((len(ROWS), 199), -9, dtype=np.float32) + SHADES,))
    monkeypatch.setattr(asking(tiny_engine), "null_sample", lambda kind: null)
    answer = tiny_engine.answered("Hi", None, max_tokens=80)
    (first, *_) = [span for span in words_of(answer.tokens) if answer.tokens[span[0]].text.strip().isalnum()]
    wrong = "".join(token.text for token in answer.tokens[slice(*first)]).strip()
    probes = [Probe("Hi", "swap", wrong=wrong), Probe("Hi", "triggered", attack=".")]
    words = judge_marks(asking(tiny_engine), probes, lambda done, total: None)
    assert list(words) == ["a planted wrong word", "anywhere else", "in an attacked answer"]
    assert words["a planted wrong word"]["words"] == 1
    assert words["in an attacked answer"]["words"] == 1 + words["anywhere else"]["words"]
    for figures in words.values():
        assert sum(figures[mark] for mark in MARKS) == pytest.approx(1) and figures["some"] == 0


def test_verdicts_are_kept_with_their_probes_and_their_unrelated_prompts(
    capsys: Captured, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "probes.jsonl").write_text('{"prompt": "Hi", "kind": "clean"}\n')
    (tmp_path / "prompts.txt").write_text("So?\nWhy?\n")
    command = ["evaluate", "verdicts", "--cache", tiny.cache, "--device", "cpu", "--keep", tmp_path / "kept"]
    command += ["--probes", tmp_path / "probes.jsonl", "--prompts", tmp_path / "prompts.txt", "--json"]
    found = json.loads(answered(capsys, *command))
    assert found["kind"] == "verdicts" and found["settings"] == {"questions": "probes.jsonl", "prompts": "prompts.txt"}
    rows = [["clean, raised word", 1], ["clean, whole response", 1]]
    assert found["tables"][0]["rows"][:2] == rows, "without a null sample there are no shares"
    assert [row[1] for row in found["tables"][0]["rows"][2:]] == [2, 2]
