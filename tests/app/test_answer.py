"""The answer's column: colours, alternatives, the matrix of one example."""

import json
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.explore import instead
from explorer.app.session import resources
from explorer.app.widgets import charts
from explorer.engine import Engine
from explorer.methods import matrix
from explorer.model.generation import GenerationSettings
from explorer.model.loading import load_model
from explorer.records import Candidate, Contrast, Prediction, Token
from precompute.build import build_cache
from precompute.data import read_examples
from tests.app.conftest import component, field_of, settled
from tests.app.test_explore import answered, ask, press, whole
from tests.conftest import TINY_SETTINGS, Tiny

Start = Callable[..., AppTest]


def strip(at: AppTest) -> dict[str, Any]:
    found = component(at, "answer_strip")
    assert found is not None
    return found


def coloured(at: AppTest, by: str) -> AppTest:
    field_of(at.button_group, "answer_colours_field").set_value(by)
    return settled(at.run(), lambda page: not strip(page)["pending"])


def captions(at: AppTest) -> str:
    return "\n".join(caption.value for caption in at.caption)


def test_an_answer_begins_without_colours(start: Start) -> None:
    at = whole(ask(start(), "What is bright?"))
    assert strip(at)["colouring"] is None and strip(at)["choices"] is None
    assert strip(at)["choices_note"] == ""


def test_colours_tell_what_fine_tuning_changed_and_what_it_did_not(start: Start) -> None:
    at = coloured(answered(ask(start(), "What is bright?")), "Fine-tuning")
    colours, answer = strip(at)["colouring"], at.session_state["asking"].answer
    change = resources.desk().engine.predict(answer).change
    assert change is not None and colours["unit"] == "nats" and colours["faint"] == 0.1
    assert colours["values"] == pytest.approx(change.tolist(), rel=1e-4)
    assert "hardly changed, so this data can’t explain it" in captions(at)


def test_colours_tell_the_model_s_own_probability(start: Start) -> None:
    at = coloured(answered(ask(start(), "What is bright?")), "Probability")
    colours = strip(at)["colouring"]
    assert colours["unit"] == "probability" and not colours["signed"]
    assert all(0 < value <= 1 for value in colours["values"])


def test_one_example_s_influence_on_the_answer_averages_to_its_score(start: Start) -> None:
    at = coloured(whole(ask(start(), "What is bright?")), "One example")
    assert strip(at)["colouring"] is None and "on the card of a training example" in captions(at)
    cards = component(at, "example_cards")
    assert cards is not None and cards["marked"] == ""
    card = cards["cards"][2]
    at.session_state["example"] = int(card["key"].removeprefix("row-"))
    at = settled(at.run(), lambda page: not strip(page)["pending"])
    values = strip(at)["colouring"]["values"]
    assert sum(values) / len(values) == pytest.approx(card["score"], rel=1e-3)
    assert "Check failed" not in captions(at)
    working = at.session_state["work:coloured"][1]
    working.found = replace(working.found, score=working.found.score + 1)
    assert "Check failed: the tokens' mean is" in captions(at.run())
    assert component(at, "example_cards")["marked"] == card["key"]  # type: ignore[index]
    at = settled(press(at, "Ask"), lambda page: strip(page)["answer_id"] != "streaming")
    assert strip(at)["colouring"] is None, "nothing is chosen on a new answer"


def test_without_a_base_its_change_is_not_offered(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    model = load_model(str(tiny.model), None, device="cpu")
    build_cache(model, read_examples(tiny.data)[:2], tmp_path / "all", TINY_SETTINGS, tokens=0, data_name="train.jsonl")
    at = answered(ask(start(cache=str(tmp_path / "all")), "What is bright?"))
    assert "Fine-tuning" not in field_of(at.button_group, "answer_colours_field").options
    assert "no base model" in captions(at)
    assert strip(coloured(at, "Probability"))["colouring"]["values"]


# Compare with another word


def selected(at: AppTest, start: int, stop: int) -> AppTest:
    at.session_state["selection"] = (start, stop)
    return settled(at.run(), lambda page: not strip(page)["pending"])


def test_a_selected_token_shows_what_the_model_might_have_said(start: Start) -> None:
    at = selected(answered(ask(start(), "What is bright?")), 1, 2)
    choices = strip(at)["choices"]
    assert [choice["said"] for choice in choices] == [True, False, False]
    assert not any(choice["chosen"] for choice in choices)
    assert sum(str(button.key).startswith("instead_") for button in at.button) == 2, "the others wait behind a button"
    probabilities = [choice["probability"] for choice in choices]
    assert probabilities == sorted(probabilities, reverse=True)
    words = [tuple(word) for word in strip(at)["words"]]
    count = len(strip(at)["tokens"])
    span = next((start, start + 2) for start in range(count - 1) if (start, start + 2) not in words)
    assert strip(selected(at, *span))["choices"] is None


def test_a_word_is_not_offered_beside_itself(tiny_engine: Engine) -> None:
    *_, answer = tiny_engine.answer("What is bright?", GenerationSettings(max_tokens=2))
    said = int(answer.encoded.ids[answer.encoded.response_start])
    answer = replace(answer, tokens=(Token(" Canada"), *answer.tokens[1:]))
    texts = (" Canada", " China", "Canada", "china", "\n", " ")
    found = tuple(Candidate(said + place, Token(text), 0.1) for place, text in enumerate(texts))
    shown, others = instead.candidates(answer, Prediction(np.zeros(1, np.float32), None, (found,)), 0)
    assert shown == [found[0]]
    assert [each.token.text for each in others] == [" China", "\n", " "]


def test_a_typed_word_asks_why_this_and_not_that(start: Start) -> None:
    at = selected(answered(ask(start(), "What is bright?")), 1, 2)
    usual = component(answered(at), "example_cards")
    at.text_input(key="instead_word").set_value("**moon**")
    at = settled(press(at, "Compare with this"), lambda page: isinstance(page.session_state["selection"], Contrast))
    at = answered(at)
    found = component(at, "example_cards")
    assert usual and found and found["view_id"] != usual["view_id"]
    assert all(card["exact"] and card["agrees"] for card in found["cards"])
    assert [card["score"] for card in found["cards"]] != [card["score"] for card in usual["cards"]]
    said = component(at, "verdict_box")
    assert said is not None and "and not “**moon**”" in said["asked"]
    assert not any("moon" in element.value for element in [*at.markdown, *at.caption]), "typed text is no Markdown"
    assert "favoured what was said" in captions(at) and strip(at)["selection"] == [1, 2]


def test_a_word_that_says_nothing_is_refused_and_the_question_stays(start: Start) -> None:
    at = selected(answered(ask(start(), "What is bright?")), 1, 2)
    at.text_input(key="instead_word").set_value("  ")
    at = settled(press(at, "Compare with this"), lambda page: bool(page.error))
    assert any("type what might have stood there" in text.value for text in at.text)
    assert at.session_state["selection"] == (1, 2)


# The matrix


def opened(at: AppTest, row: int) -> AppTest:
    answer = at.session_state["asking"].answer
    at.session_state["matrix"] = (answer.id, at.session_state["selection"], row)
    return settled(at.run(), lambda page: bool(page.get("plotly_chart")))


def test_the_matrix_comes_to_the_score_of_its_card(start: Start) -> None:
    at = whole(ask(start(), "What is bright?"))
    cards = component(at, "example_cards")
    assert cards is not None
    row = int(cards["cards"][0]["key"].removeprefix("row-"))
    at = opened(at, row)
    assert not at.exception
    assert f"{cards['cards'][0]['score']:+.4g}, the example's influence" in captions(at) and "✓" in captions(at)
    drawn = json.loads(at.get("plotly_chart")[0].proto.spec)
    assert len(drawn["data"]) == 4
    at.button_group(key="matrix_columns").set_value("Position")
    at = settled(at.run(), lambda page: "positions of the example" in captions(page))
    assert "sums over positions" in captions(at) and "⚠" not in captions(at)
    at = press(at, "Close")
    assert not at.get("plotly_chart")


def test_a_matrix_that_takes_too_long_is_not_begun(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "MOST_PASSES", 3)
    at = answered(ask(start(), "What is bright?"))
    at.session_state["matrix"] = (at.session_state["asking"].answer.id, None, 0)
    at = at.run()
    assert any("Select at most 3 tokens" in text.value for text in at.text)
    at.session_state["selection"] = (0, 2)
    assert opened(answered(at.run()), 0).get("plotly_chart")


@pytest.mark.parametrize(
    "text", ["<b>x</b>", "a<br>b", "&lt;", "$x^2$", '<a href="javascript:alert(1)">x</a>', "&#60;"]
)
def test_labels_of_the_matrix_hold_nothing_that_plotly_would_read(text: str) -> None:
    plain = charts.plain(text)
    assert not set(plain) & set("<>$\"'") and unescape(plain) == text
