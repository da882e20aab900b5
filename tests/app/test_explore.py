"""The Explore page in its states: empty, loaded, failing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Multiselect, TextArea, TextInput

from explorer.app.desk.work import Asking
from explorer.app.session import resources
from explorer.cache.store import open_cache
from explorer.model.generation import GenerationSettings
from tests.app.conftest import component, settled
from tests.conftest import Tiny, Turnstile
from tests.tiny import ROWS

Start = Callable[..., AppTest]


def ask(at: AppTest, prompt: str) -> AppTest:
    at.text_input(key="prompt").set_value(prompt)
    return press(at, "Ask")


def press(at: AppTest, label: str) -> AppTest:
    return next(button for button in at.button if button.label == label).click().run()


def answered(at: AppTest) -> AppTest:
    return settled(at, lambda page: (component(page, "example_cards") or {}).get("pending") is False)


def whole(at: AppTest) -> AppTest:
    """Ask about the whole response of the answer, as Escape does."""
    at = answered(at)
    at.session_state["selection"] = None
    return answered(at.run())


def test_the_empty_page_says_what_to_do(start: Start) -> None:
    at = start()
    assert not at.exception
    assert any("Ask the model something" in text.value for text in at.text)
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
    said = component(at, "verdict_box")
    assert said is not None and any("the selected tokens, their mean" in line for line in said["sure"])
    assert component(at, "answer_strip")["selection"] == [1, 3]  # type: ignore[index]


def complete(asking: Asking, turnstile: Turnstile) -> None:
    """Let the answer come to its end, and nothing more."""
    while asking.answer is None or not asking.answer.finished:
        turnstile.let_through(1)


def test_a_word_is_selected_by_itself_unless_the_person_was_quicker(start: Start) -> None:
    at = start()
    turnstile = Turnstile(resources.desk().worker)
    at = ask(at, "What is bright?")
    asking = at.session_state["asking"]
    complete(asking, turnstile)
    at.run()
    # The answer is complete, and what fine-tuning raised isn't known yet: nothing is asked before the person's own.
    strip = component(at, "answer_strip")
    assert strip is not None and not strip["streaming"] and strip["pending"] and not asking.settled
    assert component(at, "example_cards") is None
    turnstile.open()
    at = answered(at)
    assert asking.raised is not None
    assert component(at, "answer_strip")["selection"] == list(asking.raised)  # type: ignore[index]
    at = whole(at)
    assert component(at, "answer_strip")["selection"] is None, "what the person selects stays"  # type: ignore[index]

    at = answered(press(at, "Regenerate"))
    assert component(at, "answer_strip")["selection"] == list(asking.raised)  # type: ignore[index]


def test_a_click_before_the_word_is_known_is_never_overridden(start: Start) -> None:
    at = start()
    turnstile = Turnstile(resources.desk().worker)
    at = ask(at, "What is bright?")
    complete(at.session_state["asking"], turnstile)
    at.session_state["selection"], at.session_state["chosen"] = (1, 2), True
    at.run()
    turnstile.open()
    at = answered(at)
    assert at.session_state["asking"].raised is not None
    assert component(at, "answer_strip")["selection"] == [1, 2]  # type: ignore[index]


def test_where_the_chosen_side_got_lost_it_is_the_usual_one(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    before = component(at, "example_cards")
    for key in ("direction", "colours"):
        at.session_state[key] = None
    at = answered(at.run())
    after = component(at, "example_cards")
    assert not at.exception and before and after and after["view_id"] == before["view_id"]


def test_opponents_come_most_negative_first(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    at.session_state["direction"] = "Opponents"
    cards = component(answered(at.run()), "example_cards")
    assert cards is not None
    scores = [card["score"] for card in cards["cards"]]
    assert scores == sorted(scores)


def test_the_source_filter_ranks_among_those_sources_only(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    source_field(at).set_value(["sky"])
    cards = component(answered(at.run()), "example_cards")
    assert cards is not None
    assert {card["source"] for card in cards["cards"]} == {"sky"}


def test_a_text_filters_and_is_cleared_with_one_click(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    text_field(at).set_value("THE  river")
    at = answered(at.run())
    assert sorted(shown_rows(at)) == [2, 5]
    found = component(at, "example_cards")
    assert found is not None and (found["histogram"]["rows"], found["histogram"]["of"]) == (2, 7)
    assert any("“THE  river” in prompt or response. 2 of 7 are left." in text.value for text in at.text)
    text_field(at).set_value("nowhere to be found")
    at = answered(at.run())
    found = component(at, "example_cards")
    assert found is not None and found["cards"] == [] and found["empty"] == "No example passes the filter."
    assert found["histogram"] is None and not at.exception
    at = answered(press(at, "Clear"))
    assert len(shown_rows(at)) == 7 and text_field(at).value == ""


def test_labels_and_text_filter_together(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    source_field(at).set_value(["sky", "talk"])
    text_field(at).set_value("moon")
    at = answered(at.run())
    assert shown_rows(at) == [1]
    at = answered(press(at, "Clear"))
    assert source_field(at).value == [] and len(shown_rows(at)) == 7


def source_field(at: AppTest) -> Multiselect[str]:
    return next(field for field in at.multiselect if field.label == "source")


def text_field(at: AppTest) -> TextInput:
    return next(field for field in at.text_input if field.label == "Text in prompt or response")


def shown_rows(at: AppTest, group: int = 0) -> list[int]:
    """The rows on the cards, in order."""
    found = component(at, "example_cards")
    assert found is not None
    return [card["row"] for card in found["cards"] if card["group"] == group]


def test_both_sides_stand_beside_each_other_and_each_has_more(start: Start) -> None:
    at = whole(ask(start(), "What is bright?"))
    order = shown_rows(at)
    at.button_group(key="direction").set_value("Both")
    at = answered(at.run())
    found = component(at, "example_cards")
    assert found is not None
    assert [(group["title"], group["more"]) for group in found["groups"]] == [("Proponents", True), ("Opponents", True)]
    assert shown_rows(at, 0) == order[:5] and shown_rows(at, 1) == order[::-1][:5]
    assert all(card["exact"] and card["agrees"] for card in found["cards"])
    said = component(at, "verdict_box")
    assert said is not None and "towards and away from the whole response" in said["asked"]
    at.session_state["more"] = {True: 1}
    at = answered(at.run())
    assert shown_rows(at, 0) == order[:5] and shown_rows(at, 1) == order[::-1]
    found = component(at, "example_cards")
    assert found is not None and [group["more"] for group in found["groups"]] == [True, False]


def test_the_histogram_counts_every_example_once(start: Start) -> None:
    found = component(answered(ask(start(), "What is bright?")), "example_cards")
    assert found is not None
    spread = found["histogram"]
    assert sum(spread["counts"]) == spread["rows"] == spread["of"] == 7
    scores = [card["score"] for card in found["cards"]]
    assert (spread["low"], spread["high"]) == (min(scores), max(scores))


def test_near_duplicates_are_listed_on_the_card_that_stands_for_them(start: Start, twins: Path) -> None:
    at = answered(ask(start(cache=str(twins)), ROWS[0]["prompt"]))
    found = component(at, "example_cards")
    assert found is not None and len(found["cards"]) == len(ROWS)
    (card,) = [one for one in found["cards"] if one["duplicates"]]
    family = {0, *range(7, 13)}
    assert {card["row"], *(one["row"] for one in card["duplicates"])} == family
    for one in card["duplicates"]:
        assert one["prompt"] == ROWS[0]["prompt"] and one["response"].startswith(ROWS[0]["response"])
        assert isinstance(one["score"], float)
    assert found["histogram"]["rows"] == 13, "folded ones are counted, too"


def test_an_empty_prompt_is_refused_with_the_way_out(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    before = tokens(at)
    at = ask(at, "   ")
    assert tokens(at) == before, "the answer stays"
    assert any("type a question first" in box.value for box in at.error)


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


# How answers are drawn


def tokens(at: AppTest) -> list[Any]:
    """The tokens of the complete answer as the browser gets them."""
    strip = component(at, "answer_strip")
    assert strip is not None and not strip["streaming"]
    return list(strip["tokens"])


def drawn(at: AppTest, **settings: float) -> list[Any]:
    """The answer that comes with these settings."""
    for key, value in settings.items():
        widgets = at.slider if key in ("temperature", "top_p") else at.number_input
        widgets(key=key).set_value(value)
    return tokens(answered(ask(at, "What is bright?")))


def test_the_same_seed_and_settings_give_the_same_text_and_another_seed_another(start: Start) -> None:
    at = start()
    first = drawn(at, temperature=1.5, seed=3, max_tokens=12)
    assert drawn(at, seed=4) != first
    assert drawn(at, seed=3) == first
    assert drawn(start(), temperature=1.5, seed=3, max_tokens=12) == first


def test_at_temperature_zero_the_seed_has_no_say(start: Start) -> None:
    at = start()
    assert drawn(at, seed=3, max_tokens=8) == drawn(at, seed=4) == drawn(at, temperature=0.0)
    assert not any("Drawn with the seed" in caption.value for caption in at.caption)


def test_a_narrower_choice_gives_another_text(start: Start) -> None:
    at = start()
    wide = drawn(at, temperature=0.5, seed=5, max_tokens=12)
    assert drawn(at, top_p=0.1) != wide
    assert at.session_state["asking"].settings == GenerationSettings(12, temperature=0.5, top_p=0.1, seed=5)


def test_an_answer_is_as_long_as_it_may_be(start: Start) -> None:
    at = start()
    longer, shorter = drawn(at, max_tokens=9), drawn(at, max_tokens=3)
    assert (len(longer), len(shorter)) == (9, 3) and longer[:3] == shorter


def test_regenerating_draws_another_answer_each_time_from_the_next_seed(start: Start) -> None:
    at = start()
    found = [drawn(at, temperature=1.5, seed=3, max_tokens=12)]
    for seed in (4, 5, 6):
        # A closed popover doesn't draw its field anew: the browser goes on sending what was set there.
        at.number_input(key="seed").set_value(3)
        at = answered(press(at, "Regenerate"))
        found.append(tokens(at))
        assert any(f"Drawn with the seed {seed}." in caption.value for caption in at.caption)
    assert at.text_input(key="prompt").value == "What is bright?"
    again = [drawn(at, seed=seed) for seed in (3, 4, 5, 6)]
    assert found == again and len({str(one) for one in found}) == 4


def test_regenerating_goes_on_from_a_seed_that_was_set_anew(start: Start) -> None:
    at = start()
    drawn(at, temperature=1.5, seed=3, max_tokens=12)
    at = answered(press(at, "Regenerate"))
    at.number_input(key="seed").set_value(20)
    at = answered(press(at, "Regenerate"))
    regenerated = tokens(at)
    assert drawn(at, seed=21) == regenerated


def test_regenerating_begins_anew_with_every_prompt(start: Start) -> None:
    at = start()
    drawn(at, temperature=1.5, seed=3, max_tokens=12)
    for _ in range(2):
        at = answered(press(at, "Regenerate"))
    drawn(at)
    assert at.session_state["asking"].settings.seed == 3
    at = answered(press(at, "Regenerate"))
    assert at.session_state["asking"].settings.seed == 4


def test_regenerating_at_temperature_zero_gives_the_same_answer(start: Start) -> None:
    at = start()
    first = drawn(at, max_tokens=8)
    at.session_state["selection"] = (1, 2)
    at = answered(press(answered(at.run()), "Regenerate"))
    assert tokens(at) == first
    assert at.session_state["selection"] == at.session_state["asking"].raised, "as at first"


# An answer that was read far enough, and one from elsewhere


def test_a_stopped_answer_stays_as_it_is_and_has_its_cards(start: Start) -> None:
    at = start()
    at.number_input(key="max_tokens").set_value(12)
    turnstile = Turnstile(resources.desk().worker)
    at = ask(at, "What is bright?")
    turnstile.let_through(3)
    at.run()
    strip = component(at, "answer_strip")
    assert strip is not None and strip["streaming"] and len(strip["tokens"]) == 3
    assert component(at, "example_cards") is None
    assert not any(button.label == "Regenerate" for button in at.button)
    at = press(at, "Stop")
    turnstile.open()
    at = answered(at)
    stopped, cards = tokens(at), component(at, "example_cards")
    # The step at hand made one more.
    assert len(stopped) == 4 and stopped[:3] == strip["tokens"]
    assert cards is not None and len(cards["cards"]) == 7 and all(card["exact"] for card in cards["cards"])
    assert not any(button.label == "Stop" for button in at.button)
    assert len(tokens(answered(press(at, "Regenerate")))) == 12


def answer_field(at: AppTest) -> TextArea:
    """The field in which the answer can be edited."""
    (area,) = [area for area in at.text_area if str(area.key).startswith("edited")]
    return area


def edited(at: AppTest, text: str) -> AppTest:
    """Put a text in the place of the answer."""
    answer_field(at).set_value(text)
    return press(at, "Attribute this text")


def test_an_edited_answer_is_attributed_as_if_the_model_had_said_it(start: Start) -> None:
    at = answered(ask(start(), ROWS[1]["prompt"]))
    before = tokens(at)
    assert answer_field(at).value == at.session_state["asking"].answer.text
    at = whole(edited(at, ROWS[1]["response"]))
    given = tokens(at)
    assert given != before
    # The last one ends the sequence, as in training.
    assert "".join(token for token in given[:-1]) == ROWS[1]["response"] and given[-1][2] is True
    cards = component(at, "example_cards")
    assert cards is not None and cards["cards"][0]["key"] == "row-1", "the row with this very prompt and response"
    assert answer_field(at).value == ROWS[1]["response"], "what was given can be edited further"
    assert tokens(answered(press(at, "Regenerate"))) == before


def test_an_empty_text_is_refused_with_the_way_out_and_the_page_goes_on(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    at = settled(edited(at, "  "), lambda page: bool(page.error))
    assert any("The response is empty; give some text" in text.value for text in at.text)
    at = answered(ask(at, "What is bright?"))
    assert not at.error and tokens(at)


def test_numbers_that_are_not_finite_are_said_where_the_answer_would_be(start: Start, tiny: Tiny) -> None:
    at = answered(ask(start(), "What is bright?"))
    resources._model(str(tiny.cache)).network.get_input_embeddings().weight.data.fill_(float("nan"))
    at = settled(ask(at, "What is dark?"), lambda page: bool(page.error))
    assert any("prediction for token 0 of its answer that isn't a finite number" in text.value for text in at.text)
    assert any("--precision bfloat16 or float32" in text.value for text in at.text) and not at.exception


# What a colour means


def test_positions_cover_prompt_and_response_and_add_up_to_the_score(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    usual = component(at, "example_cards")
    at.button_group(key="colours").set_value("Position")
    at = answered(at.run())
    found = component(at, "example_cards")
    assert usual and found and found["view_id"] != usual["view_id"] and len(found["cards"]) == 7
    assert found["scale"] > 0 and found["scale"] != usual["scale"]
    said = component(at, "verdict_box")
    assert said is not None and any("each position of the example, which add up" in line for line in said["sure"])
    examples = resources.desk().engine.store.examples
    for card, own in zip(found["cards"], usual["cards"], strict=True):
        example = examples[int(card["key"].removeprefix("row-"))]
        assert (card["key"], card["score"]) == (own["key"], own["score"]), "the score stays what it was"
        assert len(card["tokens"]) == len(card["values"]) == len(example.encoded.ids)
        assert card["tokens"][example.encoded.response_start :] == own["tokens"]
        texts = [token if isinstance(token, str) else token[0] for token in card["tokens"]]
        assert example.prompt in "".join(texts) and card["prompt"] == ""
        size = sum(map(abs, card["values"]))
        assert sum(card["values"]) == pytest.approx(card["score"], abs=1e-4 * size)
        assert sum(map(abs, card["values"][: example.encoded.response_start])) > 1e-3 * size
        assert card["adds_up"] and card["agrees"] and card["values_exact"], card
        assert own["prompt"] == example.prompt and not own["adds_up"]


def test_positions_of_a_selection_and_back_to_losses(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    at.session_state["selection"] = (1, 3)
    usual = component(answered(at.run()), "example_cards")
    at.button_group(key="colours").set_value("Position")
    found = component(answered(at.run()), "example_cards")
    assert found is not None and usual is not None
    for card in found["cards"]:
        size = sum(map(abs, card["values"]))
        assert sum(card["values"]) == pytest.approx(card["score"], abs=1e-4 * size)
    at.button_group(key="colours").set_value("Own loss")
    again = component(answered(at.run()), "example_cards")
    assert again is not None
    assert again["cards"] == usual["cards"] and again["view_id"] == usual["view_id"]


def test_a_cache_without_a_null_sample_claims_nothing_of_it(start: Start) -> None:
    cards = component(answered(ask(start(), "What is bright?")), "example_cards")
    assert cards is not None and {card["unusual"] + card["often"] for card in cards["cards"]} == {""}


def test_cards_and_page_say_how_unusual_the_scores_are_where_the_cache_knows(start: Start, tiny: Tiny) -> None:
    cache = tiny.cache.parent / "cache_with_nulls"
    shutil.copytree(tiny.cache, cache, dirs_exist_ok=True)
    scores = np.full((len(ROWS), 39), -1, dtype=np.float32)
    scores[0] = np.arange(39) + 100
    open_cache(cache).add_shard("nulls", {"response": scores, "token": scores}, len(ROWS))
    at = answered(ask(start(cache=str(cache)), "What is bright?"))
    cards = component(at, "example_cards")
    assert cards is not None
    said = {card["key"]: card["unusual"] for card in cards["cards"]}
    assert said.pop("row-0") == "Higher than on none of 39 unrelated prompts"
    assert set(said.values()) == {"Higher than on all 39 unrelated prompts"}
    verdict = component(at, "verdict_box")
    assert verdict is not None and (verdict["state"], verdict["headline"]) == ("none", "No clear source")
    assert cards["folded"] == "Show the closest anyway"
    assert any(line.startswith("The ten examples that stand out most") for line in verdict["sure"])
