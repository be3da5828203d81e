"""Limits and budgets over several workers: none is exceeded, and every call is settled once."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest
import requests

from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.redis_server import running_redis
from tests.support.waiting import wait_until

TOKENS = 5
"""Limit on the output of a priced call, which its text reaches, so that the estimate is exact."""
CALL_NANO = TOKENS * 1_000_000
PRICE = {"input": 0, "output": 1000}
"""A thousandth of a dollar for each token of the answer."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def site(
    request: pytest.FixtureRequest, upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AccountsSite]:
    at_upstream = {"kind": "openai", "base_url": upstream.base_url}
    models: list[dict[str, Any]] = [
        {"name": "priced", "kind": "echo", "price": PRICE},
        {"name": "slow", "kind": "echo", "delay": 0.2, "price": PRICE},
        {"name": "endless", "kind": "echo", "delay": 3600},
        {"name": "broken", **at_upstream, "upstream_model": "fault-reset-before", "price": {"output": 7777}},
        {"name": "refusing", **at_upstream, "upstream_model": "fault-status:code=401"},
        {"name": "upstream", **at_upstream, "upstream_model": "mock-chat", "price": {"request": 0.25}},
        {"name": "unmetered", **at_upstream, "upstream_model": "fault-no-usage", "price": PRICE},
        {"name": "route", "targets": [{"model": "broken"}], "fallbacks": ["priced"]},
    ]
    with ExitStack() as stack:
        others = {}
        if request.param == "redis":
            others["SHARED_STATE_URL"] = stack.enter_context(running_redis(tmp_path_factory.mktemp("redis"))).url
        folder = tmp_path_factory.mktemp("server")
        yield stack.enter_context(AccountsSite(folder, models, OPENAI_BASE_URL=upstream.base_url, **others))


@pytest.fixture(scope="module")
def server(site: AccountsSite) -> Iterator[LiveServer]:
    site.create_key()  # before the start, so that every call needs a key
    with LiveServer(site.settings, workers=4) as live:
        yield live


def send_at_once(server: LiveServer, secret: str, count: int, **body: Any) -> list[bytes]:
    """Send the same chat over `count` connections before any answer is read, and return the answers."""
    content = json.dumps({"messages": [{"role": "user", "content": "a b c d e f g h"}], **body}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(count)]
        for sock in sockets:
            sock.sendall(request)
        return [_read_all(sock) for sock in sockets]


def _read_all(sock: socket.socket) -> bytes:
    with closing(sock.makefile("rb")) as reader:
        return reader.read()


def statuses(answers: list[bytes]) -> dict[int, int]:
    found = [int(answer[9:12]) for answer in answers]
    return {status: found.count(status) for status in set(found)}


def test_a_budget_is_never_exceeded(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(budgets=[{"amount": 50 * CALL_NANO / 1e9}])
    answers = send_at_once(server, secret, 500, model="priced", max_tokens=TOKENS)
    succeeded = statuses(answers).pop(200)
    while succeeded < 50:  # calls were refused while others held the rest
        succeeded += post(server.base_url, secret, model="priced", max_tokens=TOKENS).ok
    assert statuses(answers).keys() == {200, 429}
    refused = post(server.base_url, secret, model="priced", max_tokens=TOKENS)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    site.check_sums(key, 50)
    assert site.spent(key) == 50 * CALL_NANO


def test_a_limit_on_requests_is_exact_and_headers_agree(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(limits={"requests_per_day": 40})
    answers = send_at_once(server, secret, 100, model="priced", max_tokens=1)
    succeeded = [answer for answer in answers if b" 200 " in answer[:16]]
    assert sorted(_remaining(answer, "requests") for answer in succeeded) == list(range(40))
    assert site.levels(key)["requests_per_day"].current == 40


def test_a_limit_on_tokens_is_exact(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(limits={"tokens_per_day": 300})
    too_large = post(server.base_url, secret, model="priced", max_tokens=1000)
    assert (too_large.status_code, too_large.headers["x-should-retry"]) == (429, "false")
    answers = send_at_once(server, secret, 60, model="priced", max_tokens=TOKENS)
    succeeded = [answer for answer in answers if b" 200 " in answer[:16]]
    rows = site.wait_for_rows(key, len(succeeded))
    used = sum(row["input_tokens"] + row["output_tokens"] for row in rows)
    assert len(rows) == len(succeeded)
    assert 0 < site.levels(key)["tokens_per_day"].current == used <= 300
    assert min(_remaining(answer, "tokens") for answer in succeeded) >= 0


def test_a_burst_gets_what_a_minute_allows(site: AccountsSite, server: LiveServer) -> None:
    """If the minute ends during the burst, almost all of it still counts, so that at most one more call succeeds."""
    key, secret = site.create_key(limits={"requests_per_minute": 40, "tokens_per_minute": 10**6})
    answers = send_at_once(server, secret, 100, model="priced", max_tokens=TOKENS)
    succeeded = statuses(answers)[200]
    assert 40 <= succeeded <= 41
    rows = site.wait_for_rows(key, succeeded)
    level = site.levels(key)["tokens_per_minute"]
    assert level.current + level.previous == sum(row["input_tokens"] + row["output_tokens"] for row in rows)


def _remaining(answer: bytes, unit: str) -> int:
    found = re.search(rb"x-ratelimit-remaining-%s: (\d+)" % unit.encode(), answer, re.IGNORECASE)
    assert found is not None
    return int(found[1])


def test_concurrent_calls_are_counted_over_all_workers(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(limits={"concurrent_requests": 3})
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"model": "endless", "messages": [{"role": "user", "content": "a b c"}], "stream": True}

    def begin(_: int) -> requests.Response:
        return requests.post(f"{server.base_url}/chat/completions", json=body, headers=headers, timeout=30, stream=True)

    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(begin, range(8)))
    refused = [stream for stream in streams if stream.status_code == 429]
    assert len(refused) == 5
    assert all("retry-after" in stream.headers for stream in refused)
    for stream in streams:
        stream.close()
    wait_until(lambda: site.held(key) == 0)
    assert post(server.base_url, secret, model="priced").ok


def test_a_client_that_hangs_up_pays_for_the_events_that_it_got(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(budgets=[{"amount": 100}], limits={"concurrent_requests": 1})
    headers = {"Authorization": f"Bearer {secret}"}
    body = {"model": "slow", "messages": [{"role": "user", "content": "a b c d e f g h i j"}], "stream": True}
    url = f"{server.base_url}/chat/completions"
    with requests.post(url, json=body, headers=headers, timeout=30, stream=True) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith(b"data: "))
        events = [next(lines) for _ in range(3)]
    (row,) = site.wait_for_rows(key, 1)
    assert (row["status"], row["is_estimated"]) == (499, True)
    assert len(events) <= row["output_tokens"] < 10
    site.check_sums(key, 1)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_without_usage_is_not_free(site: AccountsSite, server: LiveServer, is_streamed: bool) -> None:
    key, secret = site.create_key(budgets=[{"amount": 100}])
    assert post(server.base_url, secret, model="unmetered", stream=is_streamed).ok
    (row,) = site.wait_for_rows(key, 1)
    assert (row["status"], row["is_estimated"]) == (200, True)
    assert row["output_tokens"] > 3
    site.check_sums(key, 1)
    assert site.spent(key) > 0


def test_a_negative_limit_on_the_output_gives_no_credit(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(budgets=[{"amount": 0.001}], limits={"tokens_per_day": 50})
    for body in ({"max_tokens": -(10**9)}, {"n": -1000}, {"max_output_tokens": 1}):
        assert post(server.base_url, secret, model="upstream", **body).status_code == 429
    assert site.held(key) == site.spent(key) == site.levels(key)["tokens_per_day"].current == 0


def test_failover_charges_the_target_that_answered(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(budgets=[{"amount": 100}])
    assert post(server.base_url, secret, model="route", max_tokens=TOKENS).ok
    (row,) = site.wait_for_rows(key, 1)
    assert (row["model"], row["served_by"], row["cost_nano"]) == ("route", "priced", CALL_NANO)
    site.check_sums(key, 1)


def test_every_kind_of_call_is_settled_once(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(budgets=[{"amount": 100}], limits={"concurrent_requests": 9, "requests_per_day": 99})
    base, text = server.base_url, "one two three"
    calls = [
        post(base, secret, model="priced"),
        post(base, secret, model="priced", stream=True),
        post(base, secret, model="upstream"),
        post(base, secret, model="upstream", stream=True),
        post(base, secret, model="broken"),
        post(base, secret, "responses", model="priced", input=text),
        post(base, secret, "responses", model="priced", input=text, background=True),
        post(base, secret, "messages", model="priced", max_tokens=9, messages=[{"role": "user", "content": text}]),
        post(server.url, secret, "ask", model="priced", messages=[{"role": "user", "content": text}]),
    ]
    assert [call.status_code for call in calls] == [200, 200, 200, 200, 502, 200, 200, 200, 200], calls[-1].text
    site.check_sums(key, len(calls))
    assert site.levels(key)["requests_per_day"].current == len(calls)
    assert site.spent(key) > 0


def test_passed_through_calls_obey_the_account(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(limits={"requests_per_day": 2}, endpoints=["other"])
    headers = {"Authorization": f"Bearer {secret}"}
    answers = [requests.get(f"{server.base_url}/files", headers=headers, timeout=30) for _ in range(3)]
    assert [answer.headers.get("x-ratelimit-remaining-requests") for answer in answers[:2]] == ["1", "0"]
    assert answers[2].status_code == 429
    assert [row["endpoint"] for row in site.wait_for_rows(key, 2)] == ["other", "other"]
    listed = requests.get(f"{server.base_url}/models", headers=headers, timeout=30)
    assert (listed.status_code, listed.json()["error"]["code"]) == (403, "endpoint_not_allowed")


@pytest.mark.parametrize("path", ["files", "models", "responses/resp_1", "conversations/conv_1"])
def test_a_key_uses_the_endpoints_that_it_may_use(site: AccountsSite, server: LiveServer, path: str) -> None:
    _, secret = site.create_key(endpoints=["chat"])
    headers = {"Authorization": f"Bearer {secret}"}
    refused = requests.get(f"{server.base_url}/{path}", headers=headers, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "endpoint_not_allowed")
    assert post(server.base_url, secret, model="priced").ok


def test_a_key_for_some_models_names_the_model_of_a_passed_through_call(site: AccountsSite, server: LiveServer) -> None:
    _, secret = site.create_key(models=["gpt-*"])
    refused = post(server.base_url, secret, "images/generations", prompt="a cat")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    others = post(server.base_url, secret, "images/generations", prompt="a cat", model="dall-e-2")
    assert (others.status_code, others.json()["error"]["code"]) == (403, "model_not_found")


def test_an_upstream_that_wants_a_key_says_nothing_about_the_callers(site: AccountsSite, server: LiveServer) -> None:
    _, secret = site.create_key()
    refused = post(server.base_url, secret, model="refusing")
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_authentication_failed")
    assert refused.headers["x-should-retry"] == "false"


def test_a_key_with_a_budget_makes_no_call_whose_price_is_unknown(site: AccountsSite, server: LiveServer) -> None:
    _, secret = site.create_key(budgets=[{"amount": 100}])
    refused = post(server.base_url, secret, "images/generations", prompt="a cat")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unknown_price")
    headers = {"Authorization": f"Bearer {secret}"}
    assert requests.get(f"{server.base_url}/files", headers=headers, timeout=30).status_code != 403
