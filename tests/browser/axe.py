"""axe-core, the usual checker of accessibility rules."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SETTLED = """() => {
  const still = (root) => root.getAnimations().every((each) =>
    each.playState !== "running" || each.effect.getComputedTiming().endTime === Infinity);
  const all = (root) => still(root) && [...root.querySelectorAll("*")].every((part) =>
    !part.matches("[data-stale=true], [data-pending=true], [data-streaming=true], " +
      "[data-test-script-state]:not([data-test-script-state=notRunning])") &&
    (!part.shadowRoot || all(part.shadowRoot)));
  return all(document);
}"""
"""Whether a page is as it will stay: no work behind it, no run of its script, nothing left of an earlier run."""


OF_COLOURS = ("color-contrast", "link-in-text-block")
"""The serious rules that colours alone decide; all others say the same in light and in dark."""


CARDS = 3
"""Cards that are looked through; the others have the same elements, and letters that are tokens make them many."""
SHOW_CARDS = "(cards, count) => cards.forEach((card, n) => card.style.display = n < (count ?? n + 1) ? '' : 'none')"


def problems(page: Page, place: str, within: str | None = None) -> Iterator[str]:
    """What axe-core finds serious or critical here, or in a part of the page, in both colour schemes.

    It begins with the scheme there is and leaves the other one, because every change has the page drawn anew.
    """
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    schemes: list[tuple[Literal["light", "dark"], Sequence[str]]]
    schemes = [("dark", ()), ("light", OF_COLOURS)] if dark else [("light", ()), ("dark", OF_COLOURS)]
    for scheme, rules in schemes:
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "scheme => getComputedStyle(document.querySelector('.stApp')).colorScheme === scheme", arg=scheme
        )
        settle(page)
        yield from (f"{place}, {scheme}: {told}" for told in violations(page, rules, within))


def settle(page: Page) -> None:
    """Wait until nothing comes, fades or moves: half-way, a colour is nobody's choice. The mouse goes away first."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.wait_for_function(SETTLED)


def violations(page: Page, rules: Sequence[str] = (), within: str | None = None) -> Iterator[str]:
    """Each element, of the page or a part, that breaks a serious or critical rule, of all or of some, and how."""
    # What passes isn't listed: that would take three times as long.
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    cards = page.locator(".card")
    cards.evaluate_all(SHOW_CARDS, CARDS)
    found = Axe().run(page, context=within, options=options).response["violations"]
    cards.evaluate_all(SHOW_CARDS, None)
    for rule in found:
        if rule["impact"] in ("serious", "critical"):
            yield from (described(rule["id"], node) for node in rule["nodes"])


def described(rule: str, node: dict[str, Any]) -> str:
    return f"{rule} at {node['target']}: {node['html'][:200]} {node['failureSummary'][:300]}"
