"""The home page of the server at `/`, through nginx, in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.browser.chromium import (
    PHONE,
    check_accessibility,
    chromium,
    has_sideways_scroll,
    open_page,
    save_screenshot,
    wait_until,
)
from tests.e2e.browser.conftest import SLOW_STREAM
from tests.e2e.browser.model_list import FAILURES, FailingModelList, check_retries, check_retry_on_demand, check_return
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of
from tests.support.snippets import run_bash, run_javascript, run_python

pytestmark = [pytest.mark.slow]
QUESTION = "one two three four five six"
RUN: dict[str, Callable[[str, Path], str]] = {"curl": run_bash, "Python": run_python, "JavaScript": run_javascript}
SIZE = {"width": 1180, "height": 800}


@pytest.fixture(scope="module")
def showcase(running_upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Yield a server for screenshots."""
    entries: list[dict[str, object]] = [
        {"name": "assistant", "kind": SLOW_STREAM},
        {"name": "gpt-4o-mini", "kind": "openai", "base_url": running_upstream.base_url, "owned_by": "openai"},
        {"name": "mock-gpt-model", "kind": "echo"},
    ]
    path = tmp_path_factory.mktemp("showcase") / "models.json"
    path.write_text(json.dumps(entries))
    with LiveServer({"MODELS_FILE": str(path)}) as server, nginx_in_front_of(server.url) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def browser(showcase: Nginx) -> Iterator[Browser]:
    with chromium({"localhost:8000": f"127.0.0.1:{showcase.port}"}) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, api: Nginx) -> Iterator[Page]:
    with open_page(browser, f"{api.url}/", viewport=SIZE) as page:
        yield page


def choose(page: Page, model: str) -> None:
    page.get_by_role("radio", name=model).first.check()


def ask(page: Page, text: str, model: str | None = None) -> None:
    if model:
        choose(page, model)
    page.get_by_role("textbox", name="Your message").fill(text)
    page.keyboard.press("Enter")


def answer(page: Page) -> Locator:
    return page.get_by_role("article", name="Assistant").last


def wait_for_answer(page: Page) -> None:
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")


def test_the_models_are_listed_with_their_states(page: Page) -> None:
    expect(page.get_by_role("radio")).to_have_count(6)
    expect(page.locator("[data-model=mock-gpt-model]")).to_contain_text("openai-compat · chat, completions, embeddings")
    expect(page.locator("[data-model=story] .state")).to_have_text("ready")
    check_accessibility(page)


@pytest.mark.parametrize(
    ("look", "options"),
    [("light", {"viewport": SIZE}), ("dark", {"viewport": SIZE, "color_scheme": "dark"}), ("phone", PHONE)],
)
def test_the_page_is_accessible_and_renders_markdown(
    browser: Browser, pictures: Path, look: str, options: dict[str, Any]
) -> None:
    with open_page(browser, "http://localhost:8000/", **options) as page:
        ask(page, "Write a Python script for duplicate files", "assistant")
        wait_for_answer(page)
        expect(answer(page).locator("pre")).to_contain_text('    """Groups of files below `folder`')
        assert answer(page).get_by_role("row").count() == 4
        assert answer(page).get_by_role("listitem").count() == 2
        assert answer(page).get_by_text("Empty files", exact=True).evaluate("element => element.tagName") == "STRONG"
        assert not has_sideways_scroll(page)
        check_accessibility(page)
        page.get_by_role("log").evaluate("talk => { talk.scrollTop = 0; scrollTo(0, 0); }")
        save_screenshot(page, f"home-{look}", pictures)


@pytest.mark.parametrize("language", RUN)
def test_the_shown_programs_work(page: Page, tmp_path: Path, language: str) -> None:
    choose(page, "mock-gpt-model")
    page.get_by_role("tab", name=language).click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    assert "Hello!" in RUN[language](text, tmp_path)


def test_the_first_tokens_are_shown_before_the_answer_is_complete(page: Page, upstream: MockUpstream) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    assert upstream.stats()["requests_open"] == 1


def test_stop_aborts_the_upstream_request(page: Page, upstream: MockUpstream) -> None:
    ask(page, QUESTION, "stalls")
    expect(answer(page)).to_contain_text("You said:")
    page.get_by_role("button", name="Stop").click()
    upstream.wait_until(lambda stats: stats["requests_aborted"] == 1 and stats["requests_open"] == 0)
    expect(answer(page)).to_contain_text("Stopped.")
    ask(page, "And now?", "mock-gpt-model")
    wait_for_answer(page)
    expect(answer(page)).to_have_text("And now?")


def test_a_truncated_answer_is_an_error_and_can_be_retried(page: Page) -> None:
    ask(page, QUESTION, "breaks")
    alert = answer(page).get_by_role("alert")
    expect(alert).to_contain_text("ended")
    expect(answer(page)).to_contain_text("You said:")
    choose(page, "mock-gpt-model")
    alert.get_by_role("button", name="Try again").click()
    wait_for_answer(page)
    expect(answer(page)).to_have_text(QUESTION)
    assert page.get_by_role("article").count() == 2


@pytest.mark.usefixtures("end_of_story")
def test_the_state_of_a_model_that_is_loaded_for_an_answer_is_updated(page: Page) -> None:
    model = {"capabilities": ["chat"], "state": "absent"}
    page.route("**/v1/models/endless-story", lambda route: route.fulfill(json=model))
    page.reload()
    label = page.locator("label", has=page.get_by_role("radio", name="endless-story"))
    choose(page, "endless-story")
    expect(label).to_contain_text("absent")
    model["state"] = "loading"
    ask(page, "Tell me")
    expect(label).to_contain_text("loading")
    model["state"] = "ready"
    page.get_by_role("button", name="Stop").click()
    expect(label).to_contain_text("ready")


def test_an_error_below_a_long_conversation_is_visible(page: Page) -> None:
    ask(page, "Tell me a story", "story")
    wait_for_answer(page)
    ask(page, QUESTION, "down")
    again = answer(page).get_by_role("button", name="Try again")
    expect(again).to_be_in_viewport(ratio=1)


@pytest.mark.usefixtures("end_of_story")
def test_a_broken_connection_is_an_error(page: Page, api: Nginx) -> None:
    ask(page, "Tell me", "endless-story")
    expect(answer(page)).to_contain_text("Files with")
    api.cut_connections()
    expect(answer(page).get_by_role("alert")).to_contain_text("The connection was lost before the answer was complete.")


def test_an_error_response_is_shown(page: Page) -> None:
    ask(page, QUESTION, "down")
    expect(answer(page).get_by_role("alert")).to_contain_text("Try again")
    ask(page, "Hello", "mock-gpt-model")
    wait_for_answer(page)
    expect(answer(page)).to_have_text("Hello")


HOSTILE = """\
<script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2">
[link](javascript:window.hacked=3) ![spy](https://spy.example/?secret) [good](https://good.example/)

```html
<script>window.hacked = 4</script>
```

| <img src=x onerror="window.hacked = 5"> |
| --- |
| <iframe src="javascript:window.hacked=6"></iframe> |
"""


def test_markdown_with_a_script_in_it_does_not_run(page: Page) -> None:
    ask(page, HOSTILE, "mock-gpt-model")
    wait_for_answer(page)
    expect(answer(page)).to_contain_text("<script>window.hacked = 1</script>")
    assert answer(page).locator("script, img, iframe").count() == 0
    assert answer(page).get_by_role("link").evaluate_all("links => links.map((link) => link.href)") == [
        "https://spy.example/?secret",
        "https://good.example/",
    ]
    assert page.evaluate("window.hacked") is None


def test_the_content_security_policy_blocks_inline_scripts(browser: Browser, api: Nginx) -> None:
    """A script that was inserted into the page does not run."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{api.url}/")
    page.evaluate("""() => {
        const script = document.createElement("script");
        try { script.textContent = "window.hacked = 1" } catch { return }
        document.body.append(script);
    }""")
    assert page.evaluate("window.hacked") is None
    context.close()


@pytest.mark.parametrize("pixels", [10, 200], ids=["a little", "far"])
def test_the_page_follows_the_answer_until_the_user_scrolls_up(page: Page, end_of_story: Path, pixels: int) -> None:
    ask(page, "Tell me", "endless-story")
    talk = page.get_by_role("log")
    wait_until(page, lambda: talk.evaluate("talk => talk.scrollTop") > 300)
    talk.hover()
    page.mouse.wheel(0, -pixels)
    wait_until(page, lambda: talk.evaluate("talk => talk.scrollHeight - talk.clientHeight - talk.scrollTop") > 250)
    top = talk.evaluate("talk => talk.scrollTop")
    end_of_story.touch()
    wait_for_answer(page)
    assert talk.evaluate("talk => talk.scrollTop") == top
    ask(page, "Tell me more", "story")
    wait_for_answer(page)
    assert talk.evaluate("talk => talk.scrollHeight - talk.clientHeight - talk.scrollTop") < 2


def test_the_state_of_a_model_is_shown(page: Page) -> None:
    """The page requests the state of a loading model again until it is ready."""
    model = {"id": "story", "owned_by": "me", "capabilities": ["embeddings"], "state": "absent"}
    page.route("**/v1/models/story", lambda route: route.fulfill(json=model))
    page.reload()
    state = page.locator("[data-model=story] .state")
    expect(state).to_have_text("absent")
    model["state"] = "loading"
    page.reload()
    expect(state).to_have_text("loading")
    model["state"] = "ready"
    expect(state).to_have_text("ready")
    choose(page, "story")
    message = page.get_by_role("textbox", name="Your message")
    expect(message).to_be_disabled()
    expect(message).to_have_attribute("placeholder", "This model does not chat, it supports embeddings")
    expect(page.get_by_role("tabpanel")).to_contain_text("/v1/embeddings")


def test_the_page_asks_for_a_required_api_key(browser: Browser, keyed: Nginx) -> None:
    with open_page(browser, f"{keyed.url}/", viewport=SIZE) as page:
        label = page.get_by_label("This server requires an API key.")
        expect(label).to_be_focused()
        assert page.get_by_role("radio").count() == 0
        check_accessibility(page)

        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        again = page.get_by_label("The server does not accept this key.")
        expect(again).to_be_focused()
        page.keyboard.type("key-for-anna")
        page.keyboard.press("Enter")
        expect(page.get_by_role("radio")).to_have_count(6)
        ask(page, "Hello", "mock-gpt-model")
        wait_for_answer(page)
        expect(answer(page)).to_have_text("Hello")
        expect(page.get_by_role("tabpanel")).to_contain_text("YOUR_KEY")
        assert "key-for-anna" not in page.content()
        assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
        page.get_by_role("button", name="Remove the key").click()
        expect(label).to_be_visible()


def test_without_a_key_nothing_is_stored(page: Page) -> None:
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    expect(page.get_by_text("This conversation is not stored.")).to_be_visible()
    ask(page, "Hello", "mock-gpt-model")
    wait_for_answer(page)
    page.reload()
    expect(page.get_by_text("This conversation is not stored.")).to_be_visible()
    assert page.get_by_role("article").count() == 0
    assert page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})") == "{}"
    assert not [url for url in calls if "/v1/conversations" in url]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_model_list_is_requested_again_with_backoff(browser: Browser, api: Nginx, failure: str) -> None:
    with open_page(browser, "about:blank", viewport=SIZE) as page:
        models = FailingModelList(page, failure)
        page.goto(f"{api.url}/")
        check_retries(page, models)
        expect(page.get_by_role("radio")).to_have_count(6)
        expect(models.alert).to_be_hidden()
        assert models.count == 4, "there are no requests after the first success"


def test_a_hidden_tab_requests_the_model_list_when_it_becomes_visible(browser: Browser, api: Nginx) -> None:
    with open_page(browser, "about:blank", viewport=SIZE) as page:
        models = FailingModelList(page, "unreachable")
        page.goto(f"{api.url}/")
        check_return(page, models)
        expect(page.get_by_role("radio")).to_have_count(6)


def test_the_user_can_request_the_model_list_at_once(browser: Browser, api: Nginx) -> None:
    with open_page(browser, "about:blank", viewport=SIZE) as page:
        models = FailingModelList(page, "unreachable")
        page.goto(f"{api.url}/")
        check_retry_on_demand(page, models)
        expect(page.get_by_role("radio")).to_have_count(6)
        expect(models.alert).to_be_hidden()
