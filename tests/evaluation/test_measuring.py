"""What is measured of a cache: its sketches beside exact scores, and times."""

import math

import numpy as np
import pytest

from explorer.engine import Engine
from explorer.evaluation.measuring import Measured, duration, measure, spread, total
from explorer.model.generation import GenerationSettings
from tests.asking import asking


def test_places_lie_at_even_distances_and_are_all_where_there_are_few() -> None:
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 20) == [0, 1, 2] and spread(0, 3) == []


def test_sketched_scores_stand_beside_the_exact_ones_of_the_same_examples(tiny_engine: Engine) -> None:
    *_, found = measure(asking(tiny_engine))
    assert found.compared == total(7) == 14 and [len(side) for side in found.sketched] == [7, 7]
    *_, answer = tiny_engine.answer(tiny_engine.store.examples[1].prompt, GenerationSettings(24))
    asking(tiny_engine).ask(answer, None)
    scores = asking(tiny_engine).ranking(answer, None).scores
    assert sorted(found.sketched[0], reverse=True) == found.sketched[0] == pytest.approx(sorted(scores, reverse=True))
    exact = [asking(tiny_engine).refine(answer, None, row).score for row in np.argsort(-scores)]
    assert found.exact[0] == pytest.approx(exact)
    # A sketch of 4,096 numbers can't be far off, nor free of noise.
    assert 0.9 < found.correlation < 1 and 0.2 < found.noise < 3
    assert len(found.exact_s) == 14 and len(found.gradient_s) == 2 and min(found.exact_s) > 0


def test_times_are_said_in_three_digits() -> None:
    assert [duration(seconds) for seconds in (0.0211, 0.9994, 0.9996, 1.16)] == ["21.1 ms", "999 ms", "1 s", "1.16 s"]


def test_errors_count_in_units_of_the_noise_that_was_foretold() -> None:
    found = Measured([[1.0, 2.0, 3.0]], [[1.5, 1.5, 3.5]], [0.25])
    assert found.noise == pytest.approx(2)
    assert math.isnan(Measured().noise) and math.isnan(Measured().correlation)


def test_a_prompt_that_cannot_be_answered_is_left_out(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tiny_engine.answer

    def answer(prompt: str, settings: GenerationSettings) -> object:
        return usual("" if prompt == tiny_engine.store.examples[1].prompt else prompt, settings)

    monkeypatch.setattr(tiny_engine, "answer", answer)
    *_, found = measure(asking(tiny_engine))
    assert found.compared == 7
