"""Several answers asked about as one: the score is the mean of the single scores, along one gradient."""

from collections.abc import Iterator

import numpy as np
import pytest

from explorer.engine import Engine
from explorer.errors import PromptError
from explorer.methods.combined import MOST_PARTS, Combined, differing
from explorer.methods.method import Stage
from explorer.records import Part, Selection
from explorer.serving.session import open_engine
from tests.asking import by
from tests.conftest import Tiny

ASKED: list[tuple[str, str, Selection]] = [
    ("What shines?", "It is the sun.", None),
    ("What is wet?", "In the river.", (1, 3)),
    ("Count.", "One, two.", (0, 1)),
    ("Say hello.", "Hello!", None),
]


@pytest.fixture(scope="module")
def shared(tiny: Tiny) -> Engine:
    return open_engine(tiny.cache, device="cpu")


@pytest.fixture(scope="module")
def parts(shared: Engine) -> list[Part]:
    return [Part(shared.given_answer(prompt, said), selection, 1.0) for prompt, said, selection in ASKED]


def run(steps: Iterator[object]) -> None:
    for _ in steps:
        pass


@pytest.mark.parametrize("method", ["rapidin", "gradlayer", "bm25"])
def test_the_score_is_the_mean_of_the_single_scores_less_the_mean_of_the_others(
    shared: Engine, parts: list[Part], method: str
) -> None:
    asked = by(shared, method)
    if method == "bm25":
        parts = [Part(part.answer, None, 1.0) for part in parts]
    combined, stage = Combined(asked, differing(parts[:3], parts[3:])), Stage()
    run(combined.ask_steps(stage))
    single = []
    for part in parts:
        asked.ask(part.answer, part.selection)
        scores = asked.scores(part.answer, part.selection)
        assert scores is not None
        single.append(scores.astype(np.float64))
    size = float(np.abs(single).max())
    assert combined.scores == pytest.approx(np.mean(single[:3], axis=0) - single[3], abs=1e-6 * size)
    rows = combined.candidates(3, opponents=False)
    run(combined.refine_steps(rows, stage))
    ranking = combined.ranking(3, opponents=False)
    assert len(ranking.influences) == 3 and ranking.answer_id == combined.id
    assert [each.score for each in ranking.influences] == sorted((e.score for e in ranking.influences), reverse=True)
    for found in ranking.influences if method != "bm25" else ():
        own = [asked.refine(part.answer, part.selection, found.row).values for part in parts]
        values = np.stack([each for each in own if each is not None]).astype(np.float64)
        expected = values[:3].mean(axis=0) - values[3]
        assert found.exact and found.values is not None
        assert found.values == pytest.approx(expected, abs=1e-6 * float(np.abs(values).max()))
        assert found.score == pytest.approx(float(found.values.mean()), abs=1e-6 * float(np.abs(values).max()))
        assert found.checksum is None or found.checksum < 1e-4


def test_the_scores_are_those_of_the_sum_of_the_normalised_gradients(shared: Engine, parts: list[Part]) -> None:
    combined = Combined(by(shared, "rapidin"), differing(parts[:2], parts[2:]))
    run(combined.ask_steps(Stage()))
    sketch = shared.sketcher(combined._direction)
    stored = np.concatenate([each.astype(np.float32) * scale[:, None] for each, scale in shared.store.sketches()])
    expected = shared.store.manifest.training.scale * (stored @ sketch)
    assert combined.scores == pytest.approx(expected, abs=2e-6 * float(np.abs(expected).max()))


def test_an_answer_counts_once_and_stands_on_one_side(parts: list[Part]) -> None:
    first, second = parts[:2]
    assert [part.weight for part in differing([first, first, second], [parts[2]])] == [0.5, 0.5, -1.0]
    for of, against, said in (
        ([], [first], "No answer was given"),
        ([first], [second, first], "on both sides"),
        ([Part(first.answer, (0, j), 1.0) for j in range(1, MOST_PARTS + 2)], [], "at most 400"),
    ):
        with pytest.raises(PromptError, match=said):
            differing(of, against)
