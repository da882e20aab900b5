"""The Explore page in its states: empty, loaded, failing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.conftest import component, settled
from tests.conftest import Tiny

Start = Callable[..., AppTest]


def ask(at: AppTest, prompt: str) -> AppTest:
    at.text_input(key="prompt").set_value(prompt)
    return next(button for button in at.button if button.label == "Ask").click().run()


def answered(at: AppTest) -> AppTest:
    return settled(at, lambda page: (component(page, "example_cards") or {}).get("pending") is False)


def test_the_empty_page_says_what_to_do(start: Start) -> None:
    at = start()
    assert not at.exception
    assert "Ask the model something" in at.info[0].value
    assert component(at, "answer_strip") is None


def test_an_answer_brings_exact_cards_whose_tokens_average_to_their_score(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    cards = component(at, "example_cards")
    assert cards and len(cards["cards"]) == 7
    for card in cards["cards"]:
        assert card["exact"] and card["agrees"], card
        assert sum(card["values"]) / len(card["values"]) == pytest.approx(card["score"], rel=1e-3)
    scores = [card["score"] for card in cards["cards"]]
    assert scores == sorted(scores, reverse=True)


def test_a_selection_asks_about_these_tokens_and_the_page_says_so(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    strip = component(at, "answer_strip")
    assert strip is not None
    whole = component(at, "example_cards")
    at.session_state["selection"] = (1, 3)
    at = answered(at.run())
    part = component(at, "example_cards")
    assert whole and part and part["view_id"] != whole["view_id"]
    assert any("selected span" in caption.value for caption in at.caption)
    assert component(at, "answer_strip")["selection"] == [1, 3]  # type: ignore[index]


def test_opponents_come_most_negative_first(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    at.session_state["direction"] = "Opponents"
    cards = component(answered(at.run()), "example_cards")
    assert cards is not None
    scores = [card["score"] for card in cards["cards"]]
    assert scores == sorted(scores)


def test_the_source_filter_ranks_among_those_sources_only(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    at.multiselect(key="sources").set_value(["sky"])
    cards = component(answered(at.run()), "example_cards")
    assert cards is not None
    assert {card["source"] for card in cards["cards"]} == {"sky"}


def test_an_empty_prompt_is_refused_with_the_way_out(start: Start) -> None:
    at = ask(start(), "   ")
    assert any("type a question first" in text.value for text in at.text)


def test_a_prompt_beyond_the_context_is_refused_in_one_sentence(start: Start) -> None:
    at = ask(start(), "word " * 400)
    at = settled(at, lambda page: bool(page.error))
    assert any("shorten it" in text.value for text in at.text)


def test_a_missing_cache_is_an_explanation_not_a_traceback(start: Start, tmp_path: Path) -> None:
    at = start(cache=str(tmp_path / "nothing"))
    assert not at.exception
    assert any("precompute" in text.value for text in at.text)


def test_a_cache_of_another_model_is_refused(start: Start, tiny: Tiny) -> None:
    at = start(template="alpaca")
    assert any("another template" in text.value for text in at.text)


def test_markup_in_a_prompt_stays_text(start: Start) -> None:
    at = answered(ask(start(), "<script>alert(1)</script> **bold** $x$"))
    assert not at.exception
    assert not any("alert(1)" in element.value for element in at.markdown)
