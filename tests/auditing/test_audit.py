"""Many prompts at once: how they are read, what they come to, what is written, and who goes first."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Auditing, Question
from explorer.auditing import findings
from explorer.auditing.findings import Audited, Label, pasted_prompts, read_prompts
from explorer.auditing.run import AuditSettings
from explorer.engine import Engine
from explorer.errors import DataError, ExplorerError, HistoryError
from explorer.history.saved import SavedAnswer
from explorer.methods.description import choose, described
from explorer.methods.opening import open_method
from explorer.model.generation import GenerationSettings
from explorer.records import Conversation, NullTest
from explorer.trust.verdict import State, Verdict
from explorer.trust.words import raised_word
from explorer.visible import well_formed
from tests.asking import OWN
from tests.conftest import Turnstile
from tests.hostile import FORMULAS, HOSTILE
from tests.saved_samples import ORIGIN, example_of, saved_of

SHORT = AuditSettings(GenerationSettings(max_tokens=4), method=OWN)
PLANTED = Label("source", ("bad",))

# Prompts


def test_prompts_are_read_in_their_order_with_duplicates() -> None:
    wanted = ("Why?", "What?", "Why?")
    assert pasted_prompts("Why?\r\n\n  What?\nWhy?\n ") == wanted
    assert read_prompts("a.TXT", b"\xef\xbb\xbfWhy?\nWhat?\n\nWhy?") == wanted
    assert read_prompts("a.jsonl", b'{"prompt": "Why?", "n": 1}\n{"prompt": "What?"}\n\n{"prompt": "Why?"}\n') == wanted
    assert read_prompts("a.csv", b"n,prompt\n1,Why?\n2,What?\n3,Why?\n") == wanted


def test_prompts_may_have_a_system_prompt_or_be_whole_conversations() -> None:
    plain, guided = "Why?", Conversation.of("Why?").with_system("Be brief.")
    turns = b'[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]'
    lines = [b'{"prompt": "Why?"}', b'{"prompt": "Why?", "system": "Be brief."}', b'{"messages": %s}' % turns]
    assert read_prompts("a.jsonl", b"\n".join(lines)) == (plain, guided, guided)
    assert read_prompts("a.csv", b"system,prompt\n,Why?\nBe brief.,Why?\n") == (plain, guided)


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("a.txt", b"", "holds no prompts"),
        ("a.txt", b" \n\t\n", "holds no prompts"),
        ("a.txt", b"Why \xff?", "is no UTF-8 text (invalid start byte, in line 1); save it as UTF-8"),
        ("a.txt", "Why?".encode("utf-16"), "is UTF-16, and no UTF-8 text"),
        ("a.txt", "Why?".encode("utf-16-le"), "holds a NUL character in line 1"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        ("a.jsonl", b'{"prompt": "Why?", "prompt": "What?"}', 'the key "prompt" stands twice'),
        ("a.csv", b"prompt,n\nWhy?\n", "line 2, has more or fewer cells than the header"),
        ("a.csv", b"prompt,prompt\nWhy?,What?\n", "line 1, names the column prompt twice"),
        ("a.txt", b"x" * (findings.MOST_BYTES + 1), "at most 1 MB"),
        ("a.txt", b"x\n" * (findings.MOST_PROMPTS + 1), "1,001 prompts"),
        ("a.xlsx", b"Why?", "unknown ending"),
        ("a.jsonl", b'{"prompt": "Why?"}\n{"prompt": ', "line 2, is no JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1, is no JSON"),
        ("a.jsonl", b'{"question": "Why?"}', 'line 1, has no text as "prompt"'),
        ("a.jsonl", b'{"prompt": 3}', 'line 1, has no text as "prompt"'),
        ("a.jsonl", b'"Why?"', 'line 1, has no text as "prompt"'),
        ("a.jsonl", b'{"messages": []}', "line 1, has no list of turns"),
        ("a.jsonl", b'{"prompt": "Why?"}\n{"prompt": "Why?", "system": 1}', 'line 2, has no text as "system"'),
        ("a.csv", b"question\nWhy?\n", "no column prompt; its first line names question"),
        ("a.csv", b"", "holds no prompts"),
        ("a.csv", b'prompt\n"Why?\n', "is no CSV"),
    ],
)
def test_files_that_hold_no_prompts_are_refused_with_what_mends_them(name: str, payload: bytes, said: str) -> None:
    with pytest.raises(DataError, match="(?s)" + name) as refused:
        read_prompts(name, payload)
    assert said in str(refused.value)


def test_hostile_prompts_are_read_as_they_are_wherever_a_tokenizer_can_take_them() -> None:
    lines = "".join(json.dumps({"prompt": text}) + "\n" for text in HOSTILE)
    assert read_prompts("a.jsonl", lines.encode()) == tuple(map(well_formed, HOSTILE))
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["prompt"], *([well_formed(text)] for text in HOSTILE if text)])
    assert read_prompts("a.csv", out.getvalue().encode()) == tuple(well_formed(text) for text in HOSTILE if text)


# What it comes to


def record(*sources: str, prompt: str = "Why?", caution: str = "", state: State | None = None) -> Audited:
    """An audited prompt whose answer was influenced by examples of these sources, best first."""
    judged = state and Verdict(state, NullTest(200, 0, 0, 3.0), None, opponents=False, whole=True)
    saved = saved_of("a" * 16, prompt)
    (question,) = saved.questions
    shown = tuple(replace(question.shown[0], example=example_of(row, source)) for row, source in enumerate(sources))
    return Audited(
        Conversation.of(prompt),
        replace(saved, questions=(replace(question, shown=shown, caution=caution, scores=None, verdict=judged),)),
    )


def test_shares_are_means_over_the_answers_and_failures_count_for_none() -> None:
    done = [
        record("bad", "bad", "good", "good"),
        record("good", caution="Nothing."),
        Audited(Conversation.of(""), error="Empty."),
    ]
    data = [example_of(row, "bad" if row < 2 else "good") for row in range(10)]
    assert [one.planted(PLANTED) for one in done] == [0.5, 0.0, None]
    found = findings.summary(done, PLANTED, data)
    assert (found.prompts, found.failed, found.standing_out) == (3, 1, 1)
    assert found.planted == 0.25 and found.planted_of_all == 0.2
    assert found.shares == {"good": 0.75, "bad": 0.25} and list(found.shares) == ["good", "bad"]
    said = " ".join(findings.sentences(found, PLANTED))
    assert "2 prompts answered; 1 could not" in said and "25% of the top 10" in said and "20.0% of the training" in said


def test_the_headline_says_what_the_table_says() -> None:
    done = [
        record("bad", "bad", "good", prompt="One?", state="strong"),
        record("good", "good", "bad", prompt="Two?", state="strong"),
        record("bad", "good", prompt="Three?", state="some"),
        record("bad", "bad", prompt="Four?", state="none"),
        Audited(Conversation.of("Five?"), error="Empty."),
    ]
    assert [one.main_source(Label())[:2] for one in done] == [("bad", 2), ("good", 2), ("bad", 1), ("bad", 2), ("", 0)]
    found = findings.summary(done, PLANTED, [example_of(0, "bad")])
    assert found.evidence == {"strong": 2, "some": 1, "none": 1}
    said = findings.sentences(found, PLANTED)[1]
    assert said == (
        "1 of 4 answers has strong evidence for planted rows: “One?”. 1 has strong evidence for other rows. "
        "1 more has some evidence."
    )
    unlabelled = findings.sentences(findings.summary(done, Label(), []), Label())[1]
    assert (
        unlabelled == "2 of 4 answers have strong evidence, mostly from: bad (1), good (1). 1 more has some evidence."
    )
    written = json.loads(findings.to_json(done, PLANTED, [], ORIGIN))
    assert [one["evidence"] for one in written["prompts"]] == ["strong", "strong", "some", "none", None]
    assert written["summary"]["evidence"] == {"strong": 2, "some": 1, "none": 1}
    text = findings.as_text(done, PLANTED, [])
    assert "bad 2, good 1; strong evidence" in text and "no clear source" in text


def test_nothing_audited_has_no_share() -> None:
    found = findings.summary([], PLANTED, [])
    assert found.planted is None and found.shares == {} and found.planted_of_all == 0.0


def test_a_value_that_no_example_has_is_refused_by_name() -> None:
    with pytest.raises(ExplorerError, match="source worse; its values are: bad"):
        Label("source", ("worse",)).check([example_of(0, "bad")])


# Files


def test_the_files_hold_every_prompt_and_no_formula() -> None:
    done = [record(text, prompt=text) for text in HOSTILE] + [Audited(Conversation.of(""), error="=1+1")]
    lines = list(csv.DictReader(io.StringIO(findings.to_csv(done, PLANTED, ORIGIN).decode("utf-8-sig"), newline="")))
    assert len(lines) == len(done) and lines[-1]["error"] == "'=1+1" and lines[0]["planted_share"] == "0.0"
    assert lines[0]["data_sha256"] == ORIGIN.data_sha256 and lines[0]["rows"] == "3"
    run = tuple("=+-@\t\r\n\uff1d")
    assert not [cell for line in lines for cell in line.values() if cell.startswith(run)]
    assert {f"'{well_formed(text)}" for text in FORMULAS if text.startswith(run)} <= {line["prompt"] for line in lines}
    found = json.loads(findings.to_json(done, PLANTED, [example_of(0, "bad")], ORIGIN))
    assert [well_formed(one["prompt"]) for one in found["prompts"]] == [well_formed(one.prompt) for one in done]
    assert found["summary"]["failed"] == 1 and found["prompts"][-1]["answer"] is None


# On the worker


@pytest.fixture
def desk(tiny_engine: Engine) -> Iterator[Desk]:
    made = Desk(tiny_engine)
    yield made
    made.worker.close()


def begun(desk: Desk, prompts: list[str], kept: list[SavedAnswer], settings: AuditSettings = SHORT) -> Auditing:
    return desk.audit("me", prompts, settings, ORIGIN, kept.append)


def test_a_prompt_that_fails_is_reported_in_its_place_and_the_others_are_kept(desk: Desk) -> None:
    kept: list[SavedAnswer] = []
    auditing = begun(desk, ["Why?", "", "y" * 500, "What?"], kept)
    assert auditing.task.wait(60) and auditing.task.error is None
    assert [one.prompt for one in auditing.done] == ["Why?", "", "y" * 500, "What?"]
    assert [bool(one.error) for one in auditing.done] == [False, True, True, False]
    assert "empty" in auditing.done[1].error and "shorten" in auditing.done[2].error
    assert [saved.answer.prompt for saved in kept] == ["Why?", "What?"]
    assert kept[0].questions[0].scores is not None, "the history keeps all scores"
    assert auditing.done[0].saved is not None and auditing.done[0].saved.id == kept[0].id
    assert auditing.seconds_left == 0


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_recorded_is_what_the_engine_ranks(desk: Desk, exact: bool) -> None:
    kept: list[SavedAnswer] = []
    auditing = begun(desk, ["What is bright?"], kept, replace(SHORT, exact=exact))
    assert auditing.task.wait(60) and auditing.task.error is None
    (saved,) = kept
    word = raised_word(saved.answer.tokens, desk.engine.predict(saved.answer).change)
    assert [question.selection for question in saved.questions] == ([None] if word is None else [word, None])
    for question in saved.questions:
        ranking = desk.own.ranking(saved.answer, question.selection, findings.TOP)
        shown = [shown.influence for shown in question.shown]
        assert [(one.row, one.score) for one in shown] == [(one.row, one.score) for one in ranking.influences]
        assert all(one.exact is exact for one in shown) and len(shown) == 7
    assert sum(auditing.done[0].counts(Label()).values()) == 7


@pytest.mark.parametrize(
    ("method", "exact"), [("bm25", False), ("graddot", True), ("repsim", True), ("random:3", False)]
)
def test_any_method_may_score_and_what_it_needs_once_is_computed_first(desk: Desk, method: str, exact: bool) -> None:
    kept: list[SavedAnswer] = []
    auditing = begun(desk, ["What is bright?", "", "Why?"], kept, replace(SHORT, exact=exact, method=choose(method)))
    assert auditing.task.wait(60) and auditing.task.error is None
    assert [bool(one.error) for one in auditing.done] == [False, True, False]
    for saved, one in zip(kept, auditing.done[::2], strict=True):
        (question,) = saved.questions
        asked = open_method(desk.engine, method)
        asked.fit()
        scores = asked.scores(saved.answer, None)
        assert question.method.name == method
        assert np.allclose(question.scores, scores, rtol=1e-5)  # type: ignore[arg-type]
        assert {shown.influence.row for shown in question.shown} == set(range(7))
        assert one.stands_out is None, "this is known of RapidIn's alone"
    found = findings.summary(auditing.done, PLANTED, desk.engine.store.examples)
    assert found.standing_out is None and "stands out" not in " ".join(findings.sentences(found, PLANTED))
    text = findings.as_text(auditing.done, PLANTED, desk.engine.store.examples)
    assert "stands out" not in text and "not answered" in text
    lines = list(csv.DictReader(io.StringIO(findings.to_csv(auditing.done, PLANTED, ORIGIN).decode("utf-8-sig"))))
    assert [line["method"] for line in lines] == [method, "", method]


def test_a_method_that_the_cache_cannot_serve_is_refused_before_the_first_answer(desk: Desk) -> None:
    for method, said in (("rapidin-centred", "unrelated prompts"), ("magic", "magic")):
        with pytest.raises(ExplorerError, match=said):
            begun(desk, ["Why?"], [], replace(SHORT, method=described(method)))


def test_an_answer_that_the_history_refuses_is_audited_all_the_same(desk: Desk) -> None:
    def refuse(saved: SavedAnswer) -> None:
        raise HistoryError("The disk is full.")

    auditing = desk.audit("me", ["Why?"], SHORT, ORIGIN, refuse)
    assert auditing.task.wait(60)
    assert auditing.done[0].saved is not None and auditing.done[0].unsaved == "The disk is full."


def test_cancelling_keeps_what_is_done(desk: Desk) -> None:
    kept: list[SavedAnswer] = []

    def keep(saved: SavedAnswer) -> None:
        kept.append(saved)
        if len(kept) == 2:
            auditing.task.cancel()

    turnstile = Turnstile(desk.worker)
    auditing = desk.audit("me", ["One?", "Two?", "Three?"], SHORT, ORIGIN, keep)
    turnstile.open()
    assert auditing.task.wait(60) and auditing.task.cancelled and auditing.task.error is None
    assert [one.prompt for one in auditing.done] == ["One?", "Two?"] and len(kept) == 2


def test_whatever_a_person_asks_for_overtakes_an_audit(desk: Desk) -> None:
    turnstile = Turnstile(desk.worker)
    auditing = begun(desk, ["One?", "Two?", "Three?"], [])
    asking = desk.ask("someone", "What is bright?", SHORT.generation)
    turnstile.open()
    assert asking.task.wait(60) and asking.answer is not None
    explaining = desk.explain("someone", Question(asking.answer, None, False, 3, method=OWN))
    assert explaining.checked.wait(60)
    assert auditing.task.wait(60) and len(auditing.done) == 3 and auditing.task.error is None


def test_an_audit_waits_while_anything_else_is_left_to_do(desk: Desk) -> None:
    while desk.corpus.ready is False:
        pass
    turnstile = Turnstile(desk.worker)
    auditing = begun(desk, ["One?"], [])
    answer = desk.ask("someone", "What is bright?", SHORT.generation)
    steps = 0
    # What follows the answer has half of the time, and a turn of the turnstile is short.
    while not answer.task.finished and steps < 100_000:
        turnstile.let_through(1)
        steps += 1
    assert answer.task.finished and not auditing.done, "the audit hasn't begun"
    turnstile.open()
    assert auditing.task.wait(60) and len(auditing.done) == 1
