"""Conversations of the home page on the server, for a user with a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.e2e.browser.chromium import (
    PHONE,
    check_accessibility,
    chromium,
    has_sideways_scroll,
    open_page,
    wait_until,
)
from tests.e2e.browser.stored_conversations import StoredConversations, give_key
from tests.support import waiting
from tests.support.nginx import Nginx

KEY, OTHER_KEY = "key-for-anna", "key-for-ben"
QUESTION = "one two three four five six"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1180, "height": 800}}

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium({}) as browser:
        yield browser


@contextmanager
def visit(browser: Browser, url: str, key: str = KEY, **options: Any) -> Iterator[Page]:
    """Yield the page in a new profile, with a key."""
    with open_page(browser, url, **(options or DESKTOP)) as page:
        give_key(page, key)
        expect(page.get_by_role("radio")).to_have_count(6)
        yield page


@pytest.fixture
def page(browser: Browser, keyed: Nginx, stored: StoredConversations) -> Iterator[Page]:
    with visit(browser, f"{keyed.url}/") as page:
        expect(page.get_by_text("Conversations are stored on the server.")).to_be_visible()
        yield page


def ask(page: Page, text: str, model: str = "mock-gpt-model") -> None:
    page.get_by_role("radio", name=model).first.check()
    message(page).fill(text)
    page.keyboard.press("Enter")


def message(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Your message")


def answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant").last


def conversations(page: Page) -> Locator:
    return page.get_by_role("list", name="Conversations").get_by_role("listitem")


def problem(page: Page, text: str) -> Locator:
    return page.get_by_role("alert").filter(has_text=text)


def test_a_conversation_is_continued_in_another_browser_with_the_same_key(
    browser: Browser, page: Page, stored: StoredConversations
) -> None:
    check_accessibility(page)
    ask(page, "The first talk")
    expect(answer(page)).to_have_text("The first talk")
    expect(conversations(page).get_by_role("link")).to_have_attribute("aria-current", "page")
    page.reload()
    expect(answer(page)).to_have_text("The first talk")
    check_accessibility(page)
    with visit(browser, page.url.partition("#")[0], **PHONE) as other:
        conversations(other).get_by_role("link", name="The first talk").click()
        ask(other, "And more")
        expect(answer(other)).to_have_text("And more")
        wait_until(other, lambda: len(stored.only()) == 4)
        check_accessibility(other)
        assert not has_sideways_scroll(other)
    page.reload()
    expect(answer(page)).to_have_text("And more")
    assert stored.only() == [
        (role, text, "completed") for text in ("The first talk", "And more") for role in ("user", "assistant")
    ]


def test_another_key_sees_nothing(browser: Browser, page: Page) -> None:
    ask(page, "The secret talk")
    expect(answer(page)).to_have_text("The secret talk")
    expect(conversations(page)).to_have_count(1)
    with visit(browser, page.url, OTHER_KEY) as other:
        expect(problem(other, "This conversation was deleted, or it belongs to another key.")).to_be_visible()
        assert conversations(other).count() == 0
        assert "secret" not in other.content()
    page.get_by_role("button", name="Remove the key").click()
    expect(page.get_by_label("This server requires an API key.")).to_be_visible()
    assert "secret" not in page.content()


def test_conversations_are_switched_and_deleted(page: Page, stored: StoredConversations) -> None:
    for text in ("The first talk", "The second talk"):
        ask(page, text)
        expect(answer(page)).to_have_text(text)
        page.get_by_role("button", name="New chat").click()
        assert page.get_by_role("article").count() == 0
    expect(conversations(page).get_by_role("link")).to_have_text(["The second talk", "The first talk"])
    conversations(page).get_by_role("link", name="The first talk").click()
    expect(answer(page)).to_have_text("The first talk")
    page.go_back()
    expect(page.get_by_role("article")).to_have_count(0)
    page.go_back()
    expect(answer(page)).to_have_text("The second talk")
    page.get_by_role("button", name="Delete “The second talk”").click()
    expect(page.get_by_role("article")).to_have_count(0)
    expect(conversations(page).get_by_role("link")).to_have_text(["The first talk"])
    page.route("**/v1/conversations/conv_*", lambda route: route.abort("connectionrefused"))
    page.get_by_role("button", name="Delete “The first talk”").click()
    expect(problem(page, "“The first talk” is not deleted.")).to_be_visible()
    assert len(stored.ids()) == conversations(page).count() == 1


def test_a_stopped_answer_keeps_its_mark(page: Page, stored: StoredConversations) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page)).to_contain_text("Stopped.")
    wait_until(page, lambda: len(stored.only()) == 2)
    page.reload()
    expect(answer(page)).to_contain_text("Stopped.")
    assert stored.only()[1][2] == "incomplete"


def test_an_answer_that_a_reload_interrupts_is_stored_once_and_can_be_retried(
    page: Page, stored: StoredConversations
) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.reload()
    expect(answer(page)).to_contain_text("You said:")
    assert [status for _, _, status in stored.only()] == ["completed", "incomplete"]
    page.get_by_role("radio", name="mock-gpt-model").first.check()
    problem(page, "The answer broke off").get_by_role("button", name="Try again").click()
    expect(answer(page)).to_have_text(QUESTION)
    wait_until(page, lambda: stored.only()[1:] == [("assistant", QUESTION, "completed")])
    assert page.get_by_role("article").count() == 2


def test_an_answer_during_which_the_page_is_closed_is_stored(page: Page, stored: StoredConversations) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.close(run_before_unload=True)
    waiting.wait_until(lambda: len(stored.only()) == 2, "the interrupted answer is stored")
    assert stored.only()[1][2] == "incomplete"


def test_a_message_that_is_not_stored_is_not_shown_and_not_lost(page: Page, stored: StoredConversations) -> None:
    error = {"error": {"message": "The database does not answer.", "code": "storage_unavailable"}}
    page.route("**/v1/conversations", lambda route: route.fulfill(status=503, json=error))
    ask(page, "The first talk")
    alert = problem(page, "The message is not stored, and was not sent. The database does not answer.")
    expect(alert).to_be_visible()
    assert page.get_by_role("article").count() == 0
    expect(message(page)).to_have_value("The first talk")
    page.unroute("**/v1/conversations")
    alert.get_by_role("button", name="Try again").click()
    expect(answer(page)).to_have_text("The first talk")
    expect(message(page)).to_have_value("")
    expect(alert).to_be_hidden()
    wait_until(page, lambda: len(stored.only()) == 2)


def test_a_message_whose_confirmation_is_lost_is_stored_once(page: Page, stored: StoredConversations) -> None:
    def lose(route: Route) -> None:
        """Let a request reach the server, but no response the page."""
        if route.request.method == "POST":
            route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    alert = problem(page, "The message is not stored, and was not sent.")
    page.route("**/v1/conversations**", lose)
    ask(page, "The first talk")
    expect(alert).to_be_visible()
    page.get_by_role("button", name="Send").click()
    expect(answer(page)).to_have_text("The first talk")
    expect(problem(page, "The answer is not stored.")).to_be_visible()
    page.unroute("**/v1/conversations**")
    page.route("**/items", lose)
    ask(page, "And more")
    expect(alert).to_be_visible()
    page.unroute("**/items")
    alert.get_by_role("button", name="Try again").click()
    expect(answer(page)).to_have_text("And more")
    wait_until(page, lambda: len(stored.only()) == 4)
    assert [text for _, text, _ in stored.only()] == ["The first talk"] * 2 + ["And more"] * 2


@pytest.mark.parametrize("way", ["button", "reload", "next question"])
def test_an_answer_that_is_not_stored_is_kept_until_it_is(page: Page, stored: StoredConversations, way: str) -> None:
    page.route("**/items", lambda route: route.abort("connectionrefused"))
    ask(page, "The first talk")
    alert = problem(page, "The answer is not stored.")
    expect(alert).to_be_visible()
    if way == "reload":
        page.reload()
        alert = problem(page, "The server cannot be reached.")
        expect(alert).to_be_visible()
    page.unroute("**/items")
    if way != "next question":
        alert.get_by_role("button", name="Try again").click()
        expect(alert).to_be_hidden()
    else:
        ask(page, "And more")
        expect(answer(page)).to_have_text("And more")
    expected = [("user", "The first talk", "completed"), ("assistant", "The first talk", "completed")]
    wait_until(page, lambda: stored.only()[:2] == expected)


def test_without_conversations_on_the_server_nothing_is_stored(
    browser: Browser, keyed: Nginx, stored: StoredConversations
) -> None:
    with open_page(browser, "about:blank", **DESKTOP) as page:
        page.route("**/v1/conversations?*", lambda route: route.fulfill(status=501, json={}))
        page.goto(keyed.url)
        give_key(page, KEY)
        expect(page.get_by_text("This conversation is not stored.")).to_be_visible()
        ask(page, "The first talk")
        expect(answer(page)).to_have_text("The first talk")
        expect(page.get_by_role("heading", name="Conversations")).to_be_hidden()
        assert stored.ids() == []
