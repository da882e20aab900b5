"""How sketches are measured beside exact values, and what methods cost."""

import numpy as np
import pytest

from explorer import gradients
from explorer.engine import Engine
from explorer.evaluation.costs import judge_costs, sizes
from explorer.evaluation.exact import Directions
from explorer.evaluation.fidelity import LENGTHS, agreement, measure
from explorer.methods.opening import open_method


def test_many_directions_at_once_are_multiplied_as_each_by_itself(tiny_engine: Engine) -> None:
    encoded = [example.encoded for example in tiny_engine.store.examples]
    first, second, third = (gradients.gradient(tiny_engine.model, each) for each in encoded[:3])
    expected = [gradients.inner_product(each, third) for each in (first, second)]
    assert Directions([first, second])(third) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["layer", "cosine", "none"])
def test_the_longest_sketch_of_a_tiny_model_is_exact_and_the_shortest_is_not(tiny_engine: Engine, kind: str) -> None:
    rows = [example.encoded for example in tiny_engine.store.examples]
    reports: list[tuple[int, int]] = []
    found = measure(
        tiny_engine.model, rows[:2], rows[2:], kind, lambda *each: reports.append(each), (20,), ("float32",)
    )
    assert [each["k"] for each in found] == list(LENGTHS) and reports[-1] == (5, 5)
    assert found[-1]["pearson"] == pytest.approx(1, abs=1e-6)
    assert found[-1]["spearman"] == pytest.approx(1, abs=1e-6)
    assert float(found[0]["pearson"]) < 0.9999, "1,024 numbers are fewer than the parameters"


def test_agreement_counts_the_true_top_ten_before_and_after_some_are_made_exact() -> None:
    exact = np.arange(100.0)[:, None]
    # As sketched, the best eleven are in reverse, so that the tenth best is only the eleventh.
    sketched = np.arange(100.0)
    sketched[89:] = sketched[89:][::-1]
    found = agreement(sketched[:, None].astype(np.float32), np.ones((1, 1), dtype=np.float32), "float32", exact)
    assert found["overlap"] == pytest.approx(0.9) and found["overlap_reranked"] == 1
    assert 0.9 < found["spearman"] < 1 and found["pearson"] < 1


def test_costs_tell_what_is_read_and_what_is_kept(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What shines?", "The moon and the sun.")
    names = ("rapidin", "gradcos", "repsim", "random")
    found = judge_costs(tiny_engine, [answer], [open_method(tiny_engine, name) for name in names], lambda *each: None)
    sketches = sum(shard.size for shard in tiny_engine.store.shards_of("sketches"))
    assert found["rapidin"]["cached_bytes"] == sketches and found["rapidin"]["own_bytes"] == 0
    rows, length = tiny_engine.store.manifest.rows, tiny_engine.store.manifest.settings.length
    assert found["gradcos"]["cached_bytes"] == 0, "a layer-wise cache can't serve it"
    assert found["gradcos"]["own_bytes"] == rows * (2 * length + 4 + 4)
    assert found["repsim"]["own_bytes"] == rows * 4 * tiny_engine.model.network.config.hidden_size
    assert found["random"]["own_bytes"] == found["random"]["cached_bytes"] == 0
    assert found["rapidin"]["caching_seconds"] and found["random"]["caching_seconds"] is None
    assert all(figures["seconds_a_question"] for figures in found.values())


def test_a_sketch_is_smaller_by_as_much_as_it_is_shorter_and_its_format_narrower() -> None:
    found = sizes(1 << 20, [1 << 10], "int8")
    assert found["gradient, float32"] == {"bytes": 4 << 20, "smaller": 1.0}
    assert found["K = 1,024, int8"]["bytes"] == 1028
    assert found["K = 1,024, int8"]["smaller"] == pytest.approx((4 << 20) / 1028)
