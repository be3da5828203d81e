"""Reservations of calls whose input this server takes from its store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from openai_compat.accounts.account import Account
from tests.support.accounts_site import AccountsSite, post
from tests.support.live_server import LiveServer
from tests.support.waiting import wait_until

WORDS = 1000
HISTORY = "word " * WORDS
TOKENS = len(HISTORY) // 4
"""Estimate of the history's tokens, without the little that its JSON adds."""
MARGIN = 200
"""More than the rest of a call takes."""
NEVER = "resp_" + "0" * 32
PRICE = {"input": 1000, "output": 1000}
"""A thousandth of a dollar for each token."""
MODELS: list[dict[str, Any]] = [
    {"name": "priced", "kind": "echo", "price": PRICE},
    {"name": "endless", "kind": "echo", "delay": 3600, "price": PRICE},
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountsSite]:
    with AccountsSite(tmp_path_factory.mktemp("server"), MODELS) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(site: AccountsSite) -> Iterator[LiveServer]:
    site.create_key()
    with LiveServer(site.settings) as live:
        yield live


@pytest.fixture(scope="module")
def stored(site: AccountsSite, server: LiveServer) -> dict[str, dict[str, Any]]:
    """Return what refers to a stored history, by the kind of reference. All keys of a project share its objects."""
    _, secret = site.create_key()
    first = post(server.base_url, secret, "responses", model="priced", input=HISTORY, max_output_tokens=1)
    items = [{"role": "user", "content": HISTORY}]
    conversation = post(server.base_url, secret, "conversations", items=items)
    own = [{"id": "mine", "role": "user", "content": HISTORY}]
    assert post(server.base_url, secret, "conversations", items=own).ok
    return {
        "response": {"previous_response_id": first.json()["id"], "input": "go"},
        "conversation": {"conversation": conversation.json()["id"], "input": "go"},
        "reference": {"input": [{"type": "item_reference", "id": "mine"}, {"role": "user", "content": "go"}]},
    }


def call(server: LiveServer, secret: str, path: str = "responses", **body: Any) -> requests.Response:
    return post(server.base_url, secret, path, **{"model": "priced", "max_output_tokens": 5, **body})


def reserved(answer: requests.Response) -> int:
    """Return the tokens that the call has taken of a new key's limit, before the model answered."""
    limit, left = (int(answer.headers[f"x-ratelimit-{name}-tokens"]) for name in ("limit", "remaining"))
    return limit - left


def used(site: AccountsSite, key: Account) -> int:
    return site.levels(key)["tokens_per_day"].current


@pytest.mark.parametrize("kind", ["response", "conversation", "reference"])
def test_a_budget_for_one_call_with_its_history_admits_no_second_one(
    site: AccountsSite, server: LiveServer, stored: dict[str, Any], kind: str
) -> None:
    key, secret = site.create_key(budgets=[{"amount": (2 * TOKENS - MARGIN) / 1000}])
    body = {"model": "endless", "max_output_tokens": 5, "stream": True, **stored[kind]}
    headers = {"Authorization": f"Bearer {secret}"}
    with requests.post(f"{server.base_url}/responses", json=body, headers=headers, timeout=30, stream=True) as running:
        assert running.status_code == 200
        refused = call(server, secret, **stored["response"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert call(server, secret, input="go").ok
    wait_until(lambda: site.held(key) == 0)


@pytest.mark.parametrize("kind", ["response", "conversation", "reference"])
@pytest.mark.parametrize("path", ["responses", "responses/compact"])
def test_headers_show_that_the_history_is_reserved(
    site: AccountsSite, server: LiveServer, stored: dict[str, Any], path: str, kind: str
) -> None:
    key, secret = site.create_key(limits={"tokens_per_day": 100_000})
    answer = call(server, secret, path, **stored[kind])
    assert answer.ok
    assert TOKENS <= reserved(answer) < TOKENS + MARGIN
    wait_until(lambda: used(site, key) == answer.json()["usage"]["total_tokens"])


def test_a_response_in_the_background_reserves_its_history(
    site: AccountsSite, server: LiveServer, stored: dict[str, Any]
) -> None:
    key, secret = site.create_key(limits={"tokens_per_day": 100_000})
    answer = call(server, secret, background=True, **stored["response"])
    assert TOKENS <= reserved(answer) < TOKENS + MARGIN
    (row,) = site.wait_for_rows(key, 1)
    assert used(site, key) == row["input_tokens"] + row["output_tokens"]


def test_a_refused_call_leaves_its_conversation_free(
    site: AccountsSite, server: LiveServer, stored: dict[str, Any]
) -> None:
    key, secret = site.create_key(limits={"tokens_per_day": TOKENS})
    refused = call(server, secret, **stored["conversation"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert used(site, key) == 0
    _, other = site.create_key()
    assert call(server, other, **stored["conversation"]).ok


def test_counting_the_tokens_of_a_history_is_free(
    site: AccountsSite, server: LiveServer, stored: dict[str, Any]
) -> None:
    key, secret = site.create_key(limits={"tokens_per_day": TOKENS})
    answer = call(server, secret, "responses/input_tokens", **stored["response"])
    assert answer.json()["input_tokens"] >= WORDS
    assert used(site, key) == 0


def test_a_history_that_does_not_exist_is_told_and_recorded_as_before(site: AccountsSite, server: LiveServer) -> None:
    key, secret = site.create_key(limits={"tokens_per_day": 1000, "requests_per_day": 9})
    cases: list[tuple[dict[str, str], int, str | None]] = [
        ({"previous_response_id": NEVER}, 400, "previous_response_not_found"),
        ({"conversation": "conv_" + "0" * 32}, 404, None),
        ({"previous_response_id": NEVER, "conversation": "conv_1"}, 400, "mutually_exclusive_parameters"),
    ]
    for reference, status, code in cases:
        answer = call(server, secret, input="go", **reference)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert [row["status"] for row in site.wait_for_rows(key, 3)] == [status for _, status, _ in cases]
    assert (used(site, key), site.levels(key)["requests_per_day"].current) == (0, 3)
