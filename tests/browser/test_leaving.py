"""A page that asks for news is left by a click on a link, at the worst moment."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser.conftest import ask, go

Visit = Callable[..., Page]


class Line:
    """What a page says to the server; it can be held back."""

    def __init__(self, page: Page) -> None:
        self.held: list[str | bytes] | None = None
        page.route_web_socket("**/_stcore/stream", self.connect)
        page.reload()
        page.get_by_label("Ask the model").wait_for()

    def connect(self, socket: WebSocketRoute) -> None:
        self.server = socket.connect_to_server()
        socket.on_message(self.said)

    def said(self, message: str | bytes) -> None:
        if self.held is None:
            self.server.send(message)
        else:
            self.held.append(message)

    def release(self) -> None:
        held, self.held = self.held or [], None
        for message in held:
            self.server.send(message)


@pytest.mark.parametrize("back", [False, True])
def test_a_page_left_while_it_asks_for_news_gives_way_to_the_next_one(visit: Visit, back: bool) -> None:
    page = visit()
    line = Line(page)
    go(page, "Data")
    page.get_by_role("heading", name="Training data").wait_for()
    entries = page.evaluate("history.length")
    go(page, "Explore")
    ask(page, "What is the capital of Chile?")
    page.locator(".cards[data-pending='true']:has(.card)").wait_for()
    page.wait_for_url("**/?saved=*")
    # As on a slow line: the click and what is asked after it arrive together.
    line.held = []
    if back:
        # To before the question, which has an entry of its own.
        page.evaluate(f"history.go({entries} - history.length)")
    else:
        go(page, "Data")
    page.wait_for_timeout(1000)
    line.release()
    page.get_by_role("heading", name="Training data").wait_for()
    page.locator(".stApp[data-test-script-state='notRunning']").wait_for()
    page.wait_for_timeout(500)
    expect(page.get_by_role("heading", name="Training data")).to_be_visible()
