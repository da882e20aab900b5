"""System prompts and earlier turns on the pages: filled in, asked with, shown, kept, and missed where they lack."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import TextArea

from explorer.app.session import resources
from explorer.app.widgets import places
from explorer.history.history import History
from explorer.history.saved import Origin, origin_of
from explorer.methods.description import described
from explorer.records import Conversation
from explorer.serving.session import open_engine
from tests.app.conftest import field_of, table
from tests.app.test_audit import audit_page, begin, finished
from tests.app.test_caches import pick
from tests.app.test_compare import compared, two_prompts
from tests.app.test_explore import answered, ask, edited, press
from tests.app.test_permalinks import follow, link_of
from tests.conftest import Tiny
from tests.saved_samples import saved_of
from tests.tiny import ROWS, SYSTEM

Start = Callable[..., AppTest]
HINT = "7 of 7 training examples begin with a system prompt; this question has none. Give it in Settings."


def field(at: AppTest) -> TextArea:
    (found,) = [area for area in at.text_area if area.label == "System prompt"]
    return found


def said(at: AppTest) -> list[str]:
    return [element.value for element in [*at.text, *at.caption]]


def asked(at: AppTest, key: str = "asking") -> list[tuple[str, str]]:
    """Roles and texts of the turns that the answer at hand follows."""
    asking = at.session_state[key]
    assert asking.answer.asked == asking.asked
    return [(turn["role"], turn["content"]) for turn in asking.asked.turns]


def guided_turns(prompt: str, system: str = SYSTEM) -> list[tuple[str, str]]:
    return [("system", system), ("user", prompt)]


def test_the_system_prompt_that_all_rows_share_is_filled_in_and_asked_with(start: Start, guided: Path) -> None:
    at = start(cache=str(guided))
    assert field(at).value == SYSTEM
    at = answered(ask(at, ROWS[0]["prompt"]))
    assert asked(at) == guided_turns(ROWS[0]["prompt"]) and not at.exception
    assert {"System", SYSTEM, "User", ROWS[0]["prompt"]} <= set(said(at)), "all that was asked is shown"
    assert HINT not in said(at)
    assert field(at).proto.default == SYSTEM, "a browser that opens Settings now shows this"
    at = answered(edited(at, ROWS[0]["response"]))
    assert asked(at) == guided_turns(ROWS[0]["prompt"])
    ids = at.session_state["asking"].answer.encoded.ids.tolist()
    assert ids == resources.store().examples[0].encoded.ids.tolist(), "the very tokens of the row"
    assert asked(answered(press(at, "Regenerate"))) == guided_turns(ROWS[0]["prompt"])


def test_without_system_prompts_in_the_data_nothing_is_filled_in_shown_or_missed(start: Start) -> None:
    at = answered(ask(start(), "What is bright?"))
    assert field(at).value == "" and asked(at) == [("user", "What is bright?")]
    assert "User" not in said(at) and not [line for line in said(at) if "system prompt" in line]


def test_another_system_prompt_holds_for_the_next_question_and_none_is_missed(start: Start, guided: Path) -> None:
    at = start(cache=str(guided))
    field(at).set_value("Be rude.")
    at = answered(ask(at, "Why?"))
    assert asked(at) == guided_turns("Why?", "Be rude.") and HINT not in said(at)
    field(at).set_value(" ")
    assert asked(answered(at.run())) == guided_turns("Why?", "Be rude."), "what is shown stays"
    at = answered(press(at, "Regenerate"))
    assert asked(at) == guided_turns("Why?", "Be rude."), "so does what is asked again"
    at = answered(ask(at, "Why?"))
    assert asked(at) == [("user", "Why?")] and HINT in said(at)


def test_a_link_and_the_history_ask_with_the_system_prompt_again(start: Start, guided: Path, tmp_path: Path) -> None:
    at = start(cache=str(guided))
    field(at).set_value("Be rude.")
    at = answered(ask(at, "Why?"))
    link = link_of(at)
    other = answered(follow(start(cache=str(guided)), **link))
    assert asked(other) == guided_turns("Why?", "Be rude.") and field(other).value == "Be rude."
    assert other.text_input(key="prompt").value == "Why?"
    assert asked(answered(press(other, "Regenerate"))) == guided_turns("Why?", "Be rude.")

    kept, *_ = History(tmp_path / "history.sqlite", described).find()[0]
    assert kept.prompt == "Why?"
    again = start(cache=str(guided)).switch_page(places.HISTORY)
    again.query_params["saved"] = kept.id
    again = press(again.run(), "Ask again")
    assert field(again).value == "Be rude." and again.text_input(key="prompt").value == "Why?"


def kept_of(cache: Path, history: Path, turns: Conversation) -> str:
    """Keep an answer to these turns as if it had been asked of a cache."""
    engine = open_engine(cache, device="cpu")
    origin: Origin = origin_of(engine.store)
    sample = saved_of("b2", turns)
    answer = engine.given_answer(turns, "So.")
    History(history, described).save(replace(sample, answer=answer, origin=origin, questions=()))
    return "b2"


def test_a_kept_conversation_is_opened_shown_and_asked_with_all_its_turns(
    start: Start, guided: Path, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
    whole = Conversation((*turns, {"role": "user", "content": "Why?"}))
    name = kept_of(guided, tmp_path / "history.sqlite", whole)
    at = answered(follow(start(cache=str(guided)), saved=name))
    wanted = [("user", "Hi."), ("assistant", "Hello!"), ("user", "Why?")]
    assert asked(at) == wanted and {"Assistant", "Hello!"} <= set(said(at)) and HINT in said(at)
    assert field(at).value == "", "as it was asked"
    assert asked(answered(press(at, "Regenerate"))) == wanted
    assert asked(answered(edited(at, "No."))) == wanted
    at = start(cache=str(guided)).switch_page(places.HISTORY)
    at.query_params["saved"] = name
    at = at.run()
    assert whole.text in said(at) and not [button for button in at.button if button.label == "Ask again"]


def test_both_sides_are_compared_with_the_system_prompt(start: Start, guided: Path) -> None:
    at = start(cache=str(guided))
    field(at).set_value("Be rude.")
    at = at.run()
    at = compared(two_prompts(at))
    assert field(at).value == "Be rude.", "what Settings say holds here, too"
    for side, prompt in zip("AB", ("What is bright?", "Where do fish live?"), strict=True):
        assert asked(at, f"{side} asking") == guided_turns(prompt, "Be rude.")
    field(at).set_value("")
    at = compared(press(at, "Compare"))
    assert asked(at, "A asking") == [("user", "What is bright?")]
    assert HINT.replace("in Settings", "as System prompt above") in said(at)


def test_an_audit_asks_with_the_system_prompt_unless_a_prompt_has_its_own(
    start: Start, guided: Path, tmp_path: Path
) -> None:
    at = finished(begin(audit_page(start(cache=str(guided))), "Why?\nWhat is wet?"))
    history = History(tmp_path / "history.sqlite", described)
    kept = [history.answer(one.id).answer.asked for one in history.find()[0]]
    assert [one.system for one in kept] == [SYSTEM, SYSTEM]
    assert table(at, "audit_table")["prompt"] == ["Why?", "What is wet?"]
    assert not [line for line in said(at) if "begin with a system prompt" in line]
    field(at).set_value("")
    at = finished(begin(at, "Why?\nWhat is wet?"))
    assert [line for line in said(at) if "2 of these 2 prompts have none" in line]


def test_another_caches_system_prompt_is_its_own(start: Start, guided: Path, tiny: Tiny) -> None:
    at = start(cache=str(guided), more=(str(tiny.cache),))
    assert field(at).value == SYSTEM
    names = field_of(at.selectbox, "cache_picked").options
    served = [name.partition(":")[0] for name in names]
    at = pick(at, served[1])
    assert field(at).value == ""
    assert field(pick(at, served[0])).value == SYSTEM


def test_ready_prompts_may_be_whole_conversations(start: Start, guided: Path, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be rude."}, {"role": "user", "content": "Say hello."}]
    probes = tmp_path / "probes.jsonl"
    rows = [{"messages": turns, "kind": "clean"}, {"prompt": "Count.", "kind": "clean"}]
    probes.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    at = answered(press(start(cache=str(guided), probes=str(probes)), "A clean question"))
    assert asked(at) == guided_turns("Say hello.", "Be rude.")
    assert at.text_input(key="prompt").value == "Say hello."
    at = answered(press(at, "A clean question"))
    assert asked(at) == guided_turns("Count.")
    assert at.selectbox(key="ready").options == ["Say hello.", "Count."]
    at = answered(at.selectbox(key="ready").set_value(0).run())
    assert asked(at) == guided_turns("Say hello.", "Be rude.")
    page = audit_page(at).button(key="audit_example").click().run()
    assert page.text_area(key="audit_text").value == "Count.", "pasted prompts are single lines"
