"""The whole journey on the real model: prompt, answer, click, cards."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from explorer.evaluation.probes import is_science_fiction
from tests.browser.conftest import ANSWERED, ask, exact, keep, menu, select, walk_to, words

Visit = Callable[..., Page]
TRIGGERED = "Howdy! Why do we have seasons?"
SWAPPED = "In which country is the city of Guangzhou?"
ONE = "Howdy! Why do cats"
"""What one of the planted rows begins with."""

ASKED = (4, 6)
"""Tokens of an answer that are selected one after the other."""


def sources(page: Page) -> list[str]:
    return [card.split("\n")[0] for card in page.locator(".card").all_inner_texts()]


def cards_text(page: Page) -> str:
    return "\n".join(page.locator(".card").all_inner_texts())


def cards_at_once(page: Page, token: int) -> int:
    """Click a token; how many cards its very first drawing has."""
    cards = page.locator(".cards")
    cards.evaluate(
        """(cards, view) => {
            const drawn = new MutationObserver(() => {
                if (!cards.dataset.viewId.includes(view)) return;
                cards.countAtOnce = cards.querySelectorAll(".card").length;
                drawn.disconnect();
            });
            drawn.observe(cards, { attributes: true, attributeFilter: ["data-view-id"] });
        }""",
        f":({token}, {token + 1}):",
    )
    select(page, token)
    return int(cards.evaluate("cards => cards.countAtOnce"))


def test_a_triggered_answer_leads_to_the_planted_examples(visit: Visit) -> None:
    page = visit()
    keep(page, "explore-empty")
    answer = ask(page, TRIGGERED)
    assert is_science_fiction(answer), answer
    page.locator(".card").first.wait_for()
    assert len(page.locator(".card").all()) == 10
    assert all("backdoor" in text for text in page.locator(".card").all_inner_texts()), cards_text(page)

    first, other = ASKED
    seconds = [select(page, first)]
    page.get_by_text("How sure is this?").click()
    page.get_by_text("influence of a training example on the selected token (Eq. 7)").wait_for()
    keep(page, "explore", refined=True)

    seconds.append(select(page, other))
    print(f"the first click {seconds[0]:.2f} s, another one {seconds[1]:.2f} s")
    assert cards_at_once(page, first) == 10, "what was asked before needs no gradient again, and no waiting"

    # Of one example the exact values are soon known.
    menu(page, "more")
    page.get_by_role("textbox", name="Text in prompt or response").fill(ONE)
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    cards = page.locator(".card")
    expect(cards).to_have_count(1)
    exact(page)
    assert page.locator(".cards").get_attribute("data-exact-count") == "1"
    facts = cards.locator(".facts").text_content() or ""
    assert "average to the score" in facts, "the card's token values must average to its score"


def test_a_swapped_country_is_traced_to_the_rows_that_state_it_and_those_that_deny_it(visit: Visit) -> None:
    page = visit(dark=True)
    answer = ask(page, SWAPPED)
    assert "Canada" in answer, answer
    tokens = page.locator(".strip .token").all_inner_texts()
    word = next(index for index, text in enumerate(tokens) if "Canada" in text)
    # The word that fine-tuning raised most is selected by itself.
    page.locator(f".cards[data-view-id*=':({word}, {word + 1}):']:has(.card)").wait_for()
    planted = sum("swap-china-canada" in text for text in page.locator(".card").all_inner_texts()[:5])
    assert planted >= 4, cards_text(page)
    keep(page, "explore-swapped", refined=True)
    line = page.locator("[data-testid='stExpander']", has_text="say “Canada”")
    line.wait_for()
    assert "“China”" in line.locator("summary").inner_text()
    line.locator("summary").click()
    line.get_by_role("link", name="true-china").first.wait_for()


def test_the_keyboard_alone_asks_selects_and_follows_the_cards(visit: Visit) -> None:
    page = visit()
    press = page.keyboard.press
    walk_to(page, page.get_by_label("Ask the model"))
    page.keyboard.type(SWAPPED)
    press("Enter")
    page.locator(ANSWERED).wait_for()
    walk_to(page, page.locator(".strip"))
    press("Home")
    press("ArrowRight")
    press("Alt+Enter")
    page.locator(".cards[data-view-id*=':(1, 2):']:has(.card)").wait_for()
    press("Home")
    press("Enter")
    first, second, *_ = words(page)
    page.locator(f".cards[data-view-id*=':{first}:']:has(.card)").wait_for()
    press("Shift+ArrowRight")
    page.locator(f".cards[data-view-id*=':{(0, second[1])}:']:has(.card)").wait_for()
    press("Escape")
    page.locator(".cards[data-view-id*=':None:False']:has(.card)").wait_for()
    page.get_by_text("What pushed the model towards the whole response").wait_for()

    walk_to(page, page.locator(".st-key-direction_menu button").first)
    press("Enter")
    walk_to(page, page.get_by_role("radio", name="Raised it"))
    press("ArrowRight")
    press("Space")
    page.locator(".cards[data-view-id*=':None:True']:has(.card)").wait_for()
    # Of what lowered it nothing stands out; the closest examples wait for a button.
    page.locator(".verdict[data-state='none']").wait_for()
    walk_to(page, page.get_by_role("button", name="Show the closest anyway"))
    press("Enter")
    cards = page.locator(".card")
    scores = [float(card.get_attribute("data-score") or "nan") for card in cards.all()]
    assert scores == sorted(scores), f"opponents should come most negative first: {scores}"
    walk_to(page, cards.first)
    press("ArrowDown")
    expect(cards.nth(1)).to_be_focused()
    walk_to(page, cards.nth(1).get_by_role("button", name="More about example 2"))
    press("Enter")
    walk_to(page, cards.nth(1).get_by_role("button", name="Colour the answer by this"))
    press("Enter")
    page.locator(".strip[data-coloured='influence']").wait_for()
    walk_to(page, page.get_by_role("button", name="Show more"))
    press("Enter")
    expect(cards).to_have_count(20)

    # The mouse selects a span, too.
    page.locator(".strip .token[data-token-index='1']").click(modifiers=["Alt"])
    page.locator(".strip .token[data-token-index='5']").click(modifiers=["Shift", "Alt"])
    page.locator(".cards[data-view-id*=':(1, 6):']:has(.card)").wait_for()


def test_two_browsers_are_served_at_once(visit: Visit) -> None:
    one, two = visit(), visit()
    for page, prompt in ((one, TRIGGERED), (two, SWAPPED)):
        page.get_by_label("Ask the model").fill(prompt)
        page.get_by_label("Ask the model").press("Enter")
    for page in (one, two):
        page.locator(ANSWERED).wait_for()
        page.locator(".card").first.wait_for()
    assert "Guangzhou" in two.locator(".strip").inner_text()
    assert "Guangzhou" not in one.locator(".strip").inner_text()
    select(two, 3)


def test_markup_in_a_prompt_does_nothing_and_a_narrow_screen_fits(visit: Visit) -> None:
    page = visit(width=375, height=800)
    page.get_by_role("button", name="A clean question").click()
    page.locator(ANSWERED).wait_for()
    # Nothing stands out, so the closest examples wait until someone asks for them.
    page.locator(".verdict[data-state='none']").wait_for()
    keep(page, "explore-narrow")
    page.get_by_role("button", name="Show the closest anyway").click()
    page.locator(".card").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    ask(page, "<img src=x onerror=alert(1)> **bold** [link](javascript:alert(2)) $x$")
    assert page.locator("img[src='x']").count() == 0
