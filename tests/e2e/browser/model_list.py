"""Failures of the list of models, and what both pages do about them. The page's clock advances only by the test."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.e2e.browser.chromium import wait_until

FAILURES = {
    "unreachable": "cannot be reached",
    "status 503": "503",
    "no response": "did not respond in time",
}
"""What the page says, by the kind of failure."""
TIMEOUT = 10_000
FIRST_DELAY = 1000
LONG = 60_000
"""Milliseconds, longer than the maximum delay."""


class FailingModelList:
    """`GET /v1/models` of one page, which fails until `is_up` is set. `count` is the number of requests."""

    def __init__(self, page: Page, failure: str) -> None:
        self.failure = failure
        self.is_up = False
        self.count = 0
        self.alert = page.get_by_role("alert").filter(has_text="The list of models is requested again automatically.")
        page.clock.install(time=0)
        page.clock.pause_at(1000)
        page.route("**/v1/models", self._handle)

    def _handle(self, route: Route) -> None:
        self.count += 1
        if self.is_up:
            route.continue_()
        elif self.failure == "unreachable":
            route.abort("connectionrefused")
        elif self.failure == "status 503":
            route.fulfill(status=503, headers={"access-control-allow-origin": "*"}, body="busy")


def advance_until(page: Page, is_so: Callable[[], bool]) -> int:
    """Advance the page's clock in steps, and return the milliseconds after which the condition holds."""
    milliseconds = 0

    def advance() -> bool:
        nonlocal milliseconds
        if is_so():
            return True
        page.clock.run_for(250)
        milliseconds += 250
        return False

    wait_until(page, advance)
    return milliseconds


def wait_for_failure(page: Page, models: FailingModelList) -> None:
    """Wait until the page reports that its first request has failed."""
    wait_until(page, lambda: models.count == 1)
    if models.failure == "no response":
        page.clock.run_for(TIMEOUT)
    expect(models.alert).to_contain_text(FAILURES[models.failure])
    assert models.count == 1


def check_retries(page: Page, models: FailingModelList) -> None:
    """Check that the delay doubles, and let the fourth request succeed."""
    wait_for_failure(page, models)
    timeout = TIMEOUT if models.failure == "no response" else 0
    page.clock.run_for(FIRST_DELAY - 1)
    assert models.count == 1
    page.clock.run_for(1)
    wait_until(page, lambda: models.count == 2)
    assert advance_until(page, lambda: models.count == 3) >= timeout + 2 * FIRST_DELAY
    models.is_up = True
    assert advance_until(page, lambda: models.count == 4) >= timeout + 4 * FIRST_DELAY
    expect(models.alert).to_be_hidden()
    page.clock.run_for(LONG)


def check_return(page: Page, models: FailingModelList) -> None:
    """Check that a hidden tab sends no requests, and one at once when it becomes visible."""
    wait_for_failure(page, models)
    set_hidden(page, hidden=True)
    page.clock.run_for(LONG)
    assert models.count == 1
    models.is_up = True
    set_hidden(page, hidden=False)
    wait_until(page, lambda: models.count == 2)


def check_retry_on_demand(page: Page, models: FailingModelList) -> None:
    """Check that the button sends a request at once."""
    wait_for_failure(page, models)
    models.is_up = True
    models.alert.get_by_role("button", name="Try again").click()
    wait_until(page, lambda: models.count == 2)


def set_hidden(page: Page, *, hidden: bool) -> None:
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )
