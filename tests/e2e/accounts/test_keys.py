"""Keys over two workers of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.waiting import wait_until

ADMIN = {"Authorization": "Bearer admin-key-1"}
CALLS = 12
"""Calls on new connections, enough for both workers to answer some."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = {"ADMIN_API_KEY": "admin-key-1", "DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    with LiveServer(settings, workers=2) as live:
        yield live


@pytest.fixture
def key(server: LiveServer) -> Any:
    projects = f"{server.base_url}/organization/projects"
    project = requests.post(projects, json={"name": "search"}, headers=ADMIN, timeout=10).json()
    policy = {"limits": {"requests_per_day": 3 * CALLS}}
    created = requests.post(
        f"{projects}/{project['id']}/api_keys", json={"name": "ci", "policy": policy}, headers=ADMIN, timeout=10
    )
    assert created.status_code == 200, created.text
    return created.json()


def path_of(server: LiveServer, key: Any) -> str:
    return f"{server.base_url}/organization/projects/{key['project_id']}/api_keys/{key['id']}"


def statuses(server: LiveServer, secret: str) -> set[int]:
    headers = {"Authorization": f"Bearer {secret}", "Connection": "close"}
    url = f"{server.base_url}/models"
    return {requests.get(url, headers=headers, timeout=10).status_code for _ in range(CALLS)}


def test_a_key_works_on_both_workers_until_it_is_revoked(server: LiveServer, key: Any) -> None:
    wait_until(lambda: statuses(server, "sk-oc-unknown") == {401}, "both workers need keys")
    assert statuses(server, key["value"]) == {200}
    assert requests.delete(path_of(server, key), headers=ADMIN, timeout=10).status_code == 200
    wait_until(lambda: statuses(server, key["value"]) == {401}, "both workers refuse it")


def test_both_workers_count_the_same_limit_and_the_administrator_sees_it(server: LiveServer, key: Any) -> None:
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}
    headers = {"Authorization": f"Bearer {key['value']}", "Connection": "close"}
    url = f"{server.base_url}/chat/completions"
    answers = [requests.post(url, json=body, headers=headers, timeout=10).status_code for _ in range(3 * CALLS + 2)]
    assert (answers.count(200), answers.count(429)) == (3 * CALLS, 2)
    (meter,) = requests.get(f"{path_of(server, key)}/meters", headers=ADMIN, timeout=10).json()["data"]
    assert (meter["used"], meter["remaining"]) == (3 * CALLS, 0)


def test_the_secret_is_never_logged(server: LiveServer, key: Any) -> None:
    rotated = requests.post(f"{path_of(server, key)}/rotate", json={}, headers=ADMIN, timeout=10).json()
    wait_until(lambda: statuses(server, key["value"]) == {401}, "the old secret is refused")
    assert rotated["id"] == key["id"]
    assert not [secret for secret in (key["value"], rotated["value"], "admin-key-1") if secret in server.log()]
