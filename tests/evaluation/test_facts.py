"""Fact tracing: what is counted, and what the figures are."""

import json
from pathlib import Path

import numpy as np
import pytest

from explorer.cache import CacheSettings
from explorer.engine import Engine
from explorer.errors import DataError
from explorer.evaluation.facts import facts_of, judge_facts, known_facts, nested, says
from explorer.evaluation.results import Table
from explorer.methods.opening import open_method
from explorer.model.loading import load_model
from explorer.records import Counting, Example
from explorer.serving.session import open_engine
from precompute.build import build_cache
from precompute.stages import following
from tests.commands.running import Captured, answered, refused, reported
from tests.conftest import Tiny

PASSAGES = [
    ("The sun shines by day.", "sun"),
    ("Many stars fell.", ""),
    ("By day it is the sun that shines, and the moon by night.", ["sun", "moon"]),
    ("Nothing is said here of anything at all.", ""),
]
PROMPT = "What shines by day?"


@pytest.fixture(scope="module")
def cache(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passages before the fine-tuning of the tiny adapter."""
    folder = tmp_path_factory.mktemp("facts") / "corpus"
    base = load_model(str(tiny.model), device="cpu", tensors="q_proj")
    rows = [Example((), text, {"document": f"{n}", "fact": fact}) for n, (text, fact) in enumerate(PASSAGES)]
    settings = CacheSettings(4096, 1024, normalisation="none", tensors="q_proj")
    named = following(tiny.cache, folder, base)
    build_cache(base, rows, folder, settings, 0, "corpus.jsonl", counting=Counting(chunk=128), followed_by=named)
    return folder


@pytest.fixture(scope="module")
def engine(cache: Path) -> Engine:
    return open_engine(cache, device="cpu")


def question(engine: Engine, fact: str, prompt: str = PROMPT) -> Example:
    """A question that the model answers rightly, whatever it says."""
    return Example(({"role": "user", "content": prompt},), engine.answered(prompt, None, 40).text, {"fact": fact})


def test_a_question_counts_where_the_model_says_it_and_a_passage_states_it(engine: Engine) -> None:
    asked = question(engine, "sun")
    wrong = Example(asked.messages, "It is the lamp.", {"fact": "sun"})
    found = known_facts(engine, [wrong, asked, question(engine, "unstated")], "fact", lambda *told: None)
    assert [one.stating.tolist() for one in found] == [[True, False, True, False]]
    with pytest.raises(DataError, match="answer of none of 1 questions about facts"):
        known_facts(engine, [wrong], "fact", lambda *told: None)
    with pytest.raises(DataError, match="Question 1 names no fact in its column other"):
        known_facts(engine, [asked], "other", lambda *told: None)


@pytest.mark.parametrize(
    ("text", "expected", "found"),
    [
        ("It was founded in 1830, in Oslo.", "Oslo", True),
        ("He is Ada LOVE-lace.", "ada love lace", True),
        ("Osloers live there.", "Oslo", False),
        ("Anything", "", False),
        ("?!", "!", False),
    ],
)
def test_an_answer_says_what_has_its_words(text: str, expected: str, found: bool) -> None:
    assert says(text, expected) == found


def test_a_row_may_name_several_facts_or_none() -> None:
    assert facts_of({"fact": ["a", 2]}, "fact") == {"a", "2"}
    assert facts_of({"fact": ""}, "fact") == facts_of({}, "fact") == set()


def test_figures_are_reciprocal_ranks_and_recall(engine: Engine) -> None:
    known = known_facts(engine, [question(engine, "sun"), question(engine, "moon")], "fact", lambda *told: None)
    names = ["bm25", "stage-product", "repsim", "multi-stage", "single-stage"]
    methods = [open_method(engine, name, rows=2) for name in names]
    found = judge_facts(known, methods, lambda *told: None)
    for method in methods:
        ranks = []
        for one in known:
            order = list(np.argsort(-method.scores(one.answer, None), kind="stable"))
            ranks.append(1 + min(order.index(row) for row in np.flatnonzero(one.stating)))
        figures = found[method.chosen.name]
        assert figures["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
        assert figures["low"] <= figures["mrr"] <= figures["high"] and figures["recall_10"] == 1.0


def test_of_a_method_with_several_dampings_the_best_is_kept() -> None:
    figures = {"multi-stage": {"mrr": 0.2}, "multi-stage:0.01": {"mrr": 0.5}, "stage-product": {"mrr": 0.3}}
    assert nested(Table.of(figures)) == {
        "methods": {"multi_stage": {"mrr": 0.5, "value": "0.01"}, "product": {"mrr": 0.3}}
    }


def test_the_command_asks_keeps_and_prints_what_it_kept(
    cache: Path, engine: Engine, tmp_path: Path, capsys: Captured
) -> None:
    questions = tmp_path / "questions.jsonl"
    asked = question(engine, "sun")
    questions.write_text(json.dumps({"prompt": PROMPT, "response": asked.response, "fact": "sun"}) + "\n")
    command = ["evaluate", "fact-tracing", "--cache", cache, "--device", "cpu"]
    assert "needs --questions" in refused(capsys, *command)
    named = [*command, "--questions", questions, "--methods", "stage-product,bm25"]
    assert reported(capsys, *named, "--estimate")[0] == "1 questions, answered first; for each, and once:"
    answered(capsys, *named)
    kept = json.loads(answered(capsys, *command, "--kept", "--json"))
    assert set(kept["methods"]) == {"product", "bm25"}
    assert {"mrr", "recall_10", "low", "high"} <= set(kept["methods"]["bm25"])
