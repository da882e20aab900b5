"""What a person sees without scrolling once they clicked a word: the conclusion, and whole, coloured examples."""

from collections.abc import Callable

from playwright.sync_api import FloatRect, Locator, Page

from tests.browser.conftest import ask, keep, select
from tests.browser.test_journeys import SWAPPED

Visit = Callable[..., Page]
MOST_WORDS = 60
"""Before the first card: of the page's own, not of the answer, and not on buttons and links."""
MOST_CONTROLS = 25
"""In view."""

WORDS_BEFORE = """(card) => {
    const walk = (node, words) => {
        if (node === card) return true;
        if (node.nodeType === Node.TEXT_NODE) {
            const parent = node.parentElement;
            const seen = parent && !["STYLE", "SCRIPT"].includes(parent.tagName)
                && parent.checkVisibility({ visibilityProperty: true });
            if (seen) words.push(...(node.data.match(/[\\p{L}\\p{N}]+/gu) ?? []));
            return false;
        }
        if (node.matches?.("button, a, summary, .strip, [data-testid=stIconMaterial]")) return false;
        const children = node.shadowRoot ? node.shadowRoot.childNodes : node.childNodes;
        for (const child of children) if (walk(child, words)) return true;
        return false;
    };
    const words = [];
    walk(document.querySelector(".stMainBlockContainer"), words);
    return words;
}"""
CONTROLS = """() => {
    const found = [];
    const walk = (root) => {
        for (const element of root.querySelectorAll("*")) {
            if (element.shadowRoot) walk(element.shadowRoot);
            if (!element.matches("button:enabled, a[href], input, select, textarea, summary")) continue;
            const box = element.getBoundingClientRect();
            const seen = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight;
            if (!seen || !element.checkVisibility({ visibilityProperty: true })) continue;
            found.push(element.outerHTML.slice(0, 90));
        }
    };
    walk(document);
    return found;
}"""


def box_of(part: Locator) -> FloatRect:
    box = part.bounding_box()
    assert box is not None
    return box


def whole_cards(page: Page, height: int) -> int:
    boxes = [box_of(card) for card in page.locator(".card").all()]
    return sum(box["y"] >= 0 and box["y"] + box["height"] <= height for box in boxes)


def test_the_verdict_and_coloured_examples_are_seen_at_every_size_without_scrolling(visit: Visit) -> None:
    page = visit(width=1400, height=900)
    ask(page, SWAPPED)
    tokens = page.locator(".strip .token").all_inner_texts()
    word = next(place for place, text in enumerate(tokens) if "Canada" in text)
    select(page, word)
    page.locator(".verdict[data-state='strong']").wait_for()
    for rank in (1, 2, 3):
        page.locator(f".card[data-rank='{rank}'] .token[style*='background-color']").first.wait_for()
    assert "swap-china-canada" in page.locator(".verdict").inner_text()
    page.locator(f".strip .token[data-token-index='{word}'][data-mark='strong']").wait_for()
    assert box_of(page.locator(".card").first)["y"] <= 430
    assert whole_cards(page, 900) >= 3
    words = page.locator(".card").first.evaluate(WORDS_BEFORE)
    assert len(words) <= MOST_WORDS, words
    controls = page.evaluate(CONTROLS)
    assert len(controls) <= MOST_CONTROLS, controls
    keep(page, "explore-first-screen")
    # The answer stays in view beside the last example.
    page.locator(".card").last.scroll_into_view_if_needed()
    assert 0 <= box_of(page.locator(".strip"))["y"] < 900

    page.set_viewport_size({"width": 1280, "height": 720})
    to_the_top(page)
    assert whole_cards(page, 720) >= 2

    # On a phone the answer comes behind the prompt, and stays while its evidence is read.
    page.set_viewport_size({"width": 375, "height": 812})
    page.locator(".strip").evaluate("strip => strip.scrollIntoView()")
    page.wait_for_timeout(1000)
    token, card = box_of(page.locator(f".strip .token[data-token-index='{word}']")), box_of(page.locator(".card").first)
    assert token["y"] >= 0 and card["y"] + card["height"] <= 812, (token, card)
    keep(page, "explore-phone")


def to_the_top(page: Page) -> None:
    """As a page is seen first; then wait until its layout has followed."""
    page.locator(".stMain").evaluate("part => part.scrollTo(0, 0)")
    page.wait_for_timeout(1000)
