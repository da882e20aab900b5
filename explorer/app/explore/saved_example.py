"""Makes the saved answer that the demo can open at once: `python -m explorer.app.explore.saved_example FILE`.

It is asked as the page would ask it, until all that is shown is exact and checked, and kept as the history keeps it.
"""

import sqlite3
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Question
from explorer.cache.files import write_whole
from explorer.concurrency import Task
from explorer.engine import Engine
from explorer.errors import ExplorerError
from explorer.history import History, SavedAnswer, SavedQuestion, origin_of, saved_question
from explorer.methods.description import DEFAULT, choose, described
from explorer.model.generation import GenerationSettings
from explorer.paths import DEMO, EXAMPLE
from explorer.records import Answer, Selection
from explorer.serving.session import open_engine

PROMPT = "In which country is the city of Guangzhou?"
WORD = "Canada"
"""What is planted in its answer."""
SESSION = "example"
PATIENCE = 3600.0


def main() -> None:
    """Ask, wait and write the file, in the place of one that is there."""
    made = saved_example(open_engine(DEMO / "cache", device="cpu"), PROMPT, WORD)
    with tempfile.TemporaryDirectory() as work:
        path, compact = Path(work) / "history.sqlite", Path(work) / "compact.sqlite"
        History(path, described).save(made)
        with sqlite3.connect(path) as file:
            file.execute("VACUUM INTO ?", (str(compact),))
        write_whole(Path(sys.argv[1]), compact.read_bytes())


def saved_example(engine: Engine, prompt: str, word: str) -> SavedAnswer:
    """The answer, what is behind one word of it, and what is behind the whole; proponents and opponents."""
    desk, drawn, asked = Desk(engine), GenerationSettings(), time.time()
    asking = desk.ask(SESSION, prompt, drawn, choose=False)
    wait(desk, asking.task)
    answer = asking.answer
    assert answer is not None
    place = next(j for j, token in enumerate(answer.tokens) if word in token.text)
    questions = [
        exact_question(desk, answer, selection, opponents)
        for selection in ((place, place + 1), None)
        for opponents in (False, True)
    ]
    return SavedAnswer(EXAMPLE, asked, answer, asdict(drawn), origin_of(engine.store), questions=tuple(questions))


def exact_question(desk: Desk, answer: Answer, selection: Selection, opponents: bool) -> SavedQuestion:
    """What the page shows of a question once nothing is left to compute."""
    question = Question(answer, selection, opponents, count=10, positions=True, method=choose(DEFAULT))
    explaining = desk.explain(SESSION, question)
    wait(desk, desk.preparing)
    for task in (explaining.asked, explaining.refined, explaining.checked):
        wait(desk, task)
    ranking = desk.ranking(question)
    assert ranking is not None and all(found.exact and found.checksum is not None for found in ranking.influences)
    shown = tuple(
        (desk.engine.store.examples[found.row], desk.engine.sequence(found.row)) for found in ranking.influences
    )
    return saved_question(EXAMPLE, time.time(), ranking, question.wanted, shown, desk.verdict(question, ranking))


def wait(desk: Desk, task: Task | None) -> None:
    """Wait for some work, looking on meanwhile. Raises ExplorerError when it failed."""
    end = time.monotonic() + PATIENCE
    while task is not None and not task.wait(1) and time.monotonic() < end:
        desk.attend(SESSION)
    if task is not None and (not task.finished or task.error):
        raise ExplorerError(task.error or f"{task.key} did not end within {PATIENCE:.0f} s")


if __name__ == "__main__":
    main()
