"""Pages of other sites in a browser, which try to use this server and its upstream's key."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser.chromium import chromium, is_own
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, read_request

pytestmark = [pytest.mark.slow]
EVIL_HOST = "evil.test"
ATTACKS = """async (api) => {
  const body = JSON.stringify({model: "gpt-5", messages: [{role: "user", content: "hi"}]});
  const outcome = async (path, options) => {
    try {
      const response = await fetch(api + path, options);
      return response.type === "opaque" ? "opaque" : response.status;
    } catch { return "blocked"; }
  };
  return Promise.all([
    outcome("/v1/chat/completions", {method: "POST", mode: "no-cors", body: new Blob([body])}),
    outcome("/v1/responses", {method: "POST", mode: "no-cors", body}),
    outcome("/v1/files", {method: "POST", mode: "no-cors", body: new FormData()}),
    outcome("/v1/chat/completions", {method: "POST", body, headers: {"Content-Type": "application/json"}}),
    outcome("/v1/files", {mode: "no-cors"}),
    outcome("/v1/files"),
    outcome("/ask", {method: "POST", mode: "no-cors", body: new Blob([body])}),
  ]);
}"""


def serve_page(client: socket.socket) -> None:
    read_request(client)
    body = b"<!doctype html><title>evil</title><link rel=icon href=data:,>"
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + body)


@pytest.fixture(scope="module")
def victim(running_upstream: MockUpstream) -> Iterator[LiveServer]:
    settings = {"OPENAI_BASE_URL": running_upstream.base_url, "OPENAI_API_KEY": "sk-server", "ALLOWED_HOSTS": ""}
    with LiveServer(settings) as server:
        yield server


@pytest.fixture(scope="module")
def browser(victim: LiveServer) -> Iterator[Browser]:
    with RawServer(serve_page) as attacker:
        addresses = {
            f"{EVIL_HOST}:80": f"127.0.0.1:{attacker.port}",
            f"{EVIL_HOST}:{victim.port}": f"127.0.0.1:{victim.port}",
        }
        with chromium(addresses) as browser:
            yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page of the attacker's site."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{EVIL_HOST}/")
    yield page
    context.close()


def test_a_page_of_another_site_reaches_no_upstream(page: Page, victim: LiveServer, upstream: MockUpstream) -> None:
    outcomes = page.evaluate(ATTACKS, victim.url)
    assert set(outcomes) <= {"opaque", "blocked"}
    assert upstream.requests() == []


def test_a_form_of_another_site_reaches_no_upstream(page: Page, victim: LiveServer, upstream: MockUpstream) -> None:
    page.set_content(
        f'<form method=post enctype="text/plain" action="{victim.url}/v1/responses">'
        """<input name='{"model": "gpt-5", "input": "hi", "x": "' value='"}'></form>"""
    )
    with page.expect_navigation() as navigation:
        page.evaluate("document.forms[0].submit()")
    assert navigation.value.status == 403
    assert upstream.requests() == []


def test_a_name_that_resolves_to_this_machine_does_not_open_the_server(
    browser: Browser, victim: LiveServer, upstream: MockUpstream
) -> None:
    context = browser.new_context()
    page = context.new_page()
    response = page.goto(f"http://{EVIL_HOST}:{victim.port}/")
    assert response is not None
    assert response.status == 403
    assert set(page.evaluate(ATTACKS, "")) == {403}
    assert upstream.requests() == []
    context.close()


def test_a_link_on_another_site_leads_to_the_home_page(page: Page, victim: LiveServer) -> None:
    page.set_content(f'<a href="{victim.url}/">here</a>')
    page.get_by_text("here").click()
    expect(page).to_have_title("openai-compat")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_works_and_loads_nothing_from_other_hosts(
    browser: Browser, victim: LiveServer, path: str
) -> None:
    """ReDoc links a logo of its authors, which the page's policy blocks."""
    context = browser.new_context()
    page = context.new_page()
    answered: list[str] = []
    page.on("requestfinished", lambda request: answered.append(request.url))
    page.goto(f"{victim.url}{path}")
    expect(page.get_by_text("/v1/chat/completions").first).to_be_visible()
    assert page.evaluate("async () => (await fetch('/v1/models')).status") == 200
    assert all(is_own(url) for url in answered)
    context.close()
