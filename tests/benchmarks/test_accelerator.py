"""The benchmark for GPUs runs on any device with tiny shapes, and a part that fails costs the others nothing."""

import json
import time
from typing import Any

import pytest

from benchmarks import accelerator
from benchmarks.accelerator import TINY, Clock, measure


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return json.loads(json.dumps(measure(["tiny"], TINY, "cpu", 4, Clock(60))))


def test_every_part_has_its_figures(found: dict[str, Any]) -> None:
    model = found["models"]["tiny bfloat16"]
    for part, names in (
        (model, ("parameters", "trainable", "made_s")),
        (model["caching"], ("bare_s", "caching_s", "passes_s", "ratio", "batch", "table_s", "sketch_s")),
        (model["tokens"], ("forward_s", "exact_s", "backward_s", "cached_token_s", "ratio", "cached_over_backward")),
        (found["retrieval"], ("read_s", "one_s", "many_s", "read_gbps", "one_gbps", "own_one_s", "own_many_s")),
    ):
        assert "error" not in part or isinstance(part["error"], float)
        assert all(part[name] > 0 for name in names)
    assert model["trainable"] < model["parameters"]
    assert {"peak_bytes", "bare_peak_bytes"} <= model["caching"].keys()


def test_the_values_agree(found: dict[str, Any]) -> None:
    agreement = dict(found["agreement"])
    assert agreement.pop("part_s") > 0
    single = {name for name in agreement if not name.startswith("bfloat16_")}
    assert {"sketches_batch_1", "sketches_batch_4", "token_sketches", "exact", "shares"} <= single
    assert all(0 <= agreement[name] < 1e-5 for name in single)
    assert all(0 < agreement[name] < 0.05 for name in agreement.keys() - single)
    assert found["models"]["tiny bfloat16"]["tokens"]["max_rel_error"] < 0.05
    assert found["retrieval"]["error"] < 0.01


def test_a_part_that_fails_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise RuntimeError("no such luck")

    for name in ("agreement", "caching", "random_model"):
        monkeypatch.setattr(accelerator, name, broken)
    found = measure(["tiny"], TINY, "cpu", 4, Clock(60))
    assert found["agreement"]["error"] == "RuntimeError: no such luck"
    assert "no such luck" in found["models"]["tiny bfloat16"]["error"]
    assert found["retrieval"]["read_s"] > 0


def test_a_part_is_stopped_at_twice_its_time_and_none_is_begun_after_the_end() -> None:
    def slow() -> dict[str, Any]:
        time.sleep(5)
        return {}

    clock = Clock(0.05, total=0.2)
    assert "TimeoutError" in clock.part("long", slow)["error"]
    time.sleep(0.2)
    assert clock.part("late", lambda: {"done": 1}) == {"error": "left out: time is up"}


def test_a_measurement_that_takes_its_time_ends_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(60)
    clock.until = 0.0
    model = accelerator.random_model(accelerator.SHAPES["tiny"], "cpu", "float32", 2)
    assert accelerator.caching(accelerator.Bench(model, TINY), clock)["runs"] == 1
