"""Pages of another origin with React and the AI SDK, version 4 and the newest, that read the text format of `/ask`.

`test_chat_example.py` tests the newest version with its own protocol.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser.chromium import chromium, open_page
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx
from tests.support.tools import NODE_DIR, require_node

PAGE = "http://localhost:3000"
QUESTION = "one two three four five six"

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("version", [1, 4], ids=["version 4", "newest"])]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of a file server with the page and its bundle of React and both versions of the SDK."""
    require_node()
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text('<!doctype html><div id="root"></div><script src="/page.js"></script>')
    esbuild = NODE_DIR / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="production"', "--log-level=error"]
    command = [esbuild, "page.jsx", *options, f"--outfile={folder}/page.js"]
    subprocess.run(command, cwd=NODE_DIR, check=True, timeout=50)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_port
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def browser(site: int, api: Nginx) -> Iterator[Browser]:
    with chromium({"localhost:3000": f"127.0.0.1:{site}", "localhost:8000": f"127.0.0.1:{api.port}"}) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser, "about:blank") as page:
        yield page


def ask(page: Page, version: int, text: str, model: str = "mock-gpt-model") -> None:
    page.goto(f"{PAGE}/?version={version}&model={model}")
    page.get_by_role("textbox").fill(text)
    page.keyboard.press("Enter")


def test_the_answer_is_the_bare_text(page: Page, version: int) -> None:
    ask(page, version, QUESTION)
    expect(page.get_by_role("article")).to_have_text([QUESTION, QUESTION])
    expect(page.get_by_role("status")).to_have_text("ready")


def test_the_first_tokens_are_shown_at_once_and_stop_aborts_the_upstream_request(
    page: Page, upstream: MockUpstream, version: int
) -> None:
    ask(page, version, QUESTION, "stalls")
    expect(page.get_by_role("article").last).to_contain_text("You said:")
    expect(page.get_by_role("status")).to_have_text("streaming")
    page.get_by_role("button", name="Stop").click()
    upstream.wait_until(lambda stats: stats["requests_aborted"] == 1 and stats["requests_open"] == 0)


def test_a_truncated_answer_is_an_error(page: Page, version: int) -> None:
    ask(page, version, QUESTION, "breaks")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("error")


def test_an_error_response_is_shown(page: Page, version: int) -> None:
    ask(page, version, QUESTION, "down")
    expect(page.get_by_role("alert")).to_contain_text("No answer can be had right now.")
