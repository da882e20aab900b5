"""Other methods on the Explore page: chosen, fitted, asked, cancelled, refused, kept and linked to."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.history.history import History
from explorer.methods.description import askable, described
from explorer.methods.second_order.influence import ConjugateGradients
from tests.app.conftest import component, settled
from tests.app.test_explore import answered, ask, shown_rows, whole
from tests.app.test_permalinks import follow, link_of
from tests.conftest import Turnstile

Start = Callable[..., AppTest]


def choose(at: AppTest, name: str, value: str = "") -> AppTest:
    at.selectbox(key="method_picked").set_value(name)
    at = at.run()
    if value:
        at.text_input(key=f"method_value {name}").set_value(value)
        at = at.run()
    return at


def pressed(at: AppTest, key: str) -> AppTest:
    return at.button(key=key).click().run()


def said(at: AppTest) -> str:
    texts = [element.value for kind in (at.text, at.caption, at.markdown) for element in kind]
    for key in ("verdict_box", "saved_verdict"):
        if (verdict := component(at, key)) is not None:
            texts += [verdict["asked"], verdict["sentence"], *verdict["sure"]]
    return "\n".join(texts)


def buttons(at: AppTest) -> set[str]:
    return {str(button.key) for button in at.button}


def shown_by(at: AppTest) -> AppTest:
    """Press whatever the page asks for before the examples by a method are there."""
    for _ in range(3):
        at = settled(at, lambda page: bool({"method_fit", "method_ask"} & buttons(page)) or done(page))
        for key in {"method_fit", "method_ask"} & buttons(at):
            at = pressed(at, key)
    return answered(at)


def done(at: AppTest) -> bool:
    found = component(at, "example_cards") or {}
    return bool(found.get("cards")) and not found["pending"]


UNSERVED = ("rapidin-centred", "ekfac-mlp", "adam", "unrolled")
"""The tiny cache has no null sample, and its adapter no factors in the MLP, nor was it ever trained."""


@pytest.mark.parametrize("name", [name for name in askable(False) if name not in ("rapidin", "embedding", *UNSERVED)])
def test_every_method_shows_its_ranking(start: Start, name: str) -> None:
    at = answered(ask(start(), "What is bright?"))
    at = shown_by(choose(at, name, {"cg": "2", "ekfac-cg": "2", "lissa": "3", "arnoldi": "2"}.get(name, "")))
    cards = component(at, "example_cards")
    assert cards and not at.exception and len(cards["cards"]) == 7
    scores = [card["score"] for card in cards["cards"]]
    assert scores == sorted(scores, reverse=True)
    described = askable(False)[name]
    for card in cards["cards"]:
        assert card["by_gradients"] == (described.family != "no gradient")
        assert (card["values"] is not None) == described.token_values
        assert ("has no influence of single tokens" in card["without_values"]) != described.token_values
        assert not (card["unusual"] or card["often"] or card["steadiness"]), "these are known of RapidIn's alone"
    assert "ranking is, isn't known" in said(at).replace("\\", "")
    sides = [group for group in at.button_group if group.key == "direction"]
    assert bool(sides) == (described.family != "no gradient"), "least alike isn't opposed"
    assert not cards["acts"]
    at = answered(choose(at, "rapidin"))
    assert all(card["agrees"] for card in component(at, "example_cards")["cards"])  # type: ignore[index]


def test_what_a_method_needs_once_is_fitted_with_progress_and_kept(start: Start, fresh: Path) -> None:
    at = answered(ask(start(cache=str(fresh)), "What is bright?"))
    at = choose(at, "repsim")
    assert "Something has to be computed first, once" in said(at)
    assert "one forward pass over every training example, once" in said(at), "it costs nothing before this was read"
    assert not shown_rows(at) and not (fresh / "methods").exists()
    turnstile = Turnstile(resources.desk().worker)
    at = pressed(at, "method_fit")
    assert "fit_cancel" in buttons(at) and component(at, "example_cards")["pending"]  # type: ignore[index]
    turnstile.open()
    at = answered(at)
    assert len(shown_rows(at)) == 7 and (fresh / "methods" / "repsim.json").is_file()
    at = answered(ask(start(cache=str(fresh)), "What is bright?"))
    assert len(shown_rows(answered(choose(at, "repsim")))) == 7, "what was kept is used again, without a question"


def test_fitting_can_be_cancelled(start: Start, fresh: Path) -> None:
    at = choose(answered(ask(start(cache=str(fresh)), "What is bright?")), "repsim")
    turnstile = Turnstile(resources.desk().worker)
    at = pressed(pressed(at, "method_fit"), "fit_cancel")
    turnstile.open()
    at = settled(at.run(), lambda page: "method_fit" in buttons(page))
    assert not shown_rows(at) and not (fresh / "methods").exists()


def test_a_slow_question_shows_its_progress_and_can_be_cancelled(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def endless(method: ConjugateGradients, q: object) -> None:
        try:
            for step in range(100_000):
                method.report("curvature rows", step + 1, 100_000)
                time.sleep(0.005)
        finally:
            left.append(method.chosen.name)

    monkeypatch.setattr(ConjugateGradients, "preconditioned", endless)
    at = choose(answered(ask(start(), "What is bright?")), "cg", "2")
    if "method_fit" in buttons(at):
        at = settled(pressed(at, "method_fit"), lambda page: "method_ask" in buttons(page))
    at = settled(pressed(at, "method_ask"), lambda page: "ask_cancel" in buttons(page))
    assert not shown_rows(at)
    at = settled(pressed(at, "ask_cancel"), lambda page: "method_ask" in buttons(page) and left == ["cg:2"])
    assert not shown_rows(at)
    at = answered(choose(at, "bm25"))
    assert len(shown_rows(at)) == 7, "the worker is free"


def test_another_selection_is_another_question_to_a_slow_method(start: Start) -> None:
    at = whole(ask(start(), "What is bright?"))
    at = shown_by(choose(at, "cg", "2"))
    at.session_state["selection"] = (1, 3)
    at = at.run()
    assert "method_ask" in buttons(at) and not shown_rows(at)
    at.session_state["selection"] = None
    assert len(shown_rows(answered(at.run()))) == 7, "what was found is still known"


def test_what_a_cache_or_a_method_can_not_do_is_said_with_the_way_out(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    for method, value, told in (
        ("ekfac-mlp", "", "graddot needs no factors"),
        ("rapidin-centred", "", "--null-prompts 200 adds them"),
        ("trak", "3", "fold to powers of two below"),
        ("cg", "<b>", "a number from 1 to"),
        ("graddot", "nowhere", "give no value"),
    ):
        at = choose(at, method, value)
        at = settled(at, lambda page: bool(page.error))
        assert told in said(at) and not at.exception, method
    at = answered(choose(at, "bm25"))
    assert len(shown_rows(at)) == 7


def test_a_method_is_kept_with_its_question_and_its_link_opens_it(start: Start, tmp_path: Path) -> None:
    at = whole(ask(start(), "What is bright?"))
    own = link_of(at)
    at = answered(choose(at, "bm25"))
    link, rows = link_of(at), shown_rows(at)
    assert link["saved"] != own["saved"], "another method's ranking is another question"
    kept = History(tmp_path / "history.sqlite", described).answer(link["saved"])
    assert {question.method.name for question in kept.questions} == {"rapidin", "bm25"}
    other = answered(follow(start(), **link))
    assert shown_rows(other) == rows and "First by bm25 for the whole response" in said(other)
    assert link_of(other) == link
    other.query_params[places.SAVED] = link["saved"]
    other = other.switch_page(places.HISTORY).run()
    assert not other.exception and "First by bm25 for the whole response" in said(other)
    assert "bm25 has no influence of single tokens" in said(other)
    assert other.button_group == [] or all(group.key != "saved_colours" for group in other.button_group)
