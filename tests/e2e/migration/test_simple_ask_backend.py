"""`POST /ask` of the simple backend of a browser chat, with `OPENAI_API_KEY`.

`OPENAI_BASE_URL` is also set, because the mock upstream stands in for OpenAI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import free_port
from tests.support.snippets import run_bash

CURL = """\
curl -X POST "http://localhost:8000/ask" \\
     -H "Content-Type: application/json" \\
     -d '{
           "messages": [
             {"role": "user", "content": "Hello!"},
             {"role": "assistant", "content": "Hi there!"},
             {"role": "user", "content": "How are you?"}
           ]
         }'
"""

REQUEST = """\
{
    "messages": [
        {"role": "user", "content": "Your message here"},
        {"role": "assistant", "content": "Previous response"},
        {"role": "user", "content": "New message"}
    ]
}
"""
PAGE = "http://localhost:3000"
KEY = "sk-test-key"


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream("--api-key", KEY) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(upstream: MockUpstream) -> Iterator[LiveServer]:
    with LiveServer({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}) as server:
        yield server


def parse_events(text: str) -> list[dict[str, object]]:
    assert text.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in text.removesuffix("\n\n").split("\n\n")]


def assert_is_error(reply: requests.Response, status: int) -> None:
    assert reply.status_code == status
    error = reply.json()
    assert list(error) == ["role", "content", "error", "details"]
    assert error["role"] == "assistant"
    assert all(isinstance(value, str) and value for value in error.values())


def test_the_curl_example(server: LiveServer, tmp_path: Path) -> None:
    """Check the documented events, the last of which has the finish reason "stop"."""
    *deltas, last = parse_events(run_bash(CURL.replace(":8000", f":{server.port}"), tmp_path))
    assert len(deltas) > 1
    assert all(delta["role"] == "assistant" and delta["finish_reason"] is None for delta in deltas)
    assert "How are you?" in "".join(str(delta["content"]) for delta in deltas)
    assert last["finish_reason"] == "stop"


def test_its_example_request_is_streamed(server: LiveServer) -> None:
    reply = requests.post(
        f"{server.url}/ask", REQUEST, headers={"Content-Type": "application/json"}, stream=True, timeout=10
    )
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert "New message" in "".join(str(event["content"]) for event in parse_events(reply.text))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"content": "no role"}]},
        {"messages": "text"},
        {"messages": [{"role": "narrator", "content": "x"}]},
    ],
)
def test_invalid_input_is_400(server: LiveServer, body: dict[str, object]) -> None:
    assert_is_error(requests.post(f"{server.url}/ask", json=body, timeout=10), 400)


def test_broken_json_is_400(server: LiveServer) -> None:
    reply = requests.post(f"{server.url}/ask", "{", headers={"Content-Type": "application/json"}, timeout=10)
    assert_is_error(reply, 400)


def test_an_error_of_openai_is_500(server: LiveServer) -> None:
    body = {**json.loads(REQUEST), "model": "fault-status:code=503"}
    assert_is_error(requests.post(f"{server.url}/ask", json=body, timeout=10), 500)


def test_an_unreachable_openai_and_a_rejected_key_are_500(upstream: MockUpstream) -> None:
    unreachable = f"http://127.0.0.1:{free_port()}/v1"
    for key, base_url in ((KEY, unreachable), ("sk-wrong-key", upstream.base_url)):
        with LiveServer({"OPENAI_API_KEY": key, "OPENAI_BASE_URL": base_url}) as server:
            reply = requests.post(f"{server.url}/ask", json=json.loads(REQUEST), timeout=10)
            assert_is_error(reply, 500)
            assert key not in reply.text


def test_cors_allows_its_page_and_no_other(server: LiveServer) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = requests.options(f"{server.url}/ask", headers={"Origin": PAGE, **preflight}, timeout=10)
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
    assert "content-type" in allowed.headers["Access-Control-Allow-Headers"].lower()
    other = requests.options(
        f"{server.url}/ask", headers={"Origin": "https://elsewhere.example", **preflight}, timeout=10
    )
    assert "Access-Control-Allow-Origin" not in other.headers


def test_cors_origins_can_be_configured(upstream: MockUpstream) -> None:
    settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url}
    with LiveServer({**settings, "CORS_ALLOW_ORIGINS": "https://chat.example.com"}) as server:
        reply = requests.post(
            f"{server.url}/ask", json=json.loads(REQUEST), headers={"Origin": "https://chat.example.com"}, timeout=10
        )
        assert reply.headers["Access-Control-Allow-Origin"] == "https://chat.example.com"


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_its_documentation_pages(server: LiveServer, page: str) -> None:
    reply = requests.get(f"{server.url}{page}", timeout=10)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/html")
