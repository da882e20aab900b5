"""The pages of the training data and of the cache."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.cache.store import open_cache
from explorer.history.history import History
from explorer.history.saved import Annotation
from explorer.methods.description import described
from tests.app.conftest import component, settled, table
from tests.app.test_explore import answered, ask, press
from tests.conftest import Tiny, Turnstile
from tests.tiny import ROWS

Start = Callable[..., AppTest]


def data_page(at: AppTest, row: int | None = None) -> AppTest:
    if row is not None:
        at.query_params["row"] = str(row)
    return at.switch_page(places.DATA).run()


def test_the_data_page_lists_searches_and_filters_the_rows(start: Start) -> None:
    at = data_page(start())
    assert not at.exception
    assert table(at, "data_rows")["prompt"] == [row["prompt"] for row in ROWS]
    at.text_input(key="data_words").set_value("RIVER water")
    assert table(at.run(), "data_rows")["row"] == ["2", "5"]
    at.text_input(key="data_words").set_value("")
    at.multiselect(key="data_sources").set_value(["sky"])
    assert table(at.run(), "data_rows")["row"] == ["0", "1"]
    at.text_input(key="data_words").set_value("nowhere to be found")
    assert any("No training example" in info.value for info in at.run().info)


@pytest.mark.parametrize(
    ("order", "column"), [("Largest self-influence", "self-influence"), ("Largest training loss", "training loss")]
)
def test_outliers_come_first_and_the_page_says_what_the_number_is(start: Start, order: str, column: str) -> None:
    at = data_page(start())
    at.selectbox(key="data_order").set_value(order)
    shown = list(map(float, table(at.run(), "data_rows")[column]))
    assert len(shown) == len(ROWS) and shown == sorted(shown, reverse=True)
    assert any(column.split("-")[-1] in caption.value for caption in at.caption)


def test_one_row_in_full_has_its_tokens_columns_and_the_questions_it_influenced(start: Start, tmp_path: Path) -> None:
    at = answered(ask(start(), "What is bright?"))
    at = data_page(at, row=6)
    assert not at.exception
    strip = component(at, "data_strip")
    assert strip is not None
    texts = [token if isinstance(token, str) else token[0] for token in strip["tokens"]]
    assert "".join(texts[:-1]) == ROWS[6]["response"] and not strip["streaming"]
    facts = dict(zip(at.dataframe[0].value["what"], at.dataframe[0].value["value"], strict=True))
    assert facts["source"] == "odd" and "of 7 by size" in facts["self-influence"]
    assert table(at, "data_uses_6")["prompt"] == ["What is bright?"], "all seven rows are shown for it"
    assert not any("<b>" in element.value for element in at.markdown)


def test_a_note_on_a_row_is_kept(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    at = data_page(start(), row=1)
    (area,) = at.text_area
    area.set_value("Two answers at once.")
    at = next(button for button in at.button if button.label == "Save the notes").click().run()
    assert not at.exception
    kept = History(tmp_path / "history.sqlite", described).example_annotation(
        open_cache(tiny.cache).manifest.data_sha256, 1
    )
    assert kept == Annotation(note="Two answers at once.")


def test_a_row_that_is_not_there_is_left_alone(start: Start) -> None:
    for row in (7, -1):
        at = data_page(start(), row=row)
        assert not at.exception and component(at, "data_strip") is None


def test_the_cache_page_says_what_it_holds_and_that_it_fits(start: Start, tiny: Tiny) -> None:
    at = start().switch_page(places.CACHE).run()
    assert not at.exception
    facts = dict(zip(at.dataframe[-1].value["what"], at.dataframe[-1].value["value"], strict=True))
    assert facts["examples"] == "7" and facts["data sha256"] == open_cache(tiny.cache).manifest.data_sha256
    fit = at.dataframe[0].value
    assert list(fit["agrees"]) == ["yes"] * 6
    told = [element.value.split(":")[0] for element in [*at.success, *at.info]]
    assert told == ["Complete", "Matches the model", "Undamaged"], "three lines before all tables"


def test_the_cache_page_measures_how_true_and_how_quick_it_is(start: Start) -> None:
    at = start().switch_page(places.CACHE).run()
    assert any("so they are measured here" in text.value for text in at.text)
    press(at, "Measure")
    at = settled(at, lambda page: any("Over 14 scores" in caption.value for caption in page.caption))
    facts = dict(zip(at.dataframe[1].value["what"], at.dataframe[1].value["value"], strict=True))
    found = resources.desk().measure("another")
    assert found.task.wait(60) and found.found is not None
    assert facts["correlation of sketched and exact scores"] == f"{found.found.correlation:.3f}"
    assert facts["one exact score, with its tokens' values"].endswith("s")


def test_a_measurement_can_be_cancelled(start: Start) -> None:
    at = start().switch_page(places.CACHE).run()
    turnstile = Turnstile(resources.desk().worker)
    at = press(at, "Measure")
    at = at.button(key="measuring_cancel").click().run()
    turnstile.open()
    settled(at, lambda page: any("Cancelled after 0 of 14" in text.value for text in page.text))


def test_the_cache_page_names_what_differs(start: Start) -> None:
    at = start(template="alpaca").switch_page(places.CACHE).run()
    fit = dict(zip(at.dataframe[0].value["what"], at.dataframe[0].value["agrees"], strict=True))
    assert [what for what, agrees in fit.items() if agrees == "no"] == ["template"]
    assert any("another template" in element.value for element in at.error)


def test_a_changed_byte_is_found_when_the_cache_is_opened(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    at = start().switch_page(places.CACHE).run()
    at = press(at, "Check every file")
    assert any("Undamaged: every file" in element.value for element in at.success)
    copy = tmp_path / "cache"
    shutil.copytree(tiny.cache, copy)
    file = next((copy / "sketches").iterdir())
    raw = np.fromfile(file, dtype=np.uint8)
    raw[-1] ^= 1
    raw.tofile(file)
    st.cache_resource.clear()
    at = start(cache=str(copy), model=str(tiny.model), adapter=str(tiny.adapter)).switch_page(places.CACHE).run()
    assert any("is damaged" in text.value and "mend" in text.value for text in at.text), "before anything is served"
