"""The Methods page: every method with its state, and what evaluations found; agreement on the Explore page."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.saved.results_view import dots, said
from explorer.app.widgets import charts, places
from explorer.cache.store import open_cache
from explorer.evaluation.results import Best, Table, folder_of, made_with, save
from explorer.methods.description import METHODS
from tests.app.test_explore import answered, ask, shown_rows
from tests.app.test_methods import choose
from tests.app.test_methods import said as told

Start = Callable[..., AppTest]

TABLE = Table(
    "",
    ("method", "auPRC_5", "seconds_a_question"),
    (("bm25", 0.5, 0.01), ("rapidin", 0.98, 2.5), ("random", 0.1, None)),
)
HOSTILE = "<img src=x onerror=alert(1)> **b** $x$ [l](javascript:alert(2))"


@pytest.fixture
def judged(fresh: Path) -> Path:
    """A cache with two results, one of them of hostile texts."""
    store = open_cache(fresh)
    best = (Best("the 5 rows at either end", "auPRC_5", ("rapidin",), 0.98),)
    save(
        folder_of(store),
        made_with(
            store,
            "backdoor",
            "rapidin-explorer evaluate backdoor",
            {},
            settings={},
            tables=(TABLE,),
            best=best,
            notes=("A note.",),
        ),
    )
    odd = Table(HOSTILE, (HOSTILE, HOSTILE + "2"), ((HOSTILE, 1.0), (HOSTILE + "!", 0.5)))
    many = tuple(Best(f"{HOSTILE} {number}", HOSTILE, (HOSTILE,), 0.5) for number in range(4))
    result = made_with(store, "<i>odd", HOSTILE, {}, settings={}, tables=(odd,), best=many, notes=(HOSTILE,))
    save(folder_of(store), result)
    return fresh


def methods_page(at: AppTest) -> AppTest:
    return at.switch_page(places.METHODS).run()


def cards(at: AppTest) -> str:
    return "".join(str(each.proto.body) for each in at.get("html") if 'class="method' in each.proto.body)


def test_the_page_tells_of_every_method_and_what_to_do_where_nothing_was_evaluated(start: Start, fresh: Path) -> None:
    at = methods_page(start(cache=str(fresh)))
    assert not at.exception
    shown = cards(at)
    assert all(f"<h5>{name}</h5>" in shown for name in METHODS)
    assert "not with this cache: ekfac-mlp needs trainable weights" in shown and "the explorer" in shown
    assert any("rapidin-explorer evaluate backdoor --cache" in block.value for block in at.code)


def test_results_stand_beside_their_charts_and_hostile_ones_are_text(start: Start, judged: Path) -> None:
    at = methods_page(start(cache=str(judged)))
    assert not at.exception
    assert "Best at the 5 rows at either end: rapidin (auPRC 5 0.98)." in told(at) and "A note." in told(at)
    assert any("Planted backdoor" in box.label for box in at.expander)
    assert len(at.get("plotly_chart")) == 2 and [len(each.value.columns) for each in at.dataframe[1:]] == [3, 4, 2]
    assert [block.value for block in at.code].count("rapidin-explorer evaluate backdoor") == 1
    for markdown in at.markdown:
        assert "<img" not in markdown.value and "<i>" not in markdown.value and "[l](" not in markdown.value
    assert any(HOSTILE in text.value for text in at.text), "shown letter by letter"


def test_one_table_of_all_methods_leads_the_page(start: Start, judged: Path, fresh: Path) -> None:
    at = methods_page(start(cache=str(judged)))
    table = at.dataframe[0].value
    assert set(table["name"]) == set(METHODS) and list(table["name"])[:3] == ["rapidin", "bm25", "random"]
    assert list(table["precision"])[:3] == [0.98, 0.5, 0.1] and list(table["seconds a question"])[:2] == [2.5, 0.01]
    assert list(table["method"])[1] == "BM25, word overlap" and "Precision: area under" in told(at)
    # All else is folded.
    shown = [element.value for element in at.main.children.values() if hasattr(element, "value")]
    assert sum(len(str(text).split()) for text in shown if isinstance(text, str)) < 120


def test_what_is_no_result_is_passed_over_by_name(start: Start, judged: Path) -> None:
    (judged / "methods" / "results" / "odd.json").write_text("{}")
    assert "odd.json can't be read" in told(methods_page(start(cache=str(judged))))


def test_a_dot_stands_for_each_figure_and_chance_is_marked() -> None:
    drawn = json.loads(dots(TABLE, "auPRC_5", dark=False).to_json())
    assert drawn["data"][0]["x"] == [0.1, 0.5, 0.98] and drawn["layout"]["yaxis"]["ticktext"] == [
        "random",
        "bm25",
        "rapidin",
    ]
    assert drawn["layout"]["shapes"][0]["x0"] == 0.1
    times = json.loads(dots(TABLE, "seconds_a_question", dark=True).to_json())
    assert times["layout"]["xaxis"]["type"] == "log" and "shapes" not in times["layout"]
    odd = Table("", ("m", "f"), ((HOSTILE, 1.0), ("b", 0.5)))
    assert charts.plain("<") in json.loads(dots(odd, "f", dark=False).to_json())["layout"]["yaxis"]["ticktext"][1]


def test_what_is_best_is_said_in_words() -> None:
    assert said(Best("it", "a_b", ("x", "y"), 0.5)) == "Best at it: x, y (a b 0.5)."


# Agreement


def test_the_shown_examples_have_their_ranks_by_every_method_that_costs_little(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    assert not at.get("plotly_chart"), "nothing of it is computed before it is asked for"
    at = answered(at.toggle(key="agreement").set_value(True).run())
    table = at.dataframe[0].value
    assert list(table["row"]) == shown_rows(at)
    assert {"rapidin", "random", "bm25"} <= set(table.columns)
    assert table["random"].between(1, 7).all() and sorted(table["random"]) == list(range(1, 8))
    assert len(at.get("plotly_chart")) == 1
    assert "Ranks among 7 examples" in told(at) and "row" in told(at)
    assert "was not asked: ekfac" in told(at).replace("\\", "")


def test_the_others_are_asked_when_that_is_wanted(start: Start) -> None:
    at = answered(choose(answered(ask(start(), "What is bright?")), "bm25"))
    at = answered(at.toggle(key="agreement").set_value(True).run())
    before = set(at.dataframe[0].value.columns)
    at = answered(at.button(key="agreement_ask").click().run())
    table = at.dataframe[0].value
    assert {"datainf", "arnoldi", "ekfac", "cka"} <= set(table.columns) and before < set(table.columns)
    assert not any(button.key == "agreement_ask" for button in at.button)
