"""Two hundred hostile texts in every role, on every page and in every export, in a real browser on a tiny model."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from explorer.cache.manifest import CacheSettings
from explorer.corpus.filters import EVERYTHING
from explorer.history import export
from explorer.history.history import History
from explorer.history.saved import Annotation, SavedAnswer, saved_question
from explorer.methods.description import described
from explorer.model.loading import load_model
from explorer.records import Influence, Ranking, Token
from precompute.build import build_cache
from precompute.data import read_examples
from tests.asking import OWN
from tests.browser.conftest import PATIENCE_MS, go, menu, more_of
from tests.hostile import HOSTILE
from tests.saved_samples import answer_of, example_of, question_of, saved_of
from tests.serving.command import served
from tests.tiny import save_tiny_adapter, save_tiny_model

TOGETHER = 20
"""Texts that are one prompt at once."""
ABREAST = 4
"""Texts that are one prompt of an audit: every prompt is a question to the model."""
KEPT = 40
"""Texts that a saved answer holds."""
SHORT = 60
"""A tiny model reads few characters at once; texts of full length stand in the history."""

INTRUDERS = """() => {
  const ours = new URL(location.href).origin;
  const found = [];
  const strange = "h1, iframe, object, embed, base, marquee, math, xmp, plaintext, video, audio, custom-element, " +
    "img, area, link[href*=evil], meta[http-equiv=refresh], input[type=password], .katex, form[action], " +
    "[formaction], [background], [srcdoc]";
  const walk = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.shadowRoot) walk(element.shadowRoot);
      const leading = ["href", "src", "action", "data"].map((name) => element.getAttribute(name) ?? "");
      const runs = [...element.attributes].some((one) => /^on/i.test(one.name)) ||
        leading.some((value) => /^\\s*java\\s*script:/i.test(value));
      const leads = element.localName === "a" && element.hasAttribute("href") && element.origin !== ours;
      if (runs || leads || element.matches(strange)) found.push(element.outerHTML.slice(0, 200));
    }
  };
  walk(document);
  return found;
}"""
"""Elements that none of the pages has of its own, in all shadow trees."""


def groups(texts: Sequence[str], size: int = TOGETHER) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose training texts, labels and columns are hostile, and a history full of them."""
    folder = tmp_path_factory.mktemp("hostile")
    model = save_tiny_model(folder / "model", positions=2048)
    adapter = save_tiny_adapter(folder / "adapter", model)
    # Half characters are refused in training data, by name.
    whole = [text[:SHORT] for text in HOSTILE if not any("\ud800" <= character <= "\udfff" for character in text)]
    rows = [
        {"prompt": "\n".join(texts), "response": "\n".join(texts), "source": texts[0]}
        | {f"<b onclick=alert(1)>{place}</b>": text for place, text in enumerate(texts[1:])}
        for texts in groups([text for text in whole if text.strip()])
    ]
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    loaded = load_model(str(model), adapter, device="cpu")
    build_cache(
        loaded, read_examples(data), folder / "cache", CacheSettings(length=4096), tokens=0, data_name=data.name
    )
    history = History(folder / "history.sqlite", described)
    for place, kept in enumerate(saved()):
        history.save(kept)
        for text in kept.questions[0].shown:
            history.annotate_example(kept.origin.data_sha256, text.influence.row, kept.annotation)
        history.annotate(f"h{place}", kept.annotation)
    history.close()
    return folder


def saved() -> Iterator[SavedAnswer]:
    """Answers that hold all texts as prompt, answer, examples, labels, verdict, tags and note."""
    for place, texts in enumerate(groups(HOSTILE, KEPT)):
        joined, name = "\n".join(texts), f"h{place}"
        found = tuple(Influence(row, 1.0 - row, True, np.ones(3, np.float32), 0.0) for row in range(len(texts)))
        examples = tuple((example_of(row, text), None) for row, text in enumerate(texts))
        ranking = Ranking("feed", None, False, np.linspace(-1, 1, 50, dtype=np.float32), found, 0.01, method=OWN)
        answer = replace(answer_of(joined, joined), tokens=tuple(Token(text) for text in texts))
        question = saved_question(name, 1.7e9, ranking, EVERYTHING, examples)
        kept = saved_of(name, asked=1.7e9 + place)
        yield replace(kept, answer=answer, questions=(question,), annotation=Annotation(texts[0], tuple(texts), joined))


class Watched:
    """A page on which nothing of these texts may run, load, lead anywhere or break the layout."""

    def __init__(self, browser: Browser, place: str) -> None:
        self.trouble: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": 1000, "height": 900})
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("dialog", lambda dialog: self.trouble.append(f"dialog: {dialog.message}"))
        self.page.on("pageerror", lambda error: self.trouble.append(f"script error: {error}"))
        self.page.on("request", lambda request: self.asked(request.url, place))

    def asked(self, url: str, place: str) -> None:
        if not url.startswith((place, place.replace("http", "ws"), "data:", "blob:", "file:")):
            self.trouble.append(f"request: {url}")

    def stands(self, where: str) -> None:
        """The page is as it should be."""
        assert not self.trouble, (where, self.trouble)
        assert self.page.evaluate(INTRUDERS) == [], where
        assert self.page.get_by_text("This app has encountered an error").count() == 0, where
        scrolled = "[document.documentElement, ...document.querySelectorAll('.stMain')]"
        assert not self.page.evaluate(f"{scrolled}.some(part => part.scrollWidth > part.clientWidth)"), (
            f"{where} scrolls sideways"
        )


def test_no_hostile_text_runs_or_breaks_a_page_or_an_export(home: Path, browser: Browser) -> None:
    assert len(HOSTILE) >= 200
    options = ("--history", str(home / "history.sqlite"), "--device", "cpu")
    with served("serve", str(home / "cache"), *options) as place:
        watched = Watched(browser, place)
        look_at_saved_answers(watched, place)
        look_at_training_data(watched, place)
        look_at_an_audit(watched, place)
        look_at_answers(watched, place)
        look_at_a_comparison(watched, place)
        watched.page.close()
    look_at_reports(Watched(browser, home.as_uri()), home)


def test_what_cannot_be_seen_or_reads_from_right_to_left_is_shown_faithfully(tmp_path: Path, browser: Browser) -> None:
    tokens = (
        Token("One"),
        Token("\n"),
        Token("  "),
        Token("شا"),
        Token("هد"),
        Token("👩‍👩‍👧"),
        Token("", raw="f0 9f"),
        Token("\u202e"),
        Token("<|end|>", special=True),
    )
    # What was asked about the line break is kept, too: a click on any other token would only be selected for a moment.
    kept = saved_of("a1")
    questions = (*kept.questions, question_of("a1", (1, 2)))
    history = History(tmp_path / "history.sqlite", described)
    history.save(replace(kept, answer=replace(kept.answer, tokens=tokens), questions=questions))
    history.close()
    with served("history", "--history", str(tmp_path / "history.sqlite")) as place:
        page = browser.new_page(viewport={"width": 375, "height": 700})
        page.goto(f"{place}/?saved=a1")
        shown = page.locator(".strip .token")
        expect(shown).to_have_count(len(tokens))
        texts = ["One", "↵\n", "··", "شا", "هد", "👩‍👩‍👧", "\ufffd", "U+202E", "■ end"]
        assert shown.all_text_contents() == texts
        assert shown.nth(6).get_attribute("title") == "part of a character, bytes f0 9f"
        assert shown.nth(1).get_attribute("aria-label") == "line break"
        # Letters of one word join though they are two tokens: nothing stands between, the first is on the right.
        first, second = (shown.nth(place).bounding_box() for place in (3, 4))
        assert first and second and abs(second["x"] + second["width"] - first["x"]) < 1
        shown.nth(1).click()
        page.get_by_text("(token 1)").first.wait_for()
        expect(shown.nth(1)).to_have_attribute("aria-selected", "true")
        page.close()


def look_at_saved_answers(watched: Watched, place: str) -> None:
    page = watched.page
    page.goto(f"{place}/history")
    page.get_by_text("saved answers, newest first").wait_for()
    watched.stands("the list of saved answers")
    for number, texts in enumerate(groups(HOSTILE, KEPT)):
        page.goto(f"{place}/history?saved=h{number}")
        expect(page.locator(".card")).to_have_count(len(texts))
        expect(page.locator(".strip .token")).to_have_count(len(texts))
        expect(page.get_by_text("What you think of it")).to_be_visible()
        watched.stands(f"saved answer {number}")


def look_at_training_data(watched: Watched, place: str) -> None:
    page = watched.page
    page.goto(f"{place}/data")
    page.get_by_text("Click a row to see it in full").wait_for()
    watched.stands("the table of training data")
    for row in range(0, 10, 3):
        page.goto(f"{place}/data?row={row}")
        page.locator(".strip .token").first.wait_for()
        page.get_by_text("What you think of it").wait_for()
        watched.stands(f"training row {row}")


def look_at_an_audit(watched: Watched, place: str) -> None:
    page = watched.page
    go(page, "Audit")
    lines = [" ".join(text[:SHORT].split()) for text in HOSTILE if text.isprintable() and text.strip()]
    page.get_by_label("Prompts, one a line").fill("\n".join(map(" ".join, groups(lines, ABREAST))))
    page.get_by_label("Longest answer, in tokens").fill("1")
    page.get_by_role("button", name="Audit", exact=True).click()
    page.get_by_text("Rows that count as planted").wait_for()
    page.locator("[data-testid=stMultiSelect] input").first.click()
    watched.stands("an audit")


def look_at_answers(watched: Watched, place: str) -> None:
    """All rows as cards, and texts as prompts, answers and filters."""
    page = watched.page
    page.goto(place)
    before = ""
    for texts in list(groups(HOSTILE))[::3]:
        joined = "\n".join(text[:SHORT] for text in texts)
        page.get_by_label("Ask the model").fill(joined)
        page.get_by_label("Ask the model").press("Enter")
        # The answer before may stand for a moment.
        page.locator(f".strip[data-streaming='false']:not([data-text-id='{before}'])").wait_for()
        before = page.locator(".strip").get_attribute("data-text-id") or ""
        menu(page, "answer")
        page.get_by_label("Ask about this text").fill(joined.replace("\0", ""))
        page.get_by_role("button", name="Attribute this text").click()
        page.locator(f".strip[data-streaming='false']:not([data-text-id='{before}'])").wait_for()
        before = page.locator(".strip").get_attribute("data-text-id") or ""
        page.locator(".card").first.wait_for()
        watched.stands(f"the answer {joined!a}")
    shown = page.locator(".card").count()
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).not_to_have_count(shown)
    more_of(page.locator(".card").first).get_by_role("button", name="Token × token").click()
    page.get_by_text("Token × token", exact=True).first.wait_for()
    menu(page, "more")
    page.locator("[data-testid=stPopoverBody] [data-testid=stMultiSelect] input").first.click()
    watched.stands("all cards, a matrix and the filter")


def look_at_a_comparison(watched: Watched, place: str) -> None:
    page = watched.page
    page.goto(f"{place}/compare")
    lines = ["".join(text[:SHORT] for text in texts if text.isprintable()) for texts in list(groups(HOSTILE))[:2]]
    for side, line in zip("AB", lines, strict=True):
        page.get_by_label(f"Prompt of {side}").fill(line)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".strip[data-streaming='false']").nth(1).wait_for()
    page.locator(".card").first.wait_for()
    watched.stands("a comparison")


def look_at_reports(watched: Watched, home: Path) -> None:
    answers = list(saved())
    for ending, write in (("html", export.to_html), ("json", export.to_json)):
        file = home / f"report.{ending}"
        file.write_bytes(write(answers))
        watched.page.goto(file.as_uri())
        watched.page.wait_for_timeout(300)
        assert not watched.trouble, (ending, watched.trouble)
    watched.page.goto((home / "report.html").as_uri())
    assert watched.page.locator("section.card").count() == len(HOSTILE)
    assert watched.page.locator("script, img, iframe, a[href^='java'], input, form, object").count() == 0
    assert watched.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    watched.page.close()
