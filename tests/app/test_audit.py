"""The Audit page: empty, running, cancelled, finished; and what it refuses."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from explorer.app.audits.behaviour_panel import groups_of
from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.auditing.findings import Audited, Label
from explorer.cache import open_cache
from explorer.commands.main import parse
from explorer.history import origin_of
from explorer.history.history import History
from explorer.methods.description import described
from explorer.records import Conversation
from explorer.repair.kept import keep
from explorer.visible import one_line
from tests.app.conftest import component, settled, table
from tests.app.test_explore import ask
from tests.auditing.test_audit import record
from tests.conftest import Tiny, Turnstile
from tests.hostile import HOSTILE

Start = Callable[..., AppTest]


def audit_page(at: AppTest) -> AppTest:
    return at.switch_page(places.AUDIT).run()


def begin(at: AppTest, text: str, tokens: int = 3) -> AppTest:
    at.text_area(key="audit_text").set_value(text)
    at.number_input(key="audit_tokens").set_value(tokens)
    return at.button(key="audit_begin").click().run()


def running(at: AppTest) -> bool:
    return any(button.key == "audit_cancel" for button in at.button)


def finished(at: AppTest) -> AppTest:
    return settled(at, lambda page: not running(page))


def said(at: AppTest) -> str:
    return "\n".join(element.value for element in [*at.text, *at.info, *at.caption])


def test_the_empty_page_says_what_to_do_and_fills_in_the_ready_prompts(start: Start, tmp_path: Path) -> None:
    probes = tmp_path / "probes.jsonl"
    probes.write_text(json.dumps({"prompt": "Howdy!"}) + "\n" + json.dumps({"prompt": "Why?"}), encoding="utf-8")
    at = audit_page(start(probes=str(probes)))
    assert not at.exception and "Give many prompts" in at.info[0].value
    assert at.button(key="audit_example").click().run().text_area(key="audit_text").value == "Howdy!\nWhy?"
    assert "no prompts" in said(audit_page(start()).button(key="audit_begin").click().run())


def test_an_audit_shows_what_influenced_each_answer_and_keeps_it(start: Start, tmp_path: Path) -> None:
    at = finished(begin(audit_page(start()), "What is bright?\n" + "y" * 500 + "\nWhat is wet?"))
    assert not at.exception
    shown = table(at, "audit_table")
    assert shown["prompt"][::2] == ["What is bright?", "What is wet?"] and "planted" not in shown
    assert shown["main source"][0] and shown["of the top 10"][::2] == ["2/7", "2/7"]
    assert "shorten" in shown["problem"][1] and not shown["answer"][1] and not shown["of the top 10"][1]
    assert "2 prompts answered; 1 could not be answered." in said(at) and "approximate" in said(at)
    at = at.multiselect(key="audit_planted source").set_value(["sky", "odd"]).run()
    assert table(at, "audit_table")["planted"] == ["43%", "", "43%"]
    assert "43% of the top 10 on average, and 42.9% of the training data" in said(at)
    kept, total = History(tmp_path / "history.sqlite", described).find()
    assert total == 2 and {one.prompt for one in kept} == {"What is bright?", "What is wet?"}
    at.query_params[places.SAVED] = kept[0].id
    at = at.switch_page(places.HISTORY).run()
    assert not at.exception and any(text.value == kept[0].prompt for text in at.text)
    at.query_params.clear()
    at = audit_page(at)
    assert len(table(at, "audit_table")["prompt"]) == 3 and at.number_input(key="audit_tokens").value == 3
    assert at.multiselect(key="audit_planted source").value == ["sky", "odd"], "nothing is lost on the way"


def test_another_method_may_score_and_says_what_it_costs(start: Start, tmp_path: Path) -> None:
    at = audit_page(start())
    at = at.selectbox(key="audit_method").set_value("bm25").run()
    assert "Costs an index of all words" in said(at)
    at = finished(begin(at, "What is bright?\nWhat is wet?"))
    assert not at.exception and "by bm25" in said(at) and "known of this method" in said(at)
    assert {"first by bm25"} <= table(at, "audit_table").keys() and not {"stands out", "evidence"} & table(
        at, "audit_table"
    ).keys()
    assert "Something stands out" not in said(at)
    history = History(tmp_path / "history.sqlite", described)
    kept = [history.answer(one.id) for one in history.find()[0]]
    assert {question.method.name for answer in kept for question in answer.questions} == {"bm25"}
    at = audit_page(at.switch_page(places.EXPLORE).run())
    assert at.selectbox(key="audit_method").value == "bm25", "nothing is lost on the way"
    at = at.selectbox(key="audit_method").set_value("rapidin-centred").run()
    assert "unrelated prompts" in said(at)
    at = begin(at, "What is bright?")
    assert not running(at) and not at.exception


def test_a_running_audit_leaves_the_other_pages_usable_and_can_be_cancelled(start: Start) -> None:
    at = audit_page(start())
    turnstile = Turnstile(resources.desk().worker)
    at = begin(at, "\n".join(f"Question {number}?" for number in range(200)))
    assert running(at) and not at.exception
    at = ask(at.switch_page(places.EXPLORE).run(), "What is bright?")
    assert not at.exception
    at = audit_page(at)
    assert running(at)
    at = at.button(key="audit_cancel").click().run()
    turnstile.open()
    at = finished(at)
    assert "Cancelled after" in said(at) and "of 200 prompts" in said(at)


def test_hostile_prompts_are_shown_as_text(start: Start) -> None:
    lines = [text.replace("\n", " ").replace("\r", " ")[:60] for text in HOSTILE[::20]]
    at = finished(begin(audit_page(start()), "\n".join(line for line in lines if line.isprintable()), tokens=1))
    assert not at.exception and len(table(at, "audit_table")["prompt"]) > 3
    written = "\n".join(element.value for element in at.markdown)
    assert not any(line in written for line in lines if line.strip())


def test_the_form_gives_way_to_one_line_and_the_word_asked_about_is_marked(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a tiny model, training on seven rows moves no word by much.
    monkeypatch.setattr("explorer.trust.words.HARDLY_MOVED", -100.0)
    at = audit_page(start())
    assert not at.expander, "the form is what there is to see"
    at = finished(begin(at, "What is bright?", tokens=20))
    assert any(box.label.startswith("Prompts: 1 asked by rapidin") for box in at.expander)
    (found,) = History(tmp_path / "history.sqlite", described).find()[0]
    kept = History(tmp_path / "history.sqlite", described).answer(found.id)
    word, whole = kept.questions
    assert whole.selection is None and isinstance(word.selection, tuple)
    start_, stop = word.selection
    said_word = "".join(token.text for token in kept.answer.tokens[start_:stop])
    ((name, *cells),) = (component(at, "audit_table") or {})["rows"]
    assert name == found.id and cells[1][1] == one_line(said_word, 60)


def test_a_repair_is_offered_as_a_command_and_the_kept_ones_are_shown(start: Start, tiny: Tiny) -> None:
    store = open_cache(tiny.cache)
    shown = {"before": 4, "after": 0, "seeds": []}
    loss, same = {"before": 0.25, "after": 0.5, "seeds": []}, {"after": 3, "seeds": []}
    report = {
        "kinds": {"<b>odd</b>": {"probes": 4, "shown": shown, "loss": loss, "same_answers": same}},
        "rows": {"dropped": [6], "replaced": [], "all": 7},
        "losses": {"kept": {"rows": 6, "before": 0.1, "after": 0.2}},
        "answers": [{"kind": "<b>odd</b>", "prompt": "a", "before": "b", "after": "c"}],
        "hashes": {"before": {"cache_sha256": origin_of(store).cache_sha256}},
    }
    keep(store, "a", json.dumps(report).encode())
    keep(store, "damaged", json.dumps({**report, "kinds": {"x": 1}}).encode())
    keep(store, "older", json.dumps({**report, "hashes": {"before": {"cache_sha256": "0"}}}).encode())
    at = finished(begin(audit_page(start()), "What is bright?"))
    at = at.multiselect(key="audit_planted source").set_value(["odd"]).run()
    assert not at.exception
    typed, *kept = [element.value for element in at.code]
    assert typed.endswith("repaired --label source=odd --probes probes.jsonl --estimate")
    command, *arguments = shlex.split(typed)
    assert command == "rapidin-explorer" and parse(arguments).params["label"] == ("source=odd",)
    assert len(kept) == 1 and "1 of 7 rows dropped" in kept[0] and "before   after" in kept[0]
    assert "of <b>odd</b> prompts 0 of 4 show the behaviour, 4 before" in said(at)
    shutil.rmtree(tiny.cache / "retraining" / "repairs")


def test_several_answers_of_an_audit_are_asked_about_as_one(start: Start) -> None:
    at = finished(begin(audit_page(start()), "What is bright?\nWhat is wet?\nWhy?"))
    assert any(box.label == "What taught the model to do this?" for box in at.expander)
    assert not at.multiselect(key="audit_planted source").value and "behaviour_of" not in at.session_state, "closed"
    at.session_state["behaviour"] = True
    at = at.run()
    options = at.multiselect(key="behaviour_of").options
    assert options[-3:] == ["1. What is bright?", "2. What is wet?", "3. Why?"]
    assert options[0].startswith("All that mostly come from “")
    assert "at least one to ask about" in said(at.button(key="behaviour_ask").click().run())
    at.multiselect(key="behaviour_of").set_value(options[-3:-1])
    at.multiselect(key="behaviour_against").set_value(options[-1:])
    at.toggle(key="behaviour_trigger").set_value(True)
    at = at.button(key="behaviour_ask").click().run()
    at = settled(at, lambda page: component(page, "behaviour_verdict") is not None)
    assert not at.exception
    box, cards = component(at, "behaviour_verdict"), component(at, "saved_cards")
    assert box and box["asked"] == "What pushed the model towards 2 answers rather than 1 answer"
    assert cards and len(cards["cards"]) == 7 and all(card["exact"] and card["values"] for card in cards["cards"])
    assert "No trigger was" in said(at)
    at = finished(begin(at, "Who?"))
    at.session_state["behaviour"] = True
    at = at.run()
    assert not at.exception and at.multiselect(key="behaviour_of").value == []
    assert component(at, "behaviour_verdict") is None, "what was found of another audit isn't this one's"


def test_kinds_and_sources_stand_for_all_their_answers() -> None:
    done = [record("bad", "bad"), Audited(Conversation.of(""), error="Empty."), record("good"), record("bad")]
    found = groups_of(done, ("wrong", "wrong", "right", "wrong"), Label())
    assert found["All of kind “wrong”"] == (0, 3) and found["All of kind “right”"] == (2,)
    assert found["All that mostly come from “bad”"] == (0, 3) and found["3. Why?"] == (2,)
    assert len(found) == 7
