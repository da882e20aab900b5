"""Many sessions at once, by threads: each gets its own answers and examples, those it would get alone."""

import random
import threading

import numpy as np

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.engine import Engine
from explorer.model.generation import GenerationSettings
from explorer.records import Answer
from tests.asking import OWN

SESSIONS, QUESTIONS = 8, 2


def settings(session: int, turn: int) -> GenerationSettings:
    heat = 0.0 if session % 3 else 1.0
    return GenerationSettings(
        max_tokens=4 + (session + turn) % 7, temperature=heat, seed=session, base=session % 4 == 0
    )


def prompt(session: int, turn: int) -> str:
    return f"Who is {session}, and why {turn}?"


def test_no_session_is_given_anothers_answer_or_examples(tiny_engine: Engine) -> None:
    desk, alone = Desk(tiny_engine), dict[tuple[int, int], Answer]()
    for session in range(SESSIONS):
        for turn in range(QUESTIONS):
            *_, alone[session, turn] = desk.engine.answer(prompt(session, turn), settings(session, turn))
    found: dict[tuple[int, int], tuple[Answer, int, np.ndarray]] = {}
    problems: list[BaseException] = []

    def visit(session: int) -> None:
        chance, name = random.Random(session), f"session {session}"
        try:
            for turn in range(QUESTIONS):
                asking = desk.ask(name, prompt(session, turn), settings(session, turn))
                assert asking.task.wait(60) and asking.error is None and asking.answer is not None
                answer = asking.answer
                question = Question(answer, (0, 1 + chance.randrange(2)), False, count=3, method=OWN)
                explaining = desk.explain(name, question)
                assert explaining.asked is None or explaining.asked.wait(60)
                ranking = desk.ranking(question)
                assert ranking is not None and explaining.error is None
                found[session, turn] = answer, question.selection[1], ranking.scores  # type: ignore[index]
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=visit, args=(session,)) for session in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.worker.close()
    assert not problems, problems
    assert found.keys() == alone.keys()
    fresh = Desk(Engine(tiny_engine.model, tiny_engine.store))
    for key, (answer, stop, scores) in found.items():
        assert answer.prompt == prompt(*key)
        assert (answer.id, answer.tokens, answer.finished) == (alone[key].id, alone[key].tokens, True)
        fresh.own.ask(answer, (0, stop))
        expected = fresh.own.scores(answer, (0, stop))
        assert expected is not None
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
    fresh.worker.close()
