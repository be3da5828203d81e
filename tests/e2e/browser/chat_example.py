"""The chat page of examples/nextjs-chat in a browser, as users operate it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.browser.chromium import chromium
from tests.support import waiting
from tests.support.nginx import Nginx, free_port, nginx_in_front_of
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT, require_next_build

EXAMPLE = ROOT / "examples" / "nextjs-chat"
PAGE, OTHER_ORIGIN, SERVER = "http://localhost:3000", "http://localhost:3999", "http://localhost:8000"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1180, "height": 760}}


@contextmanager
def running_site(folder: Path) -> Iterator[Nginx]:
    """Yield the page, started by `make frontend`, behind nginx. `folder` is for its log."""
    require_next_build(EXAMPLE)
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        command = ["make", "frontend", f"ARGS=--hostname 127.0.0.1 --port {port}"]
        environment = plain_environment({"NEXT_PUBLIC_API_URL": ""})
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return b"Ready" in log.read_bytes()

        waiting.wait_until(is_ready, log.read_text, 60)
        with nginx_in_front_of(f"http://127.0.0.1:{port}") as nginx:
            yield nginx
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


@contextmanager
def browser_for(site: Nginx, server: Nginx) -> Iterator[Browser]:
    """Yield a browser for which the page and the server have the ports of the README."""
    page, api = (f"127.0.0.1:{nginx.port}" for nginx in (site, server))
    with chromium({"localhost:3000": page, "localhost:3999": page, "localhost:8000": api}) as browser:
        yield browser


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
    """Return the last answer."""
    return page.get_by_role("article", name="Assistant").last


def wait_for_answer(page: Page) -> None:
    expect(page.get_by_role("button", name="Copy answer").last).to_be_visible()
