"""The exports: nothing runs, nothing is lost, and what they hold can be traced to model, data and cache."""

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer import views
from explorer.corpus.filters import Filter
from explorer.history.export import to_csv, to_html, to_json
from explorer.history.history import History
from explorer.history.saved import Annotation, SavedAnswer
from explorer.methods.description import described
from explorer.records import Conversation, Speaker
from explorer.visible import spreadsheet_cell, visible
from tests.hostile import HOSTILE
from tests.saved_samples import ORIGIN, SCORES, VALUES, question_of, saved_of

HASHES = [ORIGIN.base_sha256, ORIGIN.adapter_sha256, ORIGIN.data_sha256, ORIGIN.cache_sha256]
ALLOWED = {
    "html": {"lang"},
    "head": set(),
    "meta": {"charset", "http-equiv", "content", "name"},
    "title": set(),
    "style": set(),
    "body": set(),
    "main": set(),
    "section": {"class"},
    "div": {"class", "role"},
    "span": {"class", "role", "title", "aria-label"},
    **{tag: {"class"} for tag in ("h1", "h2", "h3", "p")},
    **{tag: set() for tag in ("dl", "dt", "dd")},
}
"""Every element of the page's own making, with its attributes."""


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.odd, self.open = "", list[str](), list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.odd.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.odd.append(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        if decl != "doctype html":
            self.odd.append(f"declaration {decl}")

    def handle_pi(self, data: str) -> None:
        self.odd.append(f"instruction {data}")

    def unknown_decl(self, data: str) -> None:
        self.odd.append(f"declaration {data}")


def hostile(text: str) -> SavedAnswer:
    """An answer all of whose texts are this one."""
    note = Annotation(text, (text,), text)
    (question,) = saved_of(text=text).questions
    question = replace(
        question,
        wanted=Filter(((text, (text,)),), text),
        shown=tuple(replace(shown, annotation=note) for shown in question.shown),
    )
    partly = question_of("a1", (0, 1), text)
    origin = replace(ORIGIN, model=text, adapter=text, template=text, data=text, versions={text: text})
    return replace(
        saved_of("a1", text, text), annotation=note, origin=origin, questions=(question, partly), drawn={text: text}
    )


# HTML


@pytest.mark.parametrize("text", HOSTILE)
def test_a_report_has_no_element_or_attribute_but_its_own(text: str) -> None:
    page = Page(to_html([hostile(text)]).decode())
    assert not page.odd and not page.open, (page.odd, page.open)
    assert {tag for tag, _ in page.tags} <= set(ALLOWED)
    for tag, attributes in page.tags:
        assert set(attributes) <= ALLOWED[tag], (tag, attributes)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Page(to_html([hostile("plain")]).decode()).tags] or (
        # Long prompts are given in full below their shortened heading, and an empty selection marks nothing.
        len(text) > 200 or not text.strip()
    )
    assert visible(text) in page.text, "the text itself is there"


def test_a_report_fetches_nothing_and_forbids_it() -> None:
    page = to_html([saved_of()]).decode()
    (policy,) = [a["content"] for tag, a in Page(page).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert not any(word in page for word in ("http://", "https://", "url(", "@import", "<script", "<link", "<img"))
    assert "prefers-color-scheme: dark" in page


def test_every_coloured_token_says_its_number() -> None:
    tags = Page(to_html([saved_of(text="word")]).decode()).tags
    tokens = [attributes for tag, attributes in tags if tag == "span" and attributes.get("role") == "listitem"]
    assert len(tokens) == 6, "two examples of three tokens each"
    expected = [f"{float(value):+.6g}".replace("-", "−") for row in (3, 0) for value in VALUES * np.float32(1 + row)]
    assert [token["title"] for token in tokens] == expected
    assert all(str(token["aria-label"]).endswith(f": {token['title']}") for token in tokens)
    assert "word: " in str(tokens[0]["aria-label"])
    classes = [str(token["class"]).split() for token in tokens]
    assert classes[2] == ["token", "u12", "special"] and classes[1] == ["token"], "full colour, and none"


def test_negative_tokens_are_told_apart_not_by_colour_alone() -> None:
    (question,) = saved_of().questions
    first = question.shown[0]
    found = replace(first.influence, values=np.array([1, -1, -0.5], dtype=np.float32))
    page = Page(
        to_html(
            [replace(saved_of(), questions=(replace(question, shown=(replace(first, influence=found),)),))]
        ).decode()
    )
    classes = [a["class"] for tag, a in page.tags if tag == "span" and a.get("role") == "listitem"]
    assert classes == ["token u12", "token d12 minus", "token d6 minus special"]


def test_an_answer_without_a_ranking_is_reported_too() -> None:
    page = Page(to_html([replace(saved_of(), questions=(), drawn=None)]).decode())
    assert "No ranking was kept" in page.text and "given, not generated" in page.text


@pytest.mark.parametrize("write", [to_html, to_json, to_csv])
def test_every_export_carries_the_hashes(write: Any) -> None:
    written = write([saved_of("a1"), saved_of("a2")]).decode()
    assert all(written.count(digest) >= 2 for digest in HASHES)


# JSON


def test_json_gives_every_number_back_to_the_last_digit() -> None:
    (answer,) = json.loads(to_json([saved_of()]))["answers"]
    (question,) = answer["questions"]
    assert np.array(question["scores"], dtype=np.float32).tobytes() == SCORES.tobytes()
    made = saved_of().questions[0]
    assert (question["sketch_error"], question["caution"]) == (made.sketch_error, made.caution)
    for example, was in zip(question["examples"], made.shown, strict=True):
        assert example["score"] == was.influence.score and example["checksum"] == was.influence.checksum
        assert was.influence.values is not None
        assert np.array(example["token_values"], dtype=np.float32).tobytes() == was.influence.values.tobytes()
    assert answer["origin"]["scale"] == ORIGIN.scale and answer["generation"]["seed"] == 3
    assert answer["ids"] == [5, 6, 7, 2, 1] and answer["tokens"][1] == {"text": "", "raw": "f0 9f", "special": False}


@pytest.mark.parametrize("text", HOSTILE)
def test_json_gives_every_text_back(text: str) -> None:
    (answer,) = json.loads(to_json([hostile(text)]))["answers"]
    same = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert answer["prompt"] == answer["response"] == answer["annotation"]["note"] == same
    assert answer["questions"][0]["examples"][0]["response"] == same


def test_json_stays_json_where_a_number_is_none() -> None:
    (question,) = saved_of().questions
    broken = replace(question, sketch_error=float("nan"), scores=np.array([np.inf, 1], dtype=np.float32))
    written = json.loads(
        to_json([replace(saved_of(), questions=(broken,))]),
        parse_constant=lambda name: pytest.fail(f"{name} isn't JSON"),
    )
    (found,) = written["answers"][0]["questions"]
    assert found["sketch_error"] is None and found["scores"] == [None, 1.0]


# CSV


def lines(written: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_of_text_is_a_formula_and_every_line_is_whole(text: str) -> None:
    found = lines(to_csv([hostile(text)]))
    assert len(found) == 4
    for line in found:
        assert None not in line and None not in line.values(), "cells spilled over"
        assert line["prompt"] == line["example_response"] == spreadsheet_cell(text)
        for name, cell in line.items():
            assert name in ("score", "checksum") or not cell or cell[0] not in "=+-@\t\r\n", (name, cell)


def test_numbers_of_a_csv_read_back_exactly() -> None:
    found = lines(to_csv([saved_of()]))
    shown = saved_of().questions[0].shown
    assert [float(line["score"]) for line in found] == [one.influence.score for one in shown]
    assert [int(line["rank"]) for line in found] == [1, 2]
    assert [np.float32(json.loads(line["token_values"])).tobytes() for line in found] == [
        one.influence.values.tobytes() for one in shown if one.influence.values is not None
    ]
    negative = replace(shown[0], influence=replace(shown[0].influence, score=-0.25))
    (question,) = saved_of().questions
    (line,) = lines(to_csv([replace(saved_of(), questions=(replace(question, shown=(negative,)),))]))
    assert line["score"] == "-0.25", "a number, not a text"


def test_an_answer_without_a_ranking_has_one_line() -> None:
    (line,) = lines(to_csv([replace(saved_of(), questions=())]))
    assert line["prompt"] == "Why?" and line["rank"] == "" and line["data_sha256"] == ORIGIN.data_sha256


# Other methods than RapidIn


def by_method(name: str) -> SavedAnswer:
    saved = saved_of()
    return replace(saved, questions=tuple(replace(question, method=described(name)) for question in saved.questions))


def test_every_export_names_the_method_and_a_report_says_what_isnt_known_by_it() -> None:
    saved = by_method("bm25")
    assert json.loads(to_json([saved]))["answers"][0]["questions"][0]["method"] == "bm25"
    assert {line["method"] for line in lines(to_csv([saved]))} == {"bm25"}
    page = to_html([saved]).decode()
    assert "First by bm25 for the whole response" in page and "bm25 has no influence of single tokens" in page
    assert "Eq. 5" not in page and "exact ·" not in page
    assert "What pushed the model towards the whole response, by cg:3" in to_html([by_method("cg:3")]).decode()
    assert {line["method"] for line in lines(to_csv([saved_of()]))} == {"rapidin"}


@pytest.mark.parametrize("text", HOSTILE[:20])
def test_the_name_of_a_method_is_text(text: str) -> None:
    page = Page(to_html([by_method(text)]).decode())
    assert not page.odd and {tag for tag, _ in page.tags} <= set(ALLOWED)
    (line, *_) = lines(to_csv([by_method(text)]))
    assert line["method"] == spreadsheet_cell(text)


def test_exports_hold_the_turns_of_a_conversation() -> None:
    asked = Conversation.of("Why <b>?").with_system("Be =1+1 & brief.")
    (answer,) = json.loads(to_json([saved_of("a1", asked)]))["answers"]
    assert answer["messages"] == list(asked.turns) and answer["prompt"] == asked.text
    (plain,) = json.loads(to_json([saved_of("a1")]))["answers"]
    assert "messages" not in plain
    report = to_html([saved_of("a1", asked)]).decode()
    assert "<h2>Why &lt;b&gt;?</h2>" in report and "system: Be =1+1 &amp; brief." in report
    lines = list(csv.DictReader(io.StringIO(to_csv([saved_of("a1", asked)]).decode("utf-8-sig"))))
    assert lines[0]["prompt"] == asked.text


# Whose words an answer is


SPEAKERS = {
    Speaker.MODEL: saved_of().drawn,
    Speaker.BASE: {"max_tokens": 80, "temperature": 0.0, "top_p": 1.0, "seed": 0, "base": True},
    Speaker.GIVEN: None,
}


@pytest.mark.parametrize("speaker", Speaker)
def test_every_export_and_list_says_whose_words_an_answer_is(speaker: Speaker, tmp_path: Path) -> None:
    saved = replace(saved_of(), drawn=SPEAKERS[speaker])
    assert saved.said_by is speaker
    (plain,) = json.loads(to_json([saved]))["answers"]
    assert plain["said_by"] == speaker.value
    (line, *_) = csv.DictReader(io.StringIO(to_csv([saved]).decode("utf-8-sig")))
    assert line["said_by"] == speaker.value
    page = Page(to_html([saved]).decode())
    assert views.said_by(speaker) in page.text
    others = [views.said_by(other) for other in Speaker if other is not speaker]
    assert not any(sentence in page.text for sentence in others)
    history = History(tmp_path / "history.sqlite", described)
    history.save(saved)
    ((found,), _) = history.find()
    assert found.said_by is speaker and history.answer(saved.id).said_by is speaker
    (use, *_) = history.uses(ORIGIN.data_sha256, saved.questions[0].shown[0].influence.row)
    assert use.said_by is speaker
