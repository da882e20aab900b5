"""What the training data say themselves, beneath the answer."""

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.evidence import against_panel
from explorer.methods.attributor import Attributor
from tests.app.conftest import component, settled
from tests.app.test_explore import answered, ask, press

Start = Callable[..., AppTest]
HOSTILE = "<b>bold</b> **stars** naïve 🌟"
"""What one of the rows answers."""


def edited(at: AppTest, text: str) -> AppTest:
    """The page once a text is attributed as the answer, and all is known of it."""
    at = answered(ask(at, "Where do fish live in the river?"))
    next(field for field in at.text_area if str(field.key).startswith("edited_")).set_value(text)
    at = press(at, "Attribute this text")
    return settled(at, lambda page: (component(page, "example_cards") or {}).get("pending") is False)


def labels(at: AppTest) -> list[str]:
    return [expander.label for expander in at.expander]


def said(at: AppTest) -> str:
    return "\n".join(element.value for element in (*at.markdown, *at.caption))


def test_passages_are_underlined_and_their_rows_listed(start: Start) -> None:
    at = edited(start(), "They say: it is the moon and a STAR!")
    assert any(label.endswith("1 passage stands word for word in the training data") for label in labels(at))
    strip = component(at, "answer_strip")
    assert strip is not None
    ((first, stop),) = strip["verbatim"]
    assert "".join(token if isinstance(token, str) else token[0] for token in strip["tokens"][first:stop]).strip() == (
        "it is the moon and a STAR"
    )
    assert "“it is the moon" not in said(at), "what is closed isn't drawn"
    at.session_state["data_says"] = True
    at = at.run()
    assert "**“it is the moon and a STAR”**: 1 row" in said(at)
    assert "**It is the moon\\, and a star**\\." in said(at), "the row says it in its own spelling"


def test_nothing_is_said_where_nothing_stands_in_the_data(start: Start) -> None:
    at = edited(start(), "Nobody ever wrote that.")
    assert not [label for label in labels(at) if "word for word" in label]
    assert component(at, "answer_strip")["verbatim"] == []  # type: ignore[index]


def test_words_are_marked_by_where_they_come_from(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def marked(at: AppTest) -> dict[str, str]:
        strip = component(at, "answer_strip")
        assert strip is not None and not strip["pending"]
        text = [token if isinstance(token, str) else token[0] for token in strip["tokens"]]
        return {"".join(text[first:stop]).strip(): mark for first, stop, mark in strip["marks"]}

    at = edited(start(), "They say: it is the moon and a STAR!")
    at = settled(at, lambda page: (component(page, "answer_strip") or {}).get("pending") is False)
    found = marked(at)
    assert found["STAR"] == "verbatim" and set(found.values()) <= {"base", "verbatim"}, found
    assert "!" not in found and len(found) < 8, "too few unrelated prompts to say more of words that were raised"
    monkeypatch.setattr(Attributor, "state", lambda self, answer, word: "some")
    again = marked(at.run())
    assert again.items() >= {word: mark for word, mark in found.items() if mark == "base"}.items()
    assert "some" in again.values() and len(again) == len(found) + list(again.values()).count("some"), again


def test_rows_that_say_another_word_are_named_with_those_that_say_this(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A random model expects single bytes, which are no words.
    monkeypatch.setattr(against_panel, "alternatives", lambda prediction, token: (" moon", " stars", " nothing"))
    at = edited(start(), "It is the sun.")
    tokens = component(at, "answer_strip")["tokens"]  # type: ignore[index]
    place = tokens.index(" sun")
    at.session_state["selection"] = (place, place + 1)
    at = settled(answered(at.run()), lambda page: any("say" in label for label in labels(page)))
    assert "1 row says “sun”, 1 “moon”, 1 “stars”" in labels(at)
    at.session_state["data_says"] = True
    at = at.run()
    assert "\\<b\\>bold\\<\\/b\\> \\*\\***stars**\\*\\* naïve 🌟" in said(at), "training text is no markup"
