"""OpenAI's clients at limits and budgets: they retry where waiting helps, and only there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests

from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.tools import NODE_DIR, require_node
from tests.support.waiting import wait_until

MODELS = [
    {"name": "priced", "kind": "echo", "price": {"request": 1}},
    {"name": "endless", "kind": "echo", "delay": 3600},
]
Client = Callable[[LiveServer, str], int]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountsSite]:
    with AccountsSite(tmp_path_factory.mktemp("server"), MODELS) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(site: AccountsSite) -> Iterator[LiveServer]:
    with LiveServer(site.settings) as live:
        yield live


def call_from_python(server: LiveServer, secret: str) -> int:
    """Make a chat and return its status after the client's own retries."""
    client = openai.OpenAI(base_url=server.base_url, api_key=secret, max_retries=5)
    try:
        client.chat.completions.create(model="priced", messages=[{"role": "user", "content": "hello there"}])
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def call_from_node(server: LiveServer, secret: str) -> int:
    command = [require_node(), str(NODE_DIR / "limits.mjs"), server.url, secret]
    done = subprocess.run(command, capture_output=True, timeout=50, check=True)
    return int(json.loads(done.stdout)["status"])


@pytest.fixture(params=[call_from_python, call_from_node], ids=["python", "node"])
def call(request: pytest.FixtureRequest) -> Client:
    client: Client = request.param
    return client


def refusals(server: LiveServer) -> int:
    return server.log().count(" status=429 ")


def test_a_call_waits_for_a_place_among_the_concurrent_ones(
    site: AccountsSite, server: LiveServer, call: Client
) -> None:
    _, secret = site.create_key(limits={"concurrent_requests": 1})
    body = {"model": "endless", "messages": [{"role": "user", "content": "a b"}], "stream": True}
    url, headers = f"{server.base_url}/chat/completions", {"Authorization": f"Bearer {secret}"}
    before = refusals(server)
    with ThreadPoolExecutor() as pool:
        with requests.post(url, json=body, headers=headers, timeout=30, stream=True) as running:
            assert running.status_code == 200
            waiting = pool.submit(call, server, secret)
            wait_until(lambda: refusals(server) > before)
        assert waiting.result() == 200


def test_a_spent_budget_is_asked_once(site: AccountsSite, server: LiveServer, call: Client) -> None:
    _, secret = site.create_key(budgets=[{"amount": 1}])
    assert post(server.base_url, secret, model="priced").ok
    before = refusals(server)
    assert call(server, secret) == 429
    assert refusals(server) == before + 1


def test_a_call_that_is_too_large_is_asked_once(site: AccountsSite, server: LiveServer, call: Client) -> None:
    _, secret = site.create_key(limits={"tokens_per_minute": 1})
    before = refusals(server)
    assert call(server, secret) == 429
    assert refusals(server) == before + 1
