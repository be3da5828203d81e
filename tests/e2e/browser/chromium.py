"""Debian's Chromium, driven by Playwright, with every address but the tests' own leading nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support import waiting
from tests.support.tools import NODE_DIR, require_tool

SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-smooth-scrolling",  # a turn of the wheel is over when it is done
)
TIMEOUT = 25_000
"""Milliseconds for anything that is waited for: far more than it takes, on a busy machine too."""
expect.set_options(timeout=TIMEOUT)
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


@contextmanager
def chromium(addresses: Mapping[str, str]) -> Iterator[Browser]:
    """A browser for which `addresses` (`localhost:3000`) lead to servers (`127.0.0.1:45678`), all others nowhere."""
    program = require_tool("chromium")
    rules = [f"MAP {address} {server}" for address, server in addresses.items()]
    nowhere = ["MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
    switches = [*SWITCHES, f"--host-resolver-rules={', '.join([*rules, *nowhere])}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=switches)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a profile of its own; whatever it asks of other hosts, and whatever breaks in it, fails the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    foreign: list[str] = []
    broken: list[str] = []
    page.on("request", lambda request: None if is_own(request.url) else foreign.append(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda message: broken.append(message.text) if "Content Security" in message.text else None)
    try:
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not foreign, "the page asked other hosts"
    assert not broken, "something broke in the page"


def is_own(url: str) -> bool:
    return url.startswith(("http://localhost:", "http://127.0.0.1:", "data:", "blob:"))


@cache
def _axe() -> str:
    return (NODE_DIR / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def check_accessibility(page: Page) -> None:
    """axe finds nothing, serious or not (WCAG 2.2 A and AA, and its own best practices)."""
    page.evaluate(_axe())
    found = page.evaluate("async () => (await axe.run()).violations")
    assert not found, [(problem["id"], [node["html"] for node in problem["nodes"]]) for problem in found]


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for the condition while the page runs.

    Playwright's `wait_for_function` evaluates text, which a strict Content-Security-Policy forbids.
    """
    waiting.wait_until(lambda: condition() or page.wait_for_timeout(20), "the condition of the page", TIMEOUT / 1000)


def has_sideways_scroll(page: Page) -> bool:
    scrolls: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return scrolls


def keep_picture(page: Page, name: str, folder: Path) -> None:
    """A screenshot, beside the other results of the test run; `docs/images/` has those that the README shows."""
    page.screenshot(path=folder / f"{name}.png", scale="css")
