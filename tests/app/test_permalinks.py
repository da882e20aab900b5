"""A link opens what the Explore page showed: answer, selection, side, filter, colours, card, and the cache."""

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from streamlit.elements.lib import policies
from streamlit.testing.v1 import AppTest

from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.history.history import History
from explorer.methods.description import described
from tests.app.conftest import component, field_of
from tests.app.test_explore import answered, ask, press, shown_rows, source_field, text_field, tokens
from tests.conftest import Tiny
from tests.saved_samples import saved_of

Start = Callable[..., AppTest]


def link_of(at: AppTest) -> dict[str, str]:
    """The parameters of the page's link."""
    (address,) = [block.value for block in at.code]
    parameters = dict(parse_qsl(address.partition("?")[2]))
    cards = component(at, "example_cards")
    assert cards is not None and dict(parse_qsl(cards["link"][1:])) == parameters, "cards add to the same link"
    return parameters


def follow(at: AppTest, **parameters: str) -> AppTest:
    for name, value in parameters.items():
        at.query_params[name] = value
    return at.run()


def test_a_link_opens_answer_selection_side_filter_colours_and_card_again(start: Start, tmp_path: Path) -> None:
    at = start()
    at.slider(key="temperature").set_value(1.5)
    at.number_input(key="seed").set_value(3)
    at.number_input(key="max_tokens").set_value(12)
    at = answered(ask(at, "What is bright?"))
    at.session_state["selection"] = (1, 3)
    at.button_group(key="direction").set_value("Opponents")
    at.button_group(key="colours").set_value("Position")
    source_field(at).set_value(["sky", "talk"])
    text_field(at).set_value("o")
    at.session_state["example"], at.session_state["answer_colours"] = 4, "One example"
    at = answered(at.run())
    said, shown, link = tokens(at), component(at, "example_cards"), link_of(at)
    assert shown is not None and len(shown["cards"]) >= 2

    other = answered(follow(start(), **link, card=str(shown["cards"][1]["row"])))
    assert not other.exception and tokens(other) == said
    found = component(other, "example_cards")
    assert found is not None and found["cards"] == shown["cards"] and found["view_id"] == shown["view_id"]
    assert found["focus"] == shown["cards"][1]["key"] and found["marked"] == "row-4"
    assert component(other, "answer_strip")["selection"] == [1, 3]  # type: ignore[index]
    assert source_field(other).value == ["sky", "talk"] and text_field(other).value == "o"
    assert other.button_group(key="direction").value == "Opponents"
    assert (other.text_input(key="prompt").value, other.number_input(key="seed").value) == ("What is bright?", 3)
    assert link_of(other) == link, "a link of what a link opened is that link"
    assert History(tmp_path / "history.sqlite", described).find()[1] == 1, "what is looked at again isn't kept twice"


@pytest.mark.parametrize(("span", "named"), [((1, 3), "5-1-3"), (None, "5")])
def test_a_link_opens_the_open_matrix_again(start: Start, span: tuple[int, int] | None, named: str) -> None:
    at = answered(ask(start(), "What is bright?"))
    assert "matrix" not in link_of(at)
    at.session_state["matrix"] = (at.session_state["asking"].answer.id, span, 5)
    at = answered(at.run())
    at.button_group(key="matrix_columns").set_value("Position")
    at = answered(at.run())
    link = link_of(at)
    assert (link["matrix"], link["columns"]) == (named, "Position")
    other = answered(follow(start(), **link))
    assert (
        other.session_state["matrix"][1:] == (span, 5) and other.button_group(key="matrix_columns").value == "Position"
    )
    assert link_of(other) == link


def test_after_a_link_the_page_goes_on_as_ever(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    before, link = tokens(at), link_of(at)
    other = answered(follow(start(), **link))
    other.session_state["selection"] = (0, 1)
    other = answered(other.run())
    assert component(other, "answer_strip")["selection"] == [0, 1]  # type: ignore[index]
    other = answered(ask(other, "Where do fish live?"))
    assert tokens(other) != before and not other.exception


def test_more_examples_that_were_shown_are_shown_again(start: Start, twins: Path) -> None:
    at = answered(ask(start(cache=str(twins)), "What is bright?"))
    at.button_group(key="direction").set_value("Both")
    at = answered(at.run())
    link, sides = link_of(at), (shown_rows(at, 0), shown_rows(at, 1))
    other = answered(follow(start(cache=str(twins)), **link))
    assert (shown_rows(other, 0), shown_rows(other, 1)) == sides


@pytest.mark.parametrize(
    "parameters",
    [
        {"side": "<script>", "tokens": "no", "answer": "?", "example": "-1", "card": "99999999999999999999"},
        {"example": "٣", "card": "7", "side": "", "matrix": "7"},
        {"matrix": "1-3-2"},
        {"matrix": "1-0-9999"},
        {"matrix": "<b>"},
    ],
)
def test_parameters_that_mean_nothing_are_left_out(start: Start, parameters: dict[str, str]) -> None:
    link = link_of(answered(ask(start(), "What is bright?")))
    at = answered(follow(start(), **link | parameters))
    found = component(at, "example_cards")
    assert not at.exception and found is not None and found["focus"] == found["marked"] == ""
    assert at.session_state["matrix"] is None


def test_a_link_to_what_is_gone_or_of_another_model_is_explained(start: Start, tmp_path: Path) -> None:
    at = follow(start(), saved="gone")
    assert not at.exception and any("may have been deleted" in text.value for text in at.text)
    History(tmp_path / "history.sqlite", described).save(saved_of())
    at = follow(start(), saved="a1")
    assert not at.exception and any("another tokenizer" in text.value for text in at.text)
    assert tokens(answered(ask(at, "What is bright?")))


def test_an_answer_of_another_cache_that_reads_the_same_tokens_is_attributed_with_a_word_of_warning(
    start: Start, twins: Path
) -> None:
    link = link_of(answered(ask(start(cache=str(twins)), "What is bright?")))
    at = answered(follow(start(), **link))
    assert any("asked of another cache" in caption.value for caption in at.caption)
    assert len(shown_rows(at)) == 7


def test_a_link_chooses_the_cache_that_was_asked(start: Start, tiny: Tiny, twins: Path) -> None:
    seven = str(shutil.copytree(tiny.cache, tiny.cache.parent / "seven", dirs_exist_ok=True))
    at = answered(ask(start(cache=str(twins), more=(seven,)), "What is bright?"))
    link, rows = link_of(at), shown_rows(at)
    assert link[places.CACHE_NAME] == "cache"
    at = answered(follow(start(cache=seven, more=(str(twins),)), **link))
    assert shown_rows(at) == rows and field_of(at.selectbox, "cache_picked").value == "cache"
    # The answer's own cache counts where the address doesn't name it.
    at = answered(follow(start(cache=seven, more=(str(twins),)), saved=link["saved"]))
    assert shown_rows(at) == rows and field_of(at.selectbox, "cache_picked").value == "cache"
    assert not any("another cache" in caption.value for caption in at.caption)
    assert resources.history().find()[1] == 1


def test_a_saved_answer_leads_to_explore_and_compare(start: Start, tmp_path: Path) -> None:
    at = answered(ask(start(), "What is bright?"))
    (one,) = History(tmp_path / "history.sqlite", described).find()[0]
    at.query_params[places.SAVED] = one.id
    at = at.switch_page(places.HISTORY).run()
    assert not at.exception
    labels = [link.proto.label for link in at.get("page_link")]
    assert "Open in Explore" in labels and labels.count("Compare") == 2, "one in the row of pages, one here"
    assert press(at, "Ask again").text_input(key="prompt").value == "What is bright?"


# The address names what is shown


def address(at: AppTest) -> dict[str, str]:
    """The parameters that the address bar holds."""
    return {name: value[-1] if isinstance(value, list) else value for name, value in at.query_params.items()}


def test_the_address_follows_what_is_shown_and_opens_it_again(start: Start, tmp_path: Path) -> None:
    at = start()
    assert not address(at)
    at = answered(ask(at, "What is bright?"))
    first = address(at)
    assert first == link_of(at) and first[places.SAVED]
    at.session_state["selection"] = (1, 3)
    at.button_group(key="direction").set_value("Opponents")
    at = answered(at.run())
    second = address(at)
    assert second == link_of(at) and second[places.SAVED] != first[places.SAVED]
    shown = component(at, "example_cards")
    assert address(at.run()) == second, "nothing changes while nothing new is shown"

    # Reload, or another tab.
    other = answered(follow(start(), **second))
    found = component(other, "example_cards")
    assert (
        found is not None
        and shown is not None
        and (found["view_id"], found["cards"])
        == (
            shown["view_id"],
            shown["cards"],
        )
    )
    assert address(other) == second
    # Back: the address before, in the same session.
    at.query_params.clear()
    at = answered(follow(at, **first))
    assert at.session_state["selection"] != (1, 3) and address(at) == first
    assert History(tmp_path / "history.sqlite", described).find()[1] == 1


def test_a_question_that_is_asked_while_the_address_names_another_answer_is_answered(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    stale = address(at)
    at.session_state["selection"] = (1, 3)
    at = answered(at.run())
    # The browser hasn't taken up the new address yet when "Ask" is pressed.
    at.query_params.clear()
    for name, value in stale.items():
        at.query_params[name] = value
    at = answered(ask(at, "Where do fish live?"))
    assert at.session_state["asking"].asked.question == "Where do fish live?"
    assert address(at)[places.SAVED] not in (stale[places.SAVED], "")


def test_prompt_and_choices_are_there_after_another_page(start: Start) -> None:
    at = start()
    at = answered(ask(at, "What is bright?"))
    at.button_group(key="direction").set_value("Opponents")
    field_of(at.button_group, "answer_colours_field").set_value("Probability")
    at = answered(at.run())
    rows = shown_rows(at)
    at = at.switch_page(places.METHODS).run()
    assert "prompt" not in at.session_state
    at = answered(at.switch_page(places.EXPLORE).run())
    assert at.text_input(key="prompt").value == "What is bright?" and shown_rows(at) == rows
    assert at.button_group(key="direction").value == "Opponents"
    assert field_of(at.button_group, "answer_colours_field").value == "Probability"


def test_streamlit_has_nothing_to_warn_of_on_a_way_over_links(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(policies._LOGGER, "warning", lambda text, *details, **more: told.append(text % details))
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)
    at = start()
    at.slider(key="temperature").set_value(1.5)
    at = answered(ask(at, "What is bright?"))
    at.session_state["matrix"] = (at.session_state["asking"].answer.id, None, 5)
    at = answered(at.run())
    at.button_group(key="matrix_columns").set_value("Position")
    at.button_group(key="direction").set_value("Opponents")
    field_of(at.button_group, "answer_colours_field").set_value("Probability")
    at.button_group(key="colours").set_value("Position")
    link = link_of(answered(at.run()))
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)
    other = answered(follow(start(), **link))
    assert other.button_group(key="matrix_columns").value == "Position" and not told, told
