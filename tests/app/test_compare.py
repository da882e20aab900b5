"""The Compare page in its states: empty, loaded, failing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.desk.work import Asking
from explorer.app.explore import instead
from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.errors import CacheError
from explorer.history.history import History
from explorer.methods.description import choose, described
from explorer.records import Answer, Contrast
from explorer.views import signed
from tests.app.conftest import component, settled
from tests.app.test_explore import answered, ask, press, source_field, text_field, whole
from tests.conftest import Tiny, Turnstile
from tests.saved_samples import saved_of
from tests.tiny import ROWS, save_tiny_data

Start = Callable[..., AppTest]
PROMPTS = ("What is bright?", "Where do fish live?")


def opened(at: AppTest, kind: str = "Two prompts", **parameters: str) -> AppTest:
    for name, value in parameters.items():
        at.query_params[name] = value
    at = at.switch_page(places.COMPARE).run()
    return at if parameters else at.button_group(key="compare_kind").set_value(kind).run()


def compared(at: AppTest) -> AppTest:
    return settled(at, lambda page: (component(page, "compared_cards") or {}).get("pending") is False)


def two_prompts(at: AppTest, prompts: tuple[str, str] = PROMPTS) -> AppTest:
    at = opened(at)
    for side, prompt in zip("AB", prompts, strict=True):
        at.text_input(key=f"compare_prompt {side}").set_value(prompt)
    return press(at, "Compare")


def one_prompt(at: AppTest, kind: str, **fields: float) -> AppTest:
    at = opened(at, kind)
    at.text_input(key="compare_prompt").set_value(PROMPTS[0])
    for key, value in fields.items():
        at.number_input(key=key.replace("_of_", " ")).set_value(value)
    return press(at, "Compare")


def strip(at: AppTest, side: str) -> dict[str, Any]:
    found = component(at, f"compared_strip {side}")
    assert found is not None
    return found


def cards(at: AppTest) -> list[dict[str, Any]]:
    found = component(at, "compared_cards")
    assert found is not None and not at.exception
    return list(found["cards"])


def said(at: AppTest) -> str:
    return "\n".join(element.value for element in [*at.text, *at.caption, *at.info, *at.markdown])


def test_the_empty_page_says_what_to_do(start: Start) -> None:
    at = opened(start())
    assert not at.exception and "Choose what to compare" in said(at)
    assert component(at, "compared_cards") is None


class Late:
    """An answer on its way that is complete when it is looked at for the second time."""

    def __init__(self, asking: Asking):
        """Of one that is complete."""
        self._asking, self._looks = asking, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asking, name)

    @property
    def answer(self) -> Answer | None:
        """The answer, unfinished at first."""
        self._looks += 1
        answer = self._asking.answer
        return replace(answer, finished=False) if answer and self._looks == 1 else answer


def test_an_answer_that_becomes_complete_while_it_is_drawn_is_looked_at_again(start: Start) -> None:
    at = compared(two_prompts(start()))
    at.session_state["B asking"] = Late(at.session_state["B asking"])
    at.run()
    streaming = strip(at, "B")["streaming"]
    assert streaming or component(at, "compared_cards"), "nothing on the page asks for news"
    assert cards(at.run())


def test_two_prompts_bring_two_answers_and_every_first_example_once(start: Start) -> None:
    at = compared(two_prompts(start()))
    assert strip(at, "A")["answer_id"] != strip(at, "B")["answer_id"]
    groups = component(at, "compared_cards")["groups"]  # type: ignore[index]
    # Of seven examples all seven are among the first ten of either.
    assert [group["title"] for group in groups] == [
        "Behind both answers (7)",
        "Behind A alone (0)",
        "Behind B alone (0)",
    ]
    assert sorted(card["row"] for card in cards(at)) == list(range(7))
    own, (left, right) = resources.desk().own, [at.session_state[f"{side} asking"].answer for side in "AB"]
    assert all(card["values"] for card in cards(at)[:3]), "the first ones are coloured"
    for card in cards(at):
        others = own.ranking(right, None, 7)
        place = [found.row for found in others.influences].index(card["row"])
        assert card["beside"].startswith(f"B: rank {place + 1}, {signed(others.influences[place].score)}")
        assert card["score"] == pytest.approx(own.influences(left, None, [card["row"]])[0].score, rel=1e-4)
    assert "7 of the first 7 are the same" in said(at) and "Spearman" in said(at) and "the sketches'" in said(at)


def test_the_other_side_s_order_can_be_shown(start: Start) -> None:
    at = compared(two_prompts(start()))
    before = {card["row"]: card for card in cards(at)}
    at.button_group(key="compare_by").set_value("B")
    at = compared(at.run())
    assert [card["rank"] for card in cards(at)] == list(range(1, 8))
    for card in cards(at):
        assert before[card["row"]]["beside"].startswith(f"B: rank {card['rank']},") and card["beside"].startswith("A:")


def test_what_was_chosen_and_got_lost_comes_back(start: Start) -> None:
    at = opened(start(), "Two settings")
    at.session_state["compare_kind"] = None
    at = at.run()
    assert not at.exception and at.button_group(key="compare_kind").value == "Two settings"
    at = compared(two_prompts(start()))
    at.button_group(key="compare_by").set_value("B")
    at = compared(at.run())
    before = cards(at)
    at.session_state["compare_by"] = None
    at = compared(at.run())
    assert not at.exception and cards(at) == before


def test_exact_scores_are_exact_on_both_sides(start: Start) -> None:
    at = compared(two_prompts(start()))
    at.toggle(key="compare_exact").set_value(True)
    at = compared(at.run())
    for card in cards(at):
        assert card["exact"] and card["beside"].endswith("exact"), card
        assert sum(card["values"]) / len(card["values"]) == pytest.approx(card["score"], rel=1e-3)
    assert "All 14 scores that decide the order are exact" in said(at)


def test_a_selection_on_one_side_asks_about_it_and_leaves_the_other(start: Start) -> None:
    at = compared(two_prompts(start()))
    before = cards(at)
    at.session_state["A selection"] = (1, 3)
    at = compared(at.run())
    assert strip(at, "A")["selection"] == [1, 3] and strip(at, "B")["selection"] is None
    assert {card["row"]: card["score"] for card in cards(at)} != {card["row"]: card["score"] for card in before}
    by_row = {card["row"]: card["beside"].split(",")[0] for card in before}
    assert all(card["beside"].split(",")[0] == by_row[card["row"]] for card in cards(at)), "B stays what it was"


def test_the_same_prompt_twice_is_the_same_everywhere(start: Start) -> None:
    at = compared(two_prompts(start(), (PROMPTS[0], PROMPTS[0])))
    assert not any(strip(at, "A")["differs"]) and "Both answers are the same" in said(at)
    assert "+1.00" in said(at)


def test_two_seeds_draw_two_answers_whose_differing_tokens_are_marked(start: Start) -> None:
    at = compared(
        one_prompt(
            start(),
            "Two settings",
            compare_heat_of_A=1.5,
            compare_seed_of_A=3,
            compare_heat_of_B=1.5,
            compare_seed_of_B=4,
        )
    )
    for side in "AB":
        assert any(strip(at, side)["differs"]) and len(strip(at, side)["differs"]) == len(strip(at, side)["tokens"])
    assert "seed 3" in said(at) and "seed 4" in said(at)


def test_the_base_model_answers_with_its_adapter_switched_off_and_the_page_says_whose_gradients_these_are(
    start: Start, tmp_path: Path
) -> None:
    at = compared(one_prompt(start(), "Base and fine-tuned"))
    desk = resources.desk()
    base = at.session_state["B asking"].answer
    with desk.engine.model.without_adapter():
        *_, expected = desk.engine.answer(PROMPTS[0])
    assert base.encoded.ids.tolist() == expected.encoded.ids.tolist()
    assert strip(at, "A")["tokens"] != strip(at, "B")["tokens"], "the tiny adapter says something else"
    assert "attributed by that model's gradients" in said(at).replace("*", "")
    drawn = [one.drawn for one in map(History(tmp_path / "history.sqlite", described).answer, kept_ids(tmp_path))]
    assert sorted(bool(each and each["base"]) for each in drawn) == [False, True]


def kept_ids(tmp_path: Path) -> list[str]:
    return [one.id for one in History(tmp_path / "history.sqlite", described).find()[0]]


def test_without_an_adapter_the_base_is_not_offered(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    from explorer.model.loading import load_model
    from precompute.build import build_cache
    from precompute.data import read_examples
    from tests.conftest import TINY_SETTINGS

    data = save_tiny_data(tmp_path / "train.jsonl")
    loaded = load_model(str(tiny.model), None, device="cpu")
    build_cache(loaded, read_examples(data), tmp_path / "whole", TINY_SETTINGS, tokens=0, data_name=data.name)
    at = opened(start(cache=str(tmp_path / "whole")))
    assert "Base and fine-tuned" not in at.button_group(key="compare_kind").options
    assert "all parameters of this model were trained" in said(at)


def test_an_edited_answer_stands_beside_the_generated_one(start: Start) -> None:
    at = one_prompt(start(), "An edited answer")
    at = settled(at, lambda page: len(page.text_area) == 3)
    (area,) = [area for area in at.text_area if (area.key or "").startswith("edited B")]
    assert area.value == at.session_state["A asking"].answer.text
    area.set_value(ROWS[0]["response"])
    at = compared(at.button(key="attribute B").click().run())
    assert "".join(token for token in strip(at, "B")["tokens"][:-1]) == ROWS[0]["response"]
    assert "A given text" in said(at) and len(cards(at)) == 7


def test_saved_answers_are_compared_as_they_were_and_the_link_opens_them_again(start: Start, tmp_path: Path) -> None:
    at = whole(ask(start(), PROMPTS[0]))
    at.session_state["selection"] = (0, 2)
    at = answered(at.run())
    at = whole(ask(at, PROMPTS[1]))
    newest, older = kept_ids(tmp_path)
    at = opened(at, "Saved answers")
    at.selectbox(key="compare_saved A").set_value(older)
    at.selectbox(key="compare_saved B").set_value(newest)
    at = compared(press(at, "Compare"))
    assert "Where do fish live?" in said(at)
    assert len(kept_ids(tmp_path)) == 2, "what is looked at again is not kept twice"
    history = History(tmp_path / "history.sqlite", described)
    spans = {question.selection: question.id for question in history.answer(older).questions}
    at.session_state["A selection"] = at.session_state["B selection"] = None
    before = {card["row"]: card["score"] for card in cards(compared(at.run()))}

    at = compared(opened(start(), a=spans[(0, 2)], b=newest))
    assert strip(at, "A")["selection"] == [0, 2]
    address = next(block.value for block in at.code)
    assert f"a={spans[(0, 2)]}" in address and "b=" in address
    at.session_state["A selection"] = at.session_state["B selection"] = None
    at = compared(at.run())
    assert {card["row"]: card["score"] for card in cards(at)} == pytest.approx(before)


def test_opponents_are_compared_too(start: Start) -> None:
    at = compared(two_prompts(start()))
    at.button_group(key="compare_direction").set_value("Opponents")
    at = compared(at.run())
    scores = [card["score"] for card in cards(at)]
    assert scores == sorted(scores) and "away from the whole response" in said(at)


@pytest.mark.parametrize("method", ["bm25", "graddot", "cg"])
def test_both_sides_are_compared_by_another_method(start: Start, tmp_path: Path, method: str) -> None:
    at = compared(two_prompts(start()))
    by_gradients = [card["row"] for card in cards(at)]
    at = at.selectbox(key="method_picked").set_value(method).run()
    for _ in range(4):
        at = settled(at, lambda page: bool(OFFERS & keys(page)) or pending(page) is False)
        for key in OFFERS & keys(at):
            at = at.button(key=key).click().run()
    at = compared(at)
    assert f"by {method}" in said(at) and "how stable its ranking" in said(at)
    answers = [at.session_state[f"{side} asking"].answer for side in "AB"]
    asked = resources.desk().bench.of(choose(method))
    for card in cards(at):
        assert ("bm25" == method) == (not card["by_gradients"])
        found = [asked.influences(answer, None, [card["row"]])[0].score for answer in answers]
        assert any(card["score"] == pytest.approx(score, rel=1e-4) for score in found)
    assert {card["row"] for card in cards(at)} == set(by_gradients)
    sides = [group for group in at.button_group if group.key == "compare_direction"]
    assert bool(sides) == (method != "bm25"), "least alike isn't opposed"
    link = dict(parse_qsl(at.code[0].value.partition("?")[2]))
    other = compared(opened(start(), **link))
    assert f"by {method}" in said(other) and [card["row"] for card in cards(other)] == [c["row"] for c in cards(at)]


OFFERS = {"method_fit", "method_ask"}


def keys(at: AppTest) -> set[str]:
    return {str(button.key) for button in at.button}


def pending(at: AppTest) -> bool | None:
    """Whether more is to come of the cards; None while there are none."""
    found = component(at, "compared_cards") or {}
    return found["pending"] if found.get("cards") else None


def test_near_duplicates_share_a_card_on_both_sides(start: Start, twins: Path) -> None:
    at = compared(two_prompts(start(cache=str(twins))))
    (folded,) = [card for card in cards(at) if card["duplicates"]]
    alike = {0, 7, 8, 9, 10, 11, 12}
    assert {folded["row"], *(each["row"] for each in folded["duplicates"])} == alike
    assert len(cards(at)) == 7 and "Behind both answers (7)" in str(component(at, "compared_cards"))
    at.toggle(key="compare_exact").set_value(True)
    at = compared(at.run())
    assert len(cards(at)) == 7 and all(card["exact"] and card["beside"].endswith("exact") for card in cards(at))


def test_a_filter_is_for_both_sides_and_kept_with_the_questions(start: Start, tmp_path: Path) -> None:
    at = compared(two_prompts(start()))
    source_field(at).set_value(["sky", "talk"])
    at = compared(at.run())
    assert {card["source"] for card in cards(at)} == {"sky", "talk"} and len(cards(at)) == 4
    assert "over these 4 examples" in said(at) and "4 of 7 are left" in said(at)
    address = next(block.value for block in at.code)
    link = dict(parse_qsl(address.partition("?")[2]))
    other = compared(opened(start(), **link))
    assert {card["row"] for card in cards(other)} == {card["row"] for card in cards(at)}
    assert source_field(other).value == ["sky", "talk"]
    text_field(other).set_value("nowhere to be found")
    other = compared(other.run())
    assert not cards(other) and not other.exception and "0 of 7 are left" in said(other)


def test_why_this_and_not_that_is_asked_about_each_answer(start: Start) -> None:
    at = compared(two_prompts(start()))
    at.session_state["B selection"] = (1, 2)
    at = settled(at.run(), lambda page: not strip(page, "B")["pending"] and strip(page, "B")["choices"] is not None)
    # What was said, and the two likeliest other words.
    assert strip(at, "A")["choices"] is None and len(strip(at, "B")["choices"]) == 1 + instead.AT_ONCE
    at.text_input(key="B instead_word").set_value("moon")
    press(at, "Compare with this")
    at = settled(at, lambda page: isinstance(page.session_state["B selection"], Contrast))
    at = compared(at.run())
    asked = at.session_state["B selection"]
    assert asked.text == "moon" and "and not “moon”" in said(at) and at.session_state["A selection"] is None
    own, answer = resources.desk().own, at.session_state["B asking"].answer
    known = {found.row: found.score for found in own.influences(answer, asked, range(7))}
    for card in cards(at):
        assert f"{signed(known[card['row']])}" in card["beside"], card


def test_a_side_that_is_still_being_answered_can_be_stopped(start: Start) -> None:
    at = start()
    turnstile = Turnstile(resources.desk().worker)
    at = two_prompts(at)
    turnstile.let_through(6)
    at.run()
    assert strip(at, "A")["streaming"] and component(at, "compared_cards") is None
    at = at.button(key="stop A").click().run()
    turnstile.open()
    at = compared(at)
    assert len(strip(at, "A")["tokens"]) < 10 and len(cards(at)) == 7


def test_what_is_wrong_is_said_on_its_side_and_the_other_goes_on(start: Start) -> None:
    at = two_prompts(start(), ("  ", "What is bright?"))
    at = settled(at, lambda page: component(page, "compared_strip B") is not None)
    assert "The prompt of A is empty" in said(at) and not at.exception
    at = two_prompts(at, ("word " * 400, "What is bright?"))
    at = settled(at, lambda page: bool(page.error))
    assert "shorten it" in said(at)
    at = compared(two_prompts(at))
    assert not at.error and len(cards(at)) == 7


def test_a_saved_answer_of_another_tokenizer_is_refused_and_a_lost_one_explained(start: Start, tmp_path: Path) -> None:
    at = start()
    History(tmp_path / "history.sqlite", described).save(saved_of())
    at = opened(at, a="a1", b="gone")
    assert not at.exception and "another tokenizer" in said(at) and "may have been deleted" in said(at)


def test_a_missing_cache_is_an_explanation_not_a_traceback(start: Start, tmp_path: Path) -> None:
    at = start(cache=str(tmp_path / "nothing")).switch_page(places.COMPARE).run()
    assert not at.exception and "precompute" in said(at)
    with pytest.raises(CacheError):
        resources.store()


def test_hostile_prompts_stay_text(start: Start) -> None:
    hostile = "<script>alert(1)</script> **bold** $x$ ![](http://evil)"
    at = compared(two_prompts(start(), (hostile, hostile)))
    assert not at.exception
    assert not any("alert(1)" in element.value or "evil" in element.value for element in [*at.markdown, *at.caption])
    assert json.dumps(cards(at))
