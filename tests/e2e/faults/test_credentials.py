"""Rejected API keys. A client gets a 401 only if its own key was rejected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream

UPSTREAM_KEY = "sk-of-the-upstream"
QUESTION = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream("--api-key", UPSTREAM_KEY) as upstream:
        yield upstream


@pytest.mark.parametrize(
    ("settings", "sent", "status", "code"),
    [
        ({}, UPSTREAM_KEY, 200, None),
        ({}, "sk-wrong", 401, "invalid_api_key"),
        ({}, None, 401, "invalid_api_key"),
        ({"OPENAI_API_KEY": UPSTREAM_KEY}, "sk-wrong", 200, None),
        ({"OPENAI_API_KEY": "sk-outdated"}, UPSTREAM_KEY, 502, "upstream_authentication_failed"),
        ({"OPENAI_API_KEY": UPSTREAM_KEY, "API_KEYS": "ours"}, "ours", 200, None),
        ({"API_KEYS": "ours"}, "ours", 502, "upstream_authentication_failed"),
        ({"API_KEYS": "ours"}, UPSTREAM_KEY, 401, "invalid_api_key"),
    ],
)
def test_a_rejected_key_is_a_401_for_its_owner_only(
    settings: dict[str, str], sent: str | None, status: int, code: str | None, upstream: MockUpstream
) -> None:
    headers = {"Authorization": f"Bearer {sent}"} if sent else {}
    with LiveServer({"OPENAI_BASE_URL": upstream.base_url, **settings}) as server:
        for stream in (False, True):
            body = {**QUESTION, "stream": stream}
            reply = requests.post(f"{server.base_url}/chat/completions", json=body, headers=headers, timeout=10)
            assert reply.status_code == status, reply.text
            if code is not None:
                assert reply.json()["error"]["code"] == code
            assert reply.headers.get("x-should-retry") == ("false" if status == 502 else None)
