"""Calls through nginx with the configuration of `deploy/`, this server and an upstream."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import Nginx, nginx_in_front_of

MESSAGES = [{"role": "user", "content": "one two three four"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def nginx(upstream: MockUpstream) -> Iterator[Nginx]:
    with (
        LiveServer({"OPENAI_BASE_URL": upstream.base_url, "SSE_KEEPALIVE_SECONDS": "3600"}) as server,
        nginx_in_front_of(server.url) as front,
    ):
        yield front


def stream(nginx: Nginx, model: str) -> requests.Response:
    body = {"model": model, "messages": MESSAGES, "stream": True}
    return requests.post(f"{nginx.url}/v1/chat/completions", json=body, stream=True, timeout=20)


def test_the_first_event_arrives_before_the_answer_is_complete(nginx: Nginx) -> None:
    with stream(nginx, "fault-stall") as response:
        assert b'"role":"assistant"' in next(response.iter_lines())


def test_the_official_client_streams(nginx: Nginx) -> None:
    client = openai.OpenAI(base_url=f"{nginx.url}/v1", api_key="any")
    chunks = list(client.chat.completions.create(model="mock-model", messages=MESSAGES, stream=True))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: one two three four"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_client_disconnect_aborts_the_upstream_request(nginx: Nginx, upstream: MockUpstream) -> None:
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    upstream.reset()
    with stream(nginx, "fault-stall") as response:
        next(response.iter_lines())
    upstream.wait_until(lambda stats: stats["requests_aborted"] == 1 and stats["requests_open"] == 0)


def test_truncated_streams_and_errors_pass_unchanged(nginx: Nginx) -> None:
    assert b'"code":"upstream_cut"' in stream(nginx, "fault-reset").content
    refused = stream(nginx, "fault-status:code=429,retry_after=7")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


def test_nginx_and_the_server_use_the_same_request_id(nginx: Nginx) -> None:
    response = requests.get(f"{nginx.url}/v1/models/mock-model", headers={"X-Request-Id": "mine-9"}, timeout=20)
    assert response.headers["x-request-id"] == "mine-9"


def test_pages_are_told_apart_by_the_name_that_they_called() -> None:
    """nginx calls the server on a loopback address, and passes on the name that the browser called."""
    own = {"Host": "api.example.com", "Origin": "https://api.example.com"}
    foreign = {"Host": "api.example.com", "Origin": "https://evil.test"}
    unknown = {"Host": "evil.test", "Origin": "https://evil.test"}
    with LiveServer({"ALLOWED_HOSTS": "api.example.com"}) as server, nginx_in_front_of(server.url) as front:

        def status(headers: dict[str, str]) -> int:
            body = {"messages": MESSAGES}
            return requests.post(f"{front.url}/v1/chat/completions", json=body, headers=headers, timeout=20).status_code

        assert [status(headers) for headers in (own, foreign, unknown)] == [200, 403, 403]
