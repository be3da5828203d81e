"""Conversations of the chat page on the server, for a user with a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.e2e.browser.chat_example import (
    DESKTOP,
    PAGE,
    SERVER,
    answer,
    ask,
    browser_for,
    choose,
    composer,
    wait_for_answer,
)
from tests.e2e.browser.chromium import PHONE, check_accessibility, open_page, wait_until
from tests.e2e.browser.stored_conversations import StoredConversations, give_key
from tests.support import waiting
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx

KEY, OTHER_KEY = "key-for-anna", "key-for-ben"
QUESTION = "one two three four five six"

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(site: Nginx, keyed: Nginx) -> Iterator[Browser]:
    with browser_for(site, keyed) as browser:
        yield browser


@contextmanager
def visit(browser: Browser, hash: str = "", key: str = KEY, **options: Any) -> Iterator[Page]:
    """Yield the page in a new profile, with a key."""
    with open_page(browser, f"{PAGE}/{hash}", **(options or DESKTOP)) as page:
        give_key(page, key)
        yield page


@pytest.fixture
def page(browser: Browser, stored: StoredConversations) -> Iterator[Page]:
    with visit(browser) as page:
        expect(sidebar(page)).to_contain_text("Stored on the server.")
        yield page


def sidebar(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Conversations")


def problem(page: Page, text: str) -> Locator:
    return page.get_by_role("alert").filter(has_text=text)


def hash_of(page: Page) -> str:
    return "#" + page.url.partition("#")[2]


def test_a_conversation_is_continued_in_another_browser_with_the_same_key(
    browser: Browser, page: Page, stored: StoredConversations
) -> None:
    ask(page, "The first talk", "mock-gpt-model")
    wait_for_answer(page)
    link = sidebar(page).get_by_role("link", name="The first talk")
    expect(link).to_have_attribute("aria-current", "page")
    assert re.fullmatch("#conv_[0-9a-f]{32}", hash_of(page))
    page.reload()
    expect(answer(page)).to_have_text("The first talk")
    check_accessibility(page)
    with visit(browser) as other:
        sidebar(other).get_by_role("link", name="The first talk").click()
        expect(answer(other)).to_have_text("The first talk")
        ask(other, "And more", "mock-gpt-model")
        wait_until(other, lambda: len(stored.only()) == 4)
    page.reload()
    expect(answer(page)).to_have_text("And more")
    assert stored.only() == [
        (role, text, "completed") for text in ("The first talk", "And more") for role in ("user", "assistant")
    ]
    assert "first talk" not in page.evaluate("JSON.stringify(localStorage)")


def test_another_key_sees_nothing(browser: Browser, page: Page) -> None:
    ask(page, "The secret talk", "mock-gpt-model")
    wait_for_answer(page)
    with visit(browser, hash_of(page), OTHER_KEY) as other:
        expect(problem(other, "This conversation was deleted, or it belongs to another API key.")).to_be_visible()
        expect(sidebar(other)).to_contain_text("Stored on the server.")
        expect(sidebar(other).get_by_role("listitem")).to_have_count(0)
        check_accessibility(other)
        assert "secret" not in other.content()


def test_conversations_are_switched_and_deleted_in_all_tabs(page: Page, stored: StoredConversations) -> None:
    for text in ("The first talk", "The second talk"):
        sidebar(page).get_by_role("link", name="New chat").click()
        ask(page, text, "mock-gpt-model")
        wait_for_answer(page)
    expect(sidebar(page).get_by_role("listitem")).to_have_text(["The second talk", "The first talk"])
    sidebar(page).get_by_role("link", name="The first talk").click()
    expect(answer(page)).to_have_text("The first talk")
    page.go_back()
    expect(answer(page)).to_have_text("The second talk")
    tab = page.context.new_page()
    tab.goto(PAGE)
    give_key(tab, KEY)
    expect(sidebar(tab).get_by_role("listitem")).to_have_count(2)
    sidebar(page).get_by_role("listitem").filter(has_text="The second").hover()
    sidebar(page).get_by_role("button", name="Delete “The second talk”").click()
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    for each in (page, tab):
        expect(sidebar(each).get_by_role("listitem")).to_have_text(["The first talk"])
    assert len(stored.ids()) == 1


def test_a_conversation_that_cannot_be_deleted_stays_in_the_list(page: Page) -> None:
    ask(page, "The first talk", "mock-gpt-model")
    wait_for_answer(page)
    page.route("**/v1/conversations/conv_*", lambda route: route.abort("connectionrefused"))
    sidebar(page).get_by_role("listitem").hover()
    sidebar(page).get_by_role("button", name="Delete “The first talk”").click()
    expect(problem(page, "“The first talk” is not deleted.")).to_contain_text("cannot be reached")
    expect(sidebar(page).get_by_role("listitem")).to_have_count(1)
    expect(answer(page)).to_be_visible()


def test_a_stopped_answer_keeps_its_mark(browser: Browser, page: Page, stored: StoredConversations) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page)).to_contain_text("Stopped")
    wait_until(page, lambda: len(stored.only()) == 2)
    role, text, status = stored.only()[1]
    assert (role, status) == ("assistant", "incomplete")
    assert text.startswith("You said:")
    with visit(browser, hash_of(page)) as other:
        expect(answer(other)).to_contain_text("You said:")
        expect(answer(other)).to_contain_text("Stopped")


def test_what_is_typed_and_seen_stays_when_a_conversation_gets_its_id(page: Page, upstream: MockUpstream) -> None:
    composer(page).fill(QUESTION)
    choose(page, "stalls")
    hold = []
    page.route("**/v1/conversations", lambda route: hold.append(route) if route.request.method == "POST" else None)
    composer(page).press("Enter")
    wait_until(page, lambda: len(hold) == 1)
    assert page.get_by_role("article").count() == 0, "the message is not stored yet"
    composer(page).press_sequentially(" and the next")
    hold[0].continue_()
    expect(answer(page)).to_contain_text("You said:")
    expect(composer(page)).to_have_value(f"{QUESTION} and the next")
    assert upstream.stats()["requests_open"] == 1
    composer(page).press_sequentially(" one")
    assert hash_of(page).startswith("#conv_")
    expect(composer(page)).to_have_value(f"{QUESTION} and the next one")


def test_an_answer_that_a_reload_interrupts_is_stored_once_and_can_be_retried(
    page: Page, stored: StoredConversations
) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.reload()
    expect(answer(page)).to_contain_text("You said:")
    expect(problem(page, "broke off")).to_be_visible()
    assert [status for _, _, status in stored.only()] == ["completed", "incomplete"]
    choose(page, "mock-gpt-model")
    problem(page, "broke off").get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    expect(answer(page)).to_have_text(QUESTION)
    wait_until(page, lambda: stored.only()[1:] == [("assistant", QUESTION, "completed")])


def test_an_answer_during_which_the_page_is_closed_is_stored(page: Page, stored: StoredConversations) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.close(run_before_unload=True)
    waiting.wait_until(lambda: len(stored.only()) == 2, "the interrupted answer is stored")
    assert [status for _, _, status in stored.only()] == ["completed", "incomplete"]


def test_a_message_that_is_not_stored_is_not_shown_and_not_lost(page: Page, stored: StoredConversations) -> None:
    error = {"error": {"message": "The database does not answer.", "code": "storage_unavailable"}}
    cors = {"access-control-allow-origin": "*"}
    page.route("**/v1/conversations", lambda route: route.fulfill(status=503, headers=cors, json=error))
    ask(page, "The first talk", "mock-gpt-model")
    alert = problem(page, "The message is not stored, and was not sent. The database does not answer.")
    expect(alert).to_be_visible()
    check_accessibility(page)
    assert page.get_by_role("article").count() == 0
    expect(composer(page)).to_have_value("The first talk")
    page.unroute("**/v1/conversations")
    alert.get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    expect(composer(page)).to_have_value("")
    expect(alert).to_be_hidden()
    wait_until(page, lambda: len(stored.only()) == 2)


def test_a_message_whose_confirmation_is_lost_is_stored_once(
    page: Page, stored: StoredConversations, keyed: Nginx
) -> None:
    def lose(route: Route) -> None:
        """Let a request reach the server, but no response the page."""
        if route.request.method == "POST":
            url = route.request.url.replace(SERVER, keyed.url)
            requests.post(url, route.request.post_data_buffer, headers=route.request.headers, timeout=10)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/v1/conversations**", lose)
    ask(page, "The first talk", "mock-gpt-model")
    alert = problem(page, "The message is not stored, and was not sent.")
    expect(alert).to_be_visible()
    page.get_by_role("button", name="Send").click()
    wait_for_answer(page)
    assert len(stored.ids()) == 1
    page.unroute("**/v1/conversations**")
    page.route("**/items", lose)
    ask(page, "The second message")
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("article", name="You")).to_have_count(1)
    page.unroute("**/items")
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("article", name="Assistant")).to_have_count(2)
    wait_until(page, lambda: len(stored.only()) == 4)
    assert [text for _, text, _ in stored.only()] == ["The first talk"] * 2 + ["The second message"] * 2


@pytest.mark.parametrize("way", ["button", "reload"])
def test_an_answer_that_is_not_stored_is_kept_until_it_is(page: Page, stored: StoredConversations, way: str) -> None:
    page.route("**/items", lambda route: route.abort("connectionrefused"))
    ask(page, "The first talk", "mock-gpt-model")
    alert = problem(page, "The answer is not stored.")
    expect(alert).to_be_visible()
    expect(answer(page)).to_have_text("The first talk")
    if way == "reload":
        page.reload()
        alert = problem(page, "cannot be reached")
        expect(alert).to_be_visible()
    page.unroute("**/items")
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_be_hidden()
    expect(answer(page)).to_have_text("The first talk")
    assert stored.only() == [("user", "The first talk", "completed"), ("assistant", "The first talk", "completed")]


@pytest.mark.parametrize("status", [404, 501, 503])
def test_without_conversations_on_the_server_the_browser_stores_them(
    browser: Browser, stored: StoredConversations, status: int
) -> None:
    with open_page(browser, "about:blank", **DESKTOP) as page:
        cors = {"access-control-allow-origin": "*"}
        page.route("**/v1/conversations?*", lambda route: route.fulfill(status=status, headers=cors, json={}))
        page.goto(PAGE)
        give_key(page, KEY)
        expect(sidebar(page)).to_contain_text("Stored in this browser only.")
        ask(page, "The first talk", "mock-gpt-model")
        wait_for_answer(page)
        page.reload()
        expect(answer(page)).to_have_text("The first talk")
        assert stored.ids() == []
        page.unroute("**/v1/conversations?*")
        page.reload()
        expect(sidebar(page)).to_contain_text("Stored on the server.")
        expect(sidebar(page).get_by_role("heading", name="Stored in this browser only.")).to_be_visible()
        expect(sidebar(page).get_by_role("link", name="The first talk")).to_be_visible()
        check_accessibility(page)


def test_long_lists_and_conversations_of_other_programs_are_shown(
    browser: Browser, stored: StoredConversations
) -> None:
    items = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hard."}]},
        {"role": "assistant", "content": "Because."},
    ]
    stored.create({"items": items})
    for number in range(100):
        stored.create({"metadata": {"title": f"Talk {number}"}})
    with visit(browser, **PHONE) as page:
        page.get_by_role("button", name="Conversations").click()
        expect(sidebar(page).get_by_role("listitem")).to_have_count(100)
        sidebar(page).get_by_role("button", name="Show older conversations").click()
        expect(sidebar(page).get_by_role("listitem")).to_have_count(101)
        check_accessibility(page)
        sidebar(page).get_by_role("link", name="Untitled").click()
        expect(page.get_by_role("article", name="You")).to_have_text("Why?")
        expect(answer(page)).to_contain_text("Because.")
        expect(answer(page).get_by_text("Hard.")).to_be_attached()
