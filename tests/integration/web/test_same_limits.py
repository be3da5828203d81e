"""The limits on a request's body, on every endpoint that reads one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from openai_compat.core.large_json import MAX_STRUCTURE
from tests.integration.web.conftest import MakeClient
from tests.support.raw_server import RawServer, read_request

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": "mock-gpt-model", "messages": MESSAGES}


@pytest.fixture
def client(make_client: MakeClient, tmp_path: Path) -> FlaskClient:
    return make_client(DATA_DIR=str(tmp_path), MAX_REQUEST_BYTES="3000000")


def doors_of(client: FlaskClient) -> dict[str, dict[str, Any]]:
    """Return the endpoints with a valid body for each."""
    conversation = client.post("/v1/conversations").get_json()["id"]
    completion = client.post("/v1/chat/completions", json={**CHAT, "store": True}).get_json()["id"]
    return {
        "/v1/chat/completions": CHAT,
        "/v1/responses": {"model": "mock-gpt-model", "input": "hi"},
        "/v1/embeddings": {"model": "mock-gpt-model", "input": "hi"},
        "/v1/messages": CHAT,
        "/ask": {"messages": MESSAGES},
        "/v1/conversations": {"items": MESSAGES},
        f"/v1/conversations/{conversation}": {"metadata": {"a": "b"}},
        f"/v1/conversations/{conversation}/items": {"items": MESSAGES},
        f"/v1/chat/completions/{completion}": {"metadata": {"a": "b"}},
    }


def post(client: FlaskClient, path: str, body: bytes) -> TestResponse:
    return client.post(path, data=body, content_type="application/json")


def test_every_endpoint_limits_the_values_of_a_body(client: FlaskClient) -> None:
    for path in doors_of(client):
        response = post(client, path, b'{"x":[' + b"1," * MAX_STRUCTURE + b"1]}")
        assert response.status_code == 400, path
        assert b"too many values" in response.data, path


def test_every_endpoint_limits_the_bytes_of_a_body(client: FlaskClient) -> None:
    for path in doors_of(client):
        assert post(client, path, b'{"x":"' + b"x" * 3_000_000 + b'"}').status_code == 413, path


def test_no_endpoint_logs_a_secret_of_a_body(
    make_client: MakeClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = make_client(DATA_DIR=str(tmp_path), LOG_REQUEST_BODIES="true")
    for path, body in doors_of(client).items():
        capsys.readouterr()
        post(client, path, json.dumps({**body, "api_key": "very-secret", "user": "sk-abcdefghijkl"}).encode())
        logged = capsys.readouterr().err
        assert "request body: " in logged, path
        assert "very-secret" not in logged, path
        assert "sk-abc" not in logged, path


@pytest.fixture
def echoing() -> Iterator[RawServer]:
    """Yield an upstream whose errors repeat the request's headers."""

    def script(connection: Any) -> None:
        body = json.dumps({"error": {"message": read_request(connection).decode("latin-1"), "type": "x"}}).encode()
        head = f"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    with RawServer(script) as server:
        yield server


def test_credentials_are_masked_in_errors_of_responses_and_stored_objects(
    make_client: MakeClient, echoing: RawServer, tmp_path: Path
) -> None:
    settings = {"OPENAI_BASE_URL": f"{echoing.url}/v1", "OPENAI_API_KEY": "credential-of-the-server"}
    client = make_client(DATA_DIR=str(tmp_path), **settings)
    for method, path in (
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_x"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/conv_x"),
        ("GET", "/v1/chat/completions/chatcmpl-x"),
        ("GET", "/v1/chat/completions"),
    ):
        body = {"json": {"model": "m", "input": "hi"}} if method == "POST" else {}
        response = client.open(path, method=method, **body)  # type: ignore[arg-type]
        assert response.status_code == 500, path
        assert "credential-of-the-server" not in response.text, path
        assert "***" in response.text, path
