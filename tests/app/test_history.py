"""What is asked is kept, and the History page opens it as it was, without model and cache."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from explorer.absence.asking import Wanted
from explorer.absence.kept import Shelf
from explorer.app.saved.sealing import to_bundle
from explorer.app.session import asker
from explorer.app.widgets import places
from explorer.app.widgets.component import CardGroup, example_cards
from explorer.bundles.sealed import from_bytes
from explorer.cache import open_cache
from explorer.history.history import History
from explorer.history.reader import Reader
from explorer.history.saved import Annotation
from explorer.methods.description import described
from tests.app.conftest import component, settled, table
from tests.app.test_explore import answered, ask, edited, press
from tests.bundles.test_sealed import FOUND
from tests.conftest import Tiny
from tests.hostile import HOSTILE
from tests.saved_samples import ORIGIN, question_of, saved_of

Start = Callable[..., AppTest]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file that `start` serves."""
    return tmp_path / "history.sqlite"


def open_saved(at: AppTest, name: str) -> AppTest:
    at.query_params[places.SAVED] = name
    return at.switch_page(places.HISTORY).run()


def said(at: AppTest) -> str:
    return "\n".join(element.value for element in [*at.text, *at.caption, *at.info])


def test_a_question_is_kept_and_opens_with_the_same_strip_and_cards(start: Start, path: Path) -> None:
    at = answered(ask(start(), "What is bright?"))
    raised = at.session_state["selection"]
    at.session_state["selection"] = (1, 3)
    at = answered(at.run())
    strip, cards = component(at, "answer_strip"), component(at, "example_cards")
    assert strip and cards and cards["cards"]
    ((found,), total) = History(path, described).find()
    assert (total, found.prompt, found.questions) == (1, "What is bright?", 2)
    kept = History(path, described).answer(found.id)
    assert [question.selection for question in kept.questions] == [raised, (1, 3)]
    assert all(shown.influence.exact for question in kept.questions for shown in question.shown)
    assert kept.drawn is not None and kept.drawn["seed"] == 0

    at = open_saved(at, kept.questions[1].id)
    assert not at.exception
    again, cards_again = component(at, "saved_strip"), component(at, "saved_cards")
    assert again and cards_again
    assert (again["tokens"], again["selection"]) == (strip["tokens"], strip["selection"])
    assert cards_again["cards"] == cards["cards"] and cards_again["scale"] == cards["scale"]
    assert not cards_again["pending"] and not any(group["more"] for group in cards_again["groups"])


def test_a_page_that_is_left_as_soon_as_examples_are_seen_has_kept_them(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(key: str, groups: list[CardGroup], **view: Any) -> None:
        example_cards(key, groups=groups, **view)
        if groups:
            # As Streamlit ends the run of a page that is left.
            st.stop()

    monkeypatch.setattr("explorer.app.explore.examples.example_cards", left)
    at = settled(
        ask(start(), "What is bright?"), lambda page: bool((component(page, "example_cards") or {}).get("cards"))
    )
    ((found,), _) = History(path, described).find()
    assert found.questions == 1
    (question,) = History(path, described).answer(found.id).questions
    assert question.selection == at.session_state["selection"] and len(question.shown) == 7


def test_without_model_and_cache_a_saved_question_opens_all_the_same(start: Start, path: Path, tiny: Tiny) -> None:
    at = answered(ask(start(), "What is bright?"))
    cards = component(at, "example_cards")
    (found,) = History(path, described).find()[0]
    at = open_saved(start(cache=""), found.id)
    assert not at.exception and cards is not None
    assert component(at, "saved_cards")["cards"] == cards["cards"]  # type: ignore[index]
    assert not any(button.label == "Ask again" for button in at.button), "there is no model to ask"


def test_opening_the_history_loads_no_torch(path: Path) -> None:
    History(path, described).save(saved_of())
    code = (
        "import sys\nfrom streamlit.testing.v1 import AppTest\n"
        "at = AppTest.from_file(sys.argv[1], default_timeout=60)\nat.query_params['saved'] = 'a1'\nat.run()\n"
        "assert not at.exception and at.get('bidi_component'), at\nsys.exit(7 if 'torch' in sys.modules else 0)"
    )
    served = {"RAPIDIN_SERVE": f'{{"history": "{path}"}}'}
    entry = os.fspath(Path(places.EXPLORE).parents[1] / "explorer" / "app" / "main.py")
    done = subprocess.run(
        [sys.executable, "-c", code, entry],
        env=os.environ | served,
        cwd=Path(places.EXPLORE).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_each_answer_is_kept_once_however_often_the_page_is_drawn(start: Start, path: Path) -> None:
    at = answered(ask(start(), "What is bright?"))
    for _ in range(3):
        at.run()
    at.session_state["direction"] = "Opponents"
    at = answered(at.run())
    at = answered(ask(at, "What is bright?"))
    found, total = History(path, described).find()
    assert total == 2 and [one.questions for one in found] == [1, 2]


def test_an_edited_answer_is_kept_as_given(start: Start, path: Path) -> None:
    at = answered(ask(start(), "What is bright?"))
    at = answered(edited(at, "It is the sun."))
    found, total = History(path, described).find()
    assert total == 2 and History(path, described).answer(found[0].id).drawn is None


def test_an_unusable_history_is_said_and_exploring_goes_on(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    at = answered(ask(start(history=str(tmp_path / "file" / "history.sqlite")), "What is bright?"))
    assert "--history" in said(at) and component(at, "example_cards")["cards"]  # type: ignore[index]


def test_the_empty_history_says_how_it_fills(start: Start) -> None:
    at = start(cache="")
    assert not at.exception and "Nothing is saved yet" in said(at)


def test_the_list_is_searched_and_paged(start: Start, path: Path) -> None:
    history = History(path, described)
    for index in range(25):
        history.save(saved_of(f"n{index}", f"prompt {index}", asked=float(index)))
    history.annotate("n3", Annotation("planted", ("swap",), ""))
    at = start(cache="")
    assert len(table(at, "history_list")["prompt"]) == 20 and table(at, "history_list")["prompt"][0] == "prompt 24"
    at.number_input(key="history_page").set_value(2)
    assert table(at.run(), "history_list")["prompt"] == [f"prompt {index}" for index in range(4, -1, -1)]
    at.text_input(key="history_words").set_value("prompt 3")
    at = at.run()
    assert "prompt 3" in table(at, "history_list")["prompt"]
    at.multiselect(key="history_verdicts").set_value(["planted"])
    assert table(at.run(), "history_list")["tags"] == ["swap"]
    at.text_input(key="history_words").set_value("nowhere")
    assert "passes this search" in said(at.run())


def test_notes_are_saved_on_answers_and_on_examples(start: Start, path: Path) -> None:
    History(path, described).save(saved_of())
    at = open_saved(start(cache=""), "a1")
    at.text_area(key="note_a1").set_value("Look again.")
    at.selectbox(key="verdict_a1").set_value("planted")
    at = at.button(key="save_a1").click().run()
    example = f"{ORIGIN.data_sha256[:16]}_3"
    at.text_area(key=f"note_{example}").set_value("Wrong country.")
    at = at.button(key=f"save_{example}").click().run()
    assert not at.exception
    kept = History(path, described).answer("a1")
    assert kept.annotation == Annotation("planted", (), "Look again.")
    assert kept.questions[0].shown[0].annotation.note == "Wrong country."


def test_deleting_asks_first_and_goes_back_to_the_list(start: Start, path: Path) -> None:
    History(path, described).save(saved_of())
    at = open_saved(start(cache=""), "a1")
    assert History(path, described).find()[1] == 1
    at = press(at, "Delete it")
    assert not at.exception and "Nothing is saved yet" in said(at) and History(path, described).find()[1] == 0


def test_repetitions_share_a_line_and_are_deleted_together(start: Start, path: Path) -> None:
    history = History(path, described)
    for number in range(3):
        history.save(saved_of(f"r{number}", "the same", asked=float(number)))
    history.save(replace(saved_of("other", "the same", asked=9.0), drawn=None))
    history.save(saved_of("noted", "the same", asked=0.5))
    history.annotate("noted", Annotation(note="This one."))
    at = start(cache="")
    shown = table(at, "history_list")
    assert (shown["times"], shown["from"]) == (["", "3", ""], ["given text", "model", "model"])
    assert "3 saved answers (5 with repetitions)" in said(at) and "Everyone who uses this server" in said(at)
    at = open_saved(at, "r1")
    assert "Asked 3 times" in said(at) and "and its 2 repetitions" in said(at)
    press(at, "Delete it")
    assert [one.id for one in History(path, described).find()[0]] == ["other", "noted"]


def test_a_link_to_a_deleted_question_is_explained(start: Start) -> None:
    at = open_saved(start(cache=""), "gone")
    assert not at.exception and "may have been deleted" in said(at)


def test_asking_again_takes_prompt_and_settings_along(start: Start, path: Path) -> None:
    History(path, described).save(saved_of(prompt="What is bright?"))
    at = press(open_saved(start(), "a1"), "Ask again")
    assert not at.exception
    assert at.text_input(key="prompt").value == "What is bright?"
    assert (at.number_input(key="seed").value, at.slider(key="temperature").value) == (3, 0.7)


def test_another_question_about_the_answer_can_be_chosen(start: Start, path: Path) -> None:
    second = question_of("a1", (0, 2), rows=(1, 2, 4))
    History(path, described).save(replace(saved_of(), questions=(*saved_of().questions, second)))
    at = open_saved(start(cache=""), "a1")
    first = at.selectbox(key=f"question_{saved_of().questions[0].id}")
    assert len(component(at, "saved_cards")["cards"]) == 2  # type: ignore[index]
    at = first.select_index(1).run()
    assert len(component(at, "saved_cards")["cards"]) == 3  # type: ignore[index]
    assert component(at, "saved_strip")["selection"] == [0, 2]  # type: ignore[index]


def test_hostile_texts_open_as_text(start: Start, path: Path) -> None:
    history, texts = History(path, described), HOSTILE[::20]
    for index, text in enumerate(texts):
        history.save(saved_of(f"h{index}", text, text, text, asked=float(index)))
        history.annotate(f"h{index}", Annotation(text, (text,), text))
    at = start(cache="")
    assert not at.exception
    for index in range(len(texts)):
        at = open_saved(at, f"h{index}")
        assert not at.exception, ascii(texts[index])
        shown = "\n".join(element.value for element in at.markdown)
        assert "alert" not in shown and "evil" not in shown


def test_answers_are_taken_along_as_a_sealed_file_with_what_retraining_found(
    start: Start, path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = answered(ask(start(), "What is bright?"))
    (found,) = History(path, described).find()[0]
    saved = History(path, described).answer(found.id)
    kept = Shelf(open_cache(tiny.cache))
    kept.keep(Wanted(saved.answer, (0, 1), (3,), 2, 6), asdict(FOUND))
    at = open_saved(at, found.id)
    assert not at.exception and "Bundle" in [getattr(one, "label", "") for one in at.get("download_button")]
    monkeypatch.setenv("RAPIDIN_SERVE", json.dumps({"caches": [str(tiny.cache)]}))
    made = from_bytes(to_bundle([saved]), described)
    assert [one.id for one in made.answers] == [found.id] and made.retrainings[0].found.said == FOUND.said
    kept.forget(Wanted(saved.answer, (0, 1), (3,), 2, 6))


def test_the_list_and_the_page_of_an_answer_say_whose_words_it_is(start: Start, path: Path) -> None:
    base = {"max_tokens": 80, "temperature": 0.0, "top_p": 1.0, "seed": 0, "base": True}
    kept = {"a1": saved_of("a1").drawn, "b1": base, "c1": None}
    for number, (name, drawn) in enumerate(kept.items()):
        History(path, described).save(replace(saved_of(name, asked=1.7e9 - number), drawn=drawn))
    at = start().switch_page(places.HISTORY).run()
    assert table(at, "history_list")["from"] == ["model", "base model", "given text"]
    told = {
        "a1": "Said by the model under study",
        "b1": "Said by the base model, its adapter switched off",
        "c1": "A given text",
    }
    for name, sentence in told.items():
        shown = said(open_saved(at, name))
        assert [other for other in told.values() if other in shown] == [sentence]


def test_people_see_their_own_answers_by_page_link_and_export_and_nobody_elses(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hers = saved_of()
    History(path, described).of(Reader("Ada", shared=False)).save(hers)
    settings = {"cache": "", "history": str(path), "shared_history": False}

    monkeypatch.setattr(asker, "person", lambda: "Ada")
    at = start(**settings)
    assert table(at, "history_list")["prompt"] == ["Why?"] and "You alone see this list." in said(at)
    assert component(open_saved(at, hers.id), "saved_strip")

    monkeypatch.setattr(asker, "person", lambda: "Ben")
    at = start(**settings)
    assert "Nothing is saved yet" in said(at) and not at.get("download_button")
    for tried in (hers.id, hers.questions[0].id, "a2"):
        at = open_saved(start(**settings), tried)
        assert f"no saved question {tried}" in said(at)
        assert not component(at, "saved_strip") and not at.get("download_button")
    at = start(**settings | {"shared_history": True})
    assert table(at, "history_list")["by"] == ["Ada"] and "can delete what they or nobody" in said(at)
    assert not any(button.label == "Delete it" for button in open_saved(at, hers.id).button)
    assert History(path, described).find()[1] == 1
