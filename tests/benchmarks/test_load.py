"""The benchmark of many browsers: two of them, over a tiny model, for some seconds."""

import json

import pytest

from benchmarks.load import measure
from tests.conftest import Tiny

pytestmark = pytest.mark.long


def test_two_browsers_get_their_own_answers_and_every_figure_is_there(tiny: Tiny) -> None:
    found = json.loads(json.dumps(measure(str(tiny.cache), browsers=2, minutes=0.15)))
    assert found["asked"] >= 2 and found["answered"] == found["asked"]
    assert found["lost"] == found["crossed"] == 0
    assert 0 < found["median_s"] <= found["p95_s"] and found["cached_click_p95_s"] > 0
    assert {"rss_growth", "waits_told"} <= found.keys()
