"""The admin page of the server at `/admin`, through nginx, in a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from openai_compat.accounts.account import Account
from openai_compat.accounts.manager import AccountManager, NewAccount
from openai_compat.accounts.meters import Meters
from openai_compat.accounts.policy import parse_policy
from tests.e2e.browser.chromium import (
    PHONE,
    check_accessibility,
    chromium,
    has_sideways_scroll,
    open_page,
    save_screenshot,
)
from tests.support.accounts_site import AccountsSite, post
from tests.support.call_history import past_calls
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of

pytestmark = [pytest.mark.slow]
ADMIN_KEY = "admin-key-1"
SIZE = {"width": 1280, "height": 860}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": SIZE},
    "dark": {"viewport": SIZE, "color_scheme": "dark"},
    "phone": PHONE,
}
PAGES = {
    "overview": "Overview",
    "models": "Models",
    "keys": "Keys and budgets",
    "requests": "Requests",
    "live": "Live",
}

PICTURED = {"overview", "models", "keys"}


def model_entries(upstream_url: str) -> list[dict[str, Any]]:
    """Return models of which the first target of `assistant` always fails."""
    upstream = {"kind": "openai", "base_url": upstream_url}
    return [
        {"name": "assistant", "targets": [{"model": "gpt-4o-mini"}], "fallbacks": ["llama3.2"], "cooldown": 0},
        {"name": "gpt-4o-mini", **upstream, "upstream_model": "fault-status:code=503",
         "price": {"input": 0.15, "output": 0.6}},
        {"name": "llama3.2", **upstream, "upstream_model": "fault-slow:delay=0.04,chunks=8",
         "price": {"input": 1000, "output": 1000}},
        {"name": "summaries", "targets": [{"model": "mistral-small", "weight": 9999}, {"model": "claude-sonnet"}],
         "cooldown": 3600},
        {"name": "mistral-small", **upstream, "upstream_model": "fault-status:code=503",
         "price": {"input": 0.1, "output": 0.3}},
        {"name": "claude-sonnet", **upstream, "price": {"input": 3, "output": 15}},
        {"name": "text-embedding", **upstream, "upstream_model": "mock-embedding"},
    ]  # fmt: skip


@contextmanager
def running(folder: Path, upstream: MockUpstream, **settings: str) -> Iterator[tuple[AccountsSite, LiveServer, Nginx]]:
    models = model_entries(upstream.base_url)
    with (
        AccountsSite(folder, models, ADMIN_API_KEY=ADMIN_KEY, **settings) as site,
        LiveServer(site.settings) as server,
        nginx_in_front_of(server.url) as nginx,
    ):
        yield site, server, nginx


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium({}) as browser:
        yield browser


@pytest.fixture(scope="module")
def busy(running_upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Yield a server with calls of the last hour, and keys with budgets."""
    folder = tmp_path_factory.mktemp("busy")
    with running(folder, running_upstream, CALL_LOG_BODIES="true") as (site, server, nginx):
        key, secret = create_accounts(site)
        rows = list(past_calls(time.time(), 3600, 1200, (key.id, key.name, key.parent_id)))
        for start in range(0, len(rows), 500):
            site.storage.calls.add(rows[start : start + 500], [], 10_000)
        for model in ("summaries", "assistant", "assistant"):
            assert post(server.base_url, secret, model=model, stream=True, max_tokens=20).status_code == 200
        yield nginx


def create_accounts(site: AccountsSite) -> tuple[Account, str]:
    """Create keys that have spent little, much and all of their budgets, and return the first with its secret."""
    manager, meters = AccountManager(site.storage, site.ledger), Meters(site.ledger)
    search = manager.create("project", NewAccount("search", policy=parse_policy({"budgets": [budget(100)]})))
    support = manager.create("project", NewAccount("support"))
    limits = {"requests_per_minute": 60, "tokens_per_minute": 100_000}
    created = [
        (search, "website", {"budgets": [budget(20)], "limits": limits, "models": ["assistant", "summaries"]}, 12.4),
        (search, "nightly-batch", {"budgets": [budget(5)]}, 4.45),
        (support, "support-bot", {"budgets": [budget(10)], "limits": {"concurrent_requests": 4}}, 10),
    ]
    found = []
    for project, name, policy, spent in created:
        key, secret = manager.create_key(NewAccount(name, project.id, parse_policy(policy)))
        meters.set_used(key, "budget:month:UTC", spent)
        found.append((key, secret))
    meters.set_used(search, "budget:month:UTC", 16.85)
    return found[0]


def budget(amount: int) -> dict[str, Any]:
    return {"amount": amount, "every": "month"}


@pytest.fixture(scope="module")
def fresh(running_upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Yield a server that has seen no call and has no key."""
    with running(tmp_path_factory.mktemp("fresh"), running_upstream) as (_, _, nginx):
        yield nginx


@contextmanager
def signed_in(browser: Browser, site: Nginx, **options: Any) -> Iterator[Page]:
    with open_page(browser, f"{site.url}/admin", **(options or LOOKS["light"])) as page:
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_focused()
        yield page


def go(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()


def rows_of(page: Page) -> Locator:
    return page.locator("tbody").get_by_role("row")


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_accessible_and_fits(browser: Browser, busy: Nginx, pictures: Path, look: str) -> None:
    with signed_in(browser, busy, **LOOKS[look]) as page:
        for name, title in PAGES.items():
            page.goto(f"{busy.url}/admin#/{name}")
            expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
            expect(page.get_by_role("table").first).to_be_visible()
            check_page(page)
            if name in PICTURED:
                save_screenshot(page, f"admin-{name}-{look}", pictures)
        open_failed_over_call(page)
        check_page(page)
        save_screenshot(page, f"admin-call-{look}", pictures)


def check_page(page: Page) -> None:
    assert not has_sideways_scroll(page)
    check_accessibility(page)


def open_failed_over_call(page: Page) -> None:
    go(page, "Requests")
    page.get_by_label("Model").select_option("assistant")
    page.locator("tbody tr", has_text="llama3.2").first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Attempts")).to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
def test_the_form_to_sign_in_is_accessible(browser: Browser, busy: Nginx, look: str) -> None:
    with open_page(browser, f"{busy.url}/admin", **LOOKS[look]) as page:
        expect(page.get_by_label("Admin key")).to_be_focused()
        check_page(page)
        page.get_by_label("Admin key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This is not the server's ADMIN_API_KEY.")
        check_page(page)


def test_signing_out_hides_everything(browser: Browser, busy: Nginx) -> None:
    with signed_in(browser, busy) as page:
        page.reload()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()  # the session goes on
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Admin key")).to_be_focused()
        expect(page.get_by_role("table")).to_have_count(0)
        page.reload()
        expect(page.get_by_label("Admin key")).to_be_visible()


def test_a_key_from_its_creation_to_its_end(browser: Browser, fresh: Nginx) -> None:
    with signed_in(browser, fresh) as page:
        expect(page.get_by_role("heading", name="No calls yet")).to_be_visible()
        check_page(page)
        go(page, "Keys")
        expect(page.get_by_role("heading", name="No keys yet")).to_be_visible()
        check_page(page)
        secret = create_key(page)
        answer = post(f"{fresh.url}/v1", secret, model="assistant", max_tokens=20)
        assert answer.headers.get("x-openai-compat-fallback") == "true", answer.text
        row = page.get_by_role("row", name="my app")
        page.reload()
        expect(row).to_contain_text("$0.021 of $2.50 a month")  # 13 tokens in, 8 out, of $0.001 each
        expect(row).to_contain_text("1 of 30 requests/min")
        check_call(page)
        go(page, "Keys")
        page.get_by_role("button", name="Revoke my app").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(row).to_have_count(0)
        page.wait_for_timeout(1500)  # until the workers know it
        assert post(f"{fresh.url}/v1", secret, model="assistant").status_code == 401


def create_key(page: Page) -> str:
    """Create a key with a budget in the dialog, and return its secret, which is shown once."""
    page.get_by_role("button", name="Create the first key").click()
    dialog = page.get_by_role("dialog")
    check_page(page)
    dialog.get_by_label("Name").fill("my app")
    dialog.get_by_label("Budget in dollars").fill("2.5")
    dialog.get_by_label("Requests per minute").fill("30")
    dialog.get_by_role("button", name="Create").click()
    shown = page.get_by_label("Secret of the key")
    expect(shown).to_have_value(re.compile("^sk-"))
    secret = shown.input_value()
    check_page(page)
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert secret not in page.content()
    return secret


def check_call(page: Page) -> None:
    """Check that the only call is in the figures, in a plot, in the list and in the waterfall."""
    go(page, "Overview")
    expect(page.locator(".figures")).to_contain_text("Calls1")
    expect(page.locator(".figures")).to_contain_text("Cost$0.021")
    expect(page.get_by_role("img", name="Calls. 1 calls, 0 errors.")).to_be_visible()
    assert has_ink(page.get_by_role("img", name="Calls.").locator("canvas"))
    go(page, "Requests")
    expect(rows_of(page)).to_have_count(1)
    page.get_by_label("Key", exact=True).select_option(label="my app")
    expect(rows_of(page)).to_have_count(1)
    page.get_by_label("Status").select_option("Failed")
    expect(page.get_by_role("heading", name="No call matches")).to_be_visible()
    page.get_by_label("Status").select_option("All")
    rows_of(page).get_by_role("link").click()
    attempts = page.locator(".waterfall li")
    expect(attempts.first).to_contain_text("gpt-4o-mini")
    expect(attempts.first).to_contain_text("failed after")
    expect(attempts.last).to_contain_text("llama3.2")
    first, last = (attempts.nth(number).locator(".track span").first.bounding_box() for number in (0, -1))
    assert first is not None
    assert last is not None
    assert first["x"] + first["width"] <= last["x"] + 3


TEST_OF_A_MODEL = """async () => {
    const { csrf_token: token } = await (await fetch("/admin/session")).json();
    const headers = { "content-type": "application/json", "x-csrf-token": token };
    const body = JSON.stringify({ model: "claude-sonnet" });
    await fetch("/admin/api/models/test", { method: "POST", headers, body });
}"""


def has_ink(canvas: Locator) -> bool:
    """Return True if something in the colour of the calls is drawn."""
    found: bool = canvas.evaluate(
        """canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            for (let i = 0; i < data.length; i += 4) {
                if (data[i] === 15 && data[i + 1] === 118 && data[i + 2] === 110 && data[i + 3] === 255) return true;
            }
            return false;
        }"""
    )
    return found


def test_a_target_can_be_tested(browser: Browser, busy: Nginx) -> None:
    with signed_in(browser, busy) as page:
        go(page, "Models")
        card = page.get_by_role("region", name="assistant")
        card.get_by_role("button", name="Test assistant").click()
        expect(card.get_by_role("status").first).to_contain_text("answered by llama3.2: “")
        card.get_by_role("button", name="Test gpt-4o-mini of assistant").click()
        expect(card.get_by_role("row", name="gpt-4o-mini")).to_contain_text("503 server_error")
        page.get_by_role("button", name="Test text-embedding").click()
        expect(page.get_by_role("row", name="text-embedding")).to_contain_text("dimensions")
        check_page(page)


def test_a_key_gets_another_secret_and_other_limits(browser: Browser, busy: Nginx) -> None:
    with signed_in(browser, busy) as page:
        go(page, "Keys")
        expect(page.get_by_role("region", name="Project search")).to_contain_text("of $100.00 a month")
        row = page.locator("tbody tr", has_text="assistant, summaries")
        row.get_by_role("button", name="Change").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("Budget in dollars")).to_have_value("20")
        dialog.get_by_label("Requests per minute").fill("")
        dialog.get_by_label("Requests at once").fill("3")
        dialog.get_by_label("Budget in dollars").fill("-1")
        dialog.get_by_role("button", name="Save").click()
        assert dialog.is_visible()
        dialog.get_by_label("Budget in dollars").fill("25")
        dialog.get_by_role("button", name="Save").click()
        expect(row).to_contain_text("of $25.00 a month")
        expect(row).to_contain_text("0 of 3 at once")
        expect(row).not_to_contain_text("requests/min")
        row.get_by_role("button", name="Rotate").click()
        page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        expect(page.get_by_label("Secret of the key")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_calls_appear_as_they_end(browser: Browser, busy: Nginx) -> None:
    with signed_in(browser, busy) as page:
        go(page, "Live")
        expect(rows_of(page)).to_have_count(30)
        page.evaluate(TEST_OF_A_MODEL)
        expect(rows_of(page)).to_have_count(31)
        expect(rows_of(page).first).to_contain_text("claude-sonnet")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_text("paused")).to_be_visible()


def test_an_outage_is_shown_and_ends(browser: Browser, busy: Nginx) -> None:
    error = {"error": {"message": "The database is away.", "code": "storage_unavailable"}}

    def fail(route: Route) -> None:
        route.fulfill(status=503, json=error)

    with signed_in(browser, busy) as page:
        page.route("**/admin/api/overview*", fail)
        page.get_by_role("radio", name="Day").check()
        expect(page.get_by_role("alert")).to_contain_text("The database is away.")
        expect(page.locator(".figures")).to_contain_text("Calls")  # what was loaded before stays
        check_page(page)
        page.unroute("**/admin/api/overview*")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_have_count(0)


def test_the_page_loads_in_a_handful_of_requests(browser: Browser, busy: Nginx) -> None:
    with signed_in(browser, busy) as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.reload()
        expect(page.get_by_role("table")).to_be_visible()
        assert len(requests) <= 15, requests


def test_the_keyboard_reaches_the_pages_and_the_time(browser: Browser, busy: Nginx) -> None:
    with signed_in(browser, busy) as page:
        page.get_by_role("link", name="Models").press("Enter")
        expect(page.get_by_role("heading", name="Models")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("radio", name="Hour")).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("radio", name="Day")).to_be_checked()
