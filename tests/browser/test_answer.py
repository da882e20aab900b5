"""The answer itself as a view: colours, why this and not that, the matrix; and that no label becomes markup."""

import re
from collections.abc import Callable

import numpy as np
import plotly.offline
from playwright.sync_api import Browser, Page, expect

from explorer.app.explore.matrix_panel import figure
from explorer.records import TokenMatrix
from tests.browser.conftest import WITH_ANY, ask, colour, keep, more_of, select
from tests.browser.test_journeys import SWAPPED

Visit = Callable[..., Page]


@WITH_ANY
def test_colours_matrix_and_why_this_and_not_that_by_keyboard(visit: Visit, planted: bool, either: str) -> None:
    page = visit(height=1300, place=either)
    ask(page, SWAPPED)
    tokens = page.locator(".strip .token")
    said = "Canada" if planted else ""
    word = next(place for place, text in enumerate(tokens.all_inner_texts()) if said in text and place >= 3)
    colour(page, "Fine-tuning")
    page.locator(".strip[data-coloured='nats']").wait_for()
    name = tokens.nth(word).get_attribute("aria-label") or ""
    # Where the word comes from may be known by now, and stands behind it.
    taught = r"Canada(, [a-z ]+)?: \+.* nats" if planted else r".*: [+−].* nats"
    assert re.fullmatch(taught, name), f"fine-tuning taught the model this word: {name}"
    coloured = page.locator(".strip .token[style*='background-color']")
    assert (tokens.nth(word).and_(coloured) if planted else coloured).count() > 0
    assert not planted or page.locator(".strip .token.faint").count() > 0, "fine-tuning left some tokens alone"

    select(page, word)
    more_of(page.locator(".card").first).get_by_role("button", name="Token × token").click()
    page.locator(".js-plotly-plot:visible").first.wait_for()
    page.get_by_text("✓ (relative difference").wait_for()

    # From the selected token the candidates come next in the tab order.
    page.locator(".strip").focus()
    page.locator(".choice", has_text="China" if planted else None).first.wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    one, other = ("Canada", "China") if planted else (".+", ".+")
    page.get_by_text(re.compile(f"Why “{one}” and not “{other}”: what pushed the model towards “{one}”")).wait_for()
    expect(page.locator(".choice[aria-pressed='true']")).to_have_count(1)
    assert not planted or page.locator(".choice[aria-pressed='true']").inner_text().startswith("China")
    page.locator(".cards[data-view-id*='Contrast']:has(.card)").wait_for()
    cards = page.locator(".card").all_inner_texts()
    assert not planted or sum("swap-china-canada" in text for text in cards[:5]) >= 4, cards
    keep(page, "explore-contrast")

    more_of(page.locator(".card").first).get_by_role("button", name="Colour the answer by this").click()
    page.locator(".card .action[aria-pressed='true']").wait_for()
    page.get_by_text("What in the answer comes from row").wait_for()
    page.locator(".strip").focus()
    page.keyboard.press("Escape")
    page.locator(".cards[data-view-id*=':None:']:has(.card)").wait_for()
    assert page.locator(".choice").count() == 0


def test_labels_of_the_matrix_are_shown_letter_by_letter(browser: Browser) -> None:
    labels = ["<b>x</b>", "a<br>b", "&lt;", "$x^2$", "<i>", "&#60;b&#62;", "%{z}", "·שלום"]
    columns = ["<a href='https://example.org'>x</a>", "<img src=x onerror=alert(1)>", "·the", "·the"]
    values = np.linspace(-1, 1, len(labels) * len(columns), dtype=np.float32).reshape(len(labels), len(columns))
    drawn = figure(TokenMatrix(0, (0, len(labels)), False, values, 0.0), labels, columns, dark=False)
    page = browser.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.set_content("<div id='plot'></div>")
    page.add_script_tag(content=plotly.offline.get_plotlyjs())
    page.evaluate(
        "text => { const f = JSON.parse(text); return Plotly.newPlot('plot', f.data, f.layout); }", drawn.to_json()
    )
    assert page.locator(".ytick text").all_text_contents() == [*labels, "mean"]
    assert page.locator(".xtick text").all_text_contents() == [*columns, "mean"]
    page.locator(".nsewdrag").hover(position={"x": 20, "y": 20})
    hover = page.locator(".hoverlayer text").first
    hover.wait_for()
    assert any((hover.text_content() or "").startswith(f"{label} × {columns[0]}") for label in labels)
    assert page.locator("#plot a[href*='example.org'], #plot img, #plot b").count() == 0 and not dialogs
    page.close()
