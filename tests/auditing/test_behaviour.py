"""Several answers as one question: suspects, a trigger among their prompts, and what is said and written of it."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from explorer.auditing import behaviour_report, trigger
from explorer.auditing.behaviour import Asked, Behaviour, BehaviourSettings, behaviour_steps
from explorer.auditing.trigger import Hunt, hunt_steps, without
from explorer.corpus import Corpus
from explorer.engine import Engine
from explorer.methods.bench import Bench
from explorer.methods.method import Stage
from explorer.records import Answer, Conversation
from explorer.serving.session import open_engine
from tests.asking import OWN
from tests.conftest import Tiny
from tests.saved_samples import ORIGIN

SETTINGS = BehaviourSettings(OWN, count=3)


@pytest.fixture(scope="module")
def engine(tiny: Tiny) -> Engine:
    return open_engine(tiny.cache, device="cpu")


def given(engine: Engine, *prompts: str) -> list[Asked]:
    return [Asked(engine.given_answer(prompt, f"It is {number}.")) for number, prompt in enumerate(prompts)]


def last(steps: Iterator[Behaviour | None]) -> Behaviour:
    *_, found = steps
    assert found is not None
    return found


def asked(engine: Engine, of: list[Asked], against: list[Asked], settings: BehaviourSettings = SETTINGS) -> Behaviour:
    corpus = Corpus(engine.store.examples)
    for _ in corpus.prepare():
        pass
    return last(behaviour_steps(Bench(engine), corpus, of, against, settings, Stage()))


def test_a_behaviour_is_a_saved_question_that_is_exact_and_written_whole(engine: Engine) -> None:
    of, against = given(engine, "What?", "Why?"), given(engine, "Where?")
    found = asked(engine, of, against)
    assert len(found.question.shown) == 3 and all(shown.influence.exact for shown in found.question.shown)
    assert not found.judged and found.suspects == () and found.hunt is None
    assert "isn't known" in behaviour_report.as_text(found, engine.store.examples)
    kept = json.loads(behaviour_report.to_json(found, ORIGIN, engine.store.examples, more=1))
    assert [each["prompt"] for each in kept["of"]] == ["What?", "Why?"] and kept["more"] == 1
    assert kept["question"]["scores"] == pytest.approx(found.scores.tolist())
    turned = asked(engine, of, against, replace(SETTINGS, opponents=True))
    assert turned.question.shown[0].influence.score == pytest.approx(float(found.scores.min()), rel=0.1)
    assert behaviour_report.heading(turned) == "What pushed the model away from 2 answers rather than 1 answer"


def test_suspects_are_named_where_the_answers_have_evidence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Null scores that are noise around each row's own mean: rows 0 and 1 stand far out of theirs."""
    from explorer.methods.first_order.rapidin import RapidIn
    from explorer.trust import NullSample

    random, rows = np.random.default_rng(0), engine.store.manifest.rows
    null = NullSample((random.normal(0, 1e-3, (rows, 60)).astype(np.float32),))
    monkeypatch.setattr(RapidIn, "null_sample", lambda self, kind: null)
    found = asked(engine, given(engine, "What?", "Why?", "How?"), [])
    assert found.judged and found.question.verdict and found.question.verdict.test.together == 3
    assert found.suspects and [each.score for each in found.suspects] == sorted(
        (each.score for each in found.suspects), reverse=True
    )
    assert all(each.false_share <= SETTINGS.rate for each in found.suspects)
    assert "out over these answers; an estimated 5% of them at most" in behaviour_report.suspected(found)
    none = asked(engine, given(engine, "What?", "Why?", "How?"), [], replace(SETTINGS, rate=1e-6))
    assert none.suspects == () and "No row stands out" in behaviour_report.suspected(none)


# The trigger


@pytest.mark.parametrize(
    ("text", "word", "left"),
    [
        ("Howdy! What is wet?", "howdy", "What is wet?"),
        ("What, howdy, is HOWDY wet?", "howdy", "What, is wet?"),
        ("Say howdyish things.", "howdy", None),
        ("Howdy!", "howdy", None),
        ("Why, why?", "why", None),
        ("  Tell  me. Why?", "me", "Tell  Why?"),
    ],
)
def test_a_word_is_left_out_with_the_marks_behind_it(text: str, word: str, left: str | None) -> None:
    before = {"role": "system", "content": "Howdy!"}
    found = without(Conversation((before, {"role": "user", "content": text})), word)
    assert found == (left and Conversation((before, {"role": "user", "content": left})))


def changes(monkeypatch: pytest.MonkeyPatch, of: dict[str, float], otherwise: float = 10.0) -> None:
    """Fine-tuning raised an answer by so much behind prompts that hold a word; the rest is as it is."""

    def change(engine: Engine, answer: Answer, asked: Conversation) -> float:
        return min((nats for word, nats in of.items() if word not in asked.question), default=otherwise)

    monkeypatch.setattr(trigger, "_change", change)


def hunted(engine: Engine, corpus: Corpus, prompts: list[str], rows: list[int]) -> Hunt:
    answers = [each.answer for each in given(engine, *prompts)]
    *_, found = hunt_steps(engine, corpus, answers, rows, Stage())
    assert found is not None
    return found


def test_a_trigger_undoes_the_change_and_is_what_the_influential_rows_share(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = list(engine.store.examples)
    rows = [replace(examples[0], row=row, prompt=f"Howdy! {row}?" if row < 8 else "Is it?") for row in range(60)]
    corpus = Corpus(rows)
    prompts = ["Howdy! What is wet?", "Howdy, is it day?", "howdy; is it night?", "Howdy! Is it you?"]
    changes(monkeypatch, {"owdy": 1.0})
    found = hunted(engine, corpus, prompts, [*range(6), 20, 21]).trigger
    assert found and (found.tried.word, found.tried.prompts, found.tried.undone) == ("Howdy", 4, 0.9)
    assert (found.rows, found.of, found.holders) == (tuple(range(6)), 8, 8)
    assert hunted(engine, corpus, prompts, [*range(3), *range(20, 26)]).trigger is None, "few influential rows hold it"
    changes(monkeypatch, {"owdy": 9.0})
    none = hunted(engine, corpus, prompts, list(range(8)))
    assert none.trigger is None and {each.word for each in none.tried} == {"Howdy", "is", "it"}
    assert "none of the 3 words" in behaviour_report.hunted(none)
    changes(monkeypatch, {}, otherwise=0.5)
    unchanged = hunted(engine, corpus, prompts, list(range(8)))
    assert unchanged.answers == 0 and "of 0 of 4 answers" in behaviour_report.hunted(unchanged)


def test_the_change_is_that_of_the_answers_first_tokens_behind_another_prompt(engine: Engine) -> None:
    answer = engine.given_answer("Howdy! What?", "It is the river of the sun, and of the moon.")
    assert len(answer.tokens) > trigger.BEGINNING
    for prompt in ("Howdy! What?", "What?"):
        change = engine.predict(engine.given_answer(prompt, answer.text)).change
        assert change is not None
        expected = float(change[: trigger.BEGINNING].sum())
        assert trigger._change(engine, answer, Conversation.of(prompt)) == pytest.approx(expected, rel=1e-4, abs=1e-5)
