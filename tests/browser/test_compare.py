"""The journey of two answers side by side."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.axe import problems
from tests.browser.conftest import WITH_ANY, go, keep

Visit = Callable[..., Page]


def settled(page: Page) -> None:
    """Wait until both answers are complete and their examples are there."""
    page.locator(".strip[data-streaming='false']").nth(1).wait_for()
    page.locator(".cards .card").first.wait_for()


@WITH_ANY
def test_base_and_fine_tuned_are_compared_and_the_link_opens_the_same_again(
    visit: Visit, planted: bool, either: str
) -> None:
    page = visit(height=1500, place=either)
    go(page, "Compare")
    page.get_by_text("Choose what to compare").wait_for()
    page.get_by_role("radio", name="Base and fine-tuned").or_(
        page.get_by_role("button", name="Base and fine-tuned")
    ).first.click()
    page.get_by_role("spinbutton", name="Longest answer, in tokens").fill("24")
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("Howdy! Name a famous bridge.")
    box.press("Enter")
    settled(page)
    left, right = (page.locator(".strip").nth(side) for side in (0, 1))
    assert left.inner_text() != right.inner_text(), "the base model has no adapter"
    assert page.locator(".strip .token.differs").count() > 0
    page.get_by_text("attributed by that model's gradients", exact=False).wait_for()
    concluded = "the fine-tuned model’s answer" if planted else "The examples behind the two answers"
    page.get_by_text(concluded).first.wait_for()
    page.get_by_text("Details", exact=True).click()
    page.get_by_text("of the first 10 are the same").wait_for()
    keep(page, "compare")
    assert not (found := list(problems(page, "Compare"))), "\n".join(found)
    before = page.locator(".cards[data-render-count]").get_attribute("data-view-id")
    left.locator(".token.differs").first.click()
    page.wait_for_function(
        "before => [...document.querySelectorAll('*')].some(host => "
        "host.shadowRoot?.querySelector('.cards:not([data-view-id=\"' + before + '\"]) .card'))",
        arg=before,
    )
    # The token may be changed for what else the model might have said: why this and not that, of one answer.
    page.locator(".choice").first.wait_for()
    assert page.locator(".card .beside:visible").count() == page.locator(".card").count() >= 10

    page.get_by_role("button", name="Link").click()
    address = page.locator("[data-testid=stCode]").inner_text()
    asked = page.locator(".cards").get_attribute("data-view-id")
    other = visit(dark=True, height=1500, place=either)
    other.goto(address)
    settled(other)
    assert other.locator(".cards").get_attribute("data-view-id") == asked
    other.set_viewport_size({"width": 375, "height": 800})
    assert other.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    keep(other, "compare-narrow")
