"""The pages over a cache that is still being made."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.session import growing, resources
from explorer.app.widgets import places
from explorer.cache import open_cache, so_far
from explorer.cache.files import only_writer
from explorer.engine import Engine
from explorer.errors import MethodError
from explorer.history import History
from explorer.history.export import answer_json
from explorer.methods.attributor import Attributor
from explorer.methods.description import described
from explorer.methods.opening import open_method
from tests.app.conftest import component
from tests.app.test_explore import answered, ask, press
from tests.conftest import Tiny
from tests.growing import begun, finish

Start = Callable[..., AppTest]
AMONG = "Ranked among the first 4 of 7 training examples"


@pytest.fixture
def cache(tiny: Tiny, tmp_path: Path) -> Path:
    """Four of seven rows are read."""
    return begun(tiny.cache, f"growing {tmp_path.name}")


@pytest.fixture
def written(cache: Path) -> Iterator[None]:
    """A command is at it."""
    with only_writer(cache):
        yield


def said(at: AppTest) -> str:
    return " ".join(text.value for text in (*at.text, *at.caption, *at.warning, *at.error))


def rows(at: AppTest) -> list[int]:
    cards = component(at, "example_cards")
    assert cards is not None
    return sorted(card["row"] for card in cards["cards"])


def sentence(at: AppTest) -> Any:
    box = component(at, "verdict_box")
    assert box is not None
    return box["sentence"]


def test_scores_of_what_is_read_are_those_of_the_finished_cache(tiny_engine: Engine, cache: Path) -> None:
    """Score for score, and so are exact values."""
    part = Engine(tiny_engine.model, so_far(open_cache(cache)))
    answer = part.given_answer("What is bright?", "The sun.")
    asked, whole = (Attributor(open_method(each, "rapidin")) for each in (part, tiny_engine))
    few, all_of_them = asked.exact_ranking(answer, None), whole.exact_ranking(answer, None)
    assert few.scores.shape == (4,) and np.array_equal(few.scores, all_of_them.scores[:4])
    exact = {found.row: found.score for found in all_of_them.influences}
    assert {found.row: found.score for found in few.influences} == {row: exact[row] for row in range(4)}


def test_what_was_found_before_the_cache_grew_stays_known(tiny_engine: Engine, cache: Path) -> None:
    part = so_far(open_cache(cache))
    before = Engine(tiny_engine.model, part)
    answer = before.given_answer("What is bright?", "The sun.")
    before.ask(answer, None)
    finish(cache)
    after = before.over(so_far(open_cache(cache), part))
    assert after.known(answer, None) and after.store.manifest.rows == 7 and before.store.manifest.rows == 4
    whole = Attributor(open_method(tiny_engine, "rapidin"))
    whole.ask(answer, None)
    now, then = (each.scores(answer, None) for each in (Attributor(open_method(after, "rapidin")), whole))
    assert now is not None and then is not None and np.array_equal(now, then)


def test_an_answer_says_first_among_how_many_rows_it_is_ranked(start: Start, cache: Path, written: None) -> None:
    at = answered(ask(start(str(cache)), "What is bright?"))
    assert not at.exception
    assert f"{AMONG}; the rest are still being read." in said(at)
    assert "4 of 7 rows read" in said(at)
    assert sentence(at).startswith(f"{AMONG}. How strong this evidence is isn't known yet")
    assert component(at, "verdict_box")["state"] == ""  # type: ignore[index]
    assert rows(at) == [0, 1, 2, 3]


def test_more_rows_are_taken_up_without_a_restart(start: Start, cache: Path, tmp_path: Path) -> None:
    with only_writer(cache):
        at = answered(ask(start(str(cache)), "What is bright?"))
        finish(cache)
        at = answered(at.run())
        assert rows(at) == [0, 1, 2, 3], "what is on the page stays as it is"
    at = answered(press(at.run(), "Use 3 more"))
    assert rows(at) == [0, 1, 2, 3, 4, 5, 6] and AMONG not in said(at) and AMONG not in sentence(at)
    # Each saved answer keeps among how many rows it was ranked.
    history = History(tmp_path / "history.sqlite", described)
    kept = [history.answer(entry.id) for entry in history.find()[0]]
    assert sorted((each.origin.rows, each.origin.unread_rows) for each in kept) == [(4, 3), (7, 0)]
    (part,) = (each for each in kept if each.origin.unread_rows)
    assert part.origin.ranked_among == f"{AMONG}."
    assert answer_json(part)["origin"]["unread_rows"] == 3
    at.query_params["saved"] = part.id
    assert f"{AMONG}." in said(at.switch_page(places.HISTORY).run())


def test_the_next_question_uses_what_is_there_by_then(start: Start, cache: Path) -> None:
    at = answered(ask(start(str(cache)), "What is bright?"))
    assert f"{AMONG}; nothing reads the rest now." in said(at)
    finish(cache)
    at = answered(ask(at, "What is wet?"))
    assert rows(at) == [0, 1, 2, 3, 4, 5, 6] and not at.exception


def test_the_other_pages_say_how_much_they_know_of(start: Start, cache: Path) -> None:
    at = start(str(cache)).switch_page(places.DATA).run()
    assert "4 of 4 training examples that are read so far, of 7." in said(at) and not at.exception
    at = at.switch_page(places.CACHE).run()
    assert "Unfinished: the first 4 of 7 training examples are looked at." in said(at) and not at.exception
    at = at.switch_page(places.AUDIT).run()
    assert resources.NEEDS_ALL in said(at) and not at.exception
    at = at.switch_page(places.METHODS).run()
    assert not at.exception


def test_a_method_that_needs_all_rows_is_refused_by_name(tiny_engine: Engine, cache: Path) -> None:
    part = Engine(tiny_engine.model, so_far(open_cache(cache)))
    with pytest.raises(MethodError, match=r"trak needs all training examples, and 4 of 7 are read so far"):
        open_method(part, "trak")


def test_older_parts_are_forgotten_and_who_looked_at_them_gets_the_newest(cache: Path) -> None:
    parts = growing.Parts(str(cache))
    first = parts.now()
    assert parts.outdated() == [] and parts.of(first) is parts.newest
    finish(cache)
    assert parts.now() != first and parts.of(first) is not None
