"""Chromium, driven by Playwright, which resolves only the addresses of the tests."""

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
    "--disable-smooth-scrolling",  # scrolling is instant
)
TIMEOUT = 25_000
"""Milliseconds that bound a failing test."""
expect.set_options(timeout=TIMEOUT)
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


@contextmanager
def chromium(addresses: Mapping[str, str]) -> Iterator[Browser]:
    """Yield a browser that maps `addresses` (`localhost:3000`) to servers (`127.0.0.1:45678`) and resolves no other."""
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
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Yield a page in a new profile. Fail if it requests other hosts or raises an error."""
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
    assert not foreign, "the page sent requests to other hosts"
    assert not broken, "the page raised errors"


def is_own(url: str) -> bool:
    return url.startswith(("http://localhost:", "http://127.0.0.1:", "data:", "blob:"))


@cache
def _axe() -> str:
    return (NODE_DIR / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def check_accessibility(page: Page) -> None:
    """Check that axe finds no violation of WCAG 2.2 A and AA and its own best practices."""
    page.evaluate(_axe())
    violations = page.evaluate("async () => (await axe.run()).violations")
    assert not violations, [(item["id"], [node["html"] for node in item["nodes"]]) for item in violations]


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for the condition while the page runs.

    Playwright's `wait_for_function` evaluates text, which a strict Content-Security-Policy forbids.
    """
    waiting.wait_until(lambda: condition() or page.wait_for_timeout(20), "the condition of the page", TIMEOUT / 1000)


def has_sideways_scroll(page: Page) -> bool:
    scrolls: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return scrolls


def save_screenshot(page: Page, name: str, folder: Path) -> None:
    """Save a screenshot."""
    page.screenshot(path=folder / f"{name}.png", scale="css")
