"""Calls whose client disconnects before an upstream got their request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection

import pytest

from tests.support.accounts_site import AccountsSite
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.waiting import wait_until

SINGLE = {"name": "single", "kind": "openai", "upstream_model": "fault-hang-headers", "max_concurrent": 1}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountsSite]:
    with ExitStack() as stack:
        upstream = stack.enter_context(MockUpstream())
        models = [{**SINGLE, "base_url": upstream.base_url, "price": {"input": 1, "output": 2}}]
        yield stack.enter_context(AccountsSite(tmp_path_factory.mktemp("server"), models))


@pytest.fixture(scope="module")
def server(site: AccountsSite) -> Iterator[LiveServer]:
    site.create_key()
    with LiveServer(site.settings) as live:
        yield live


@contextmanager
def waiting_call(server: LiveServer, secret: str) -> Iterator[None]:
    """Send a call that gets no answer, and close its connection at the end of the block."""
    body = json.dumps({"model": "single", "messages": [{"role": "user", "content": "one two three"}]})
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    with closing(HTTPConnection("127.0.0.1", server.port)) as connection:
        connection.request("POST", "/v1/chat/completions", body, headers)
        yield


def test_a_client_that_hangs_up_in_the_queue_of_an_upstream_pays_nothing(
    site: AccountsSite, server: LiveServer
) -> None:
    first, first_secret = site.create_key(budgets=[{"amount": 100}])
    second, second_secret = site.create_key(budgets=[{"amount": 100}])
    with waiting_call(server, first_secret):
        wait_until(lambda: site.held(first) > 0)
        with waiting_call(server, second_secret):
            wait_until(lambda: site.held(second) > 0)
        (queued,) = site.wait_for_rows(second, 1)
    (sent,) = site.wait_for_rows(first, 1)
    assert (queued["status"], queued["input_tokens"], site.spent(second)) == (499, 0, 0)
    assert (sent["status"], sent["is_estimated"]) == (499, True)
    assert site.spent(first) == sent["cost_nano"] > 0
