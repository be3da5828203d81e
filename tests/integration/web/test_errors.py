"""Every error of every route has OpenAI's envelope."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from openai_compat import create_app
from openai_compat.core.errors import OpenAICompatError
from openai_compat.core.settings import Settings
from openai_compat.web.errors import status_of
from tests.integration.web.conftest import MakeClient
from tests.support.mock_upstream import MockUpstream

CHAT = {"model": "mock-gpt-model", "messages": [{"role": "user", "content": "hi"}]}
ENDPOINTS = [
    f"{root}/{path}"
    for root in ("/v1", "", "/api/v1", "/openai/v1", "/openai/deployments/mock-gpt-model")
    for path in ("chat/completions", "completions", "embeddings")
]


def error_of(response: TestResponse, status: int) -> dict[str, Any]:
    """Return the error after checking the status, the content type, the four keys and their types."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    content = response.get_json()
    assert content.keys() == {"error"}
    error: dict[str, Any] = content["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str | None)
    assert isinstance(error["param"], str | None)
    assert response.headers["x-request-id"]
    return error


BAD_BODIES = [
    b"", b"{", b"[1]", b"null", b"3", b'"x"', b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"model": "\\ud800"}', b"\xff\xfe",
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"n": ' + b"9" * 10_000 + b"}", b"{}", b'{"messages": 3}',
    b'{"prompt": {}, "input": {}, "messages": {}}', b'{"model": 3}',
]  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_invalid_body_is_a_400_on_every_endpoint(client: FlaskClient, endpoint: str) -> None:
    for body in BAD_BODIES:
        assert error_of(client.post(endpoint, data=body, content_type="application/json"), 400)["message"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_wrong_method_is_a_405_with_the_allowed_methods(client: FlaskClient, endpoint: str) -> None:
    response = client.delete(endpoint)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_unsupported_content_type_is_a_415(client: FlaskClient, endpoint: str) -> None:
    error_of(client.post(endpoint, data="a=b", content_type="application/x-www-form-urlencoded"), 415)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json", None])
def test_other_json_content_types_and_none_are_accepted(client: FlaskClient, content_type: str | None) -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    assert client.post("/v1/chat/completions", data=body, content_type=content_type).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/", "/chat", "/openai/deployments/x", "/%00"])
def test_an_unknown_path_is_a_404(client: FlaskClient, path: str) -> None:
    assert error_of(client.get(path), 404)["code"] == "unknown_url"


def test_a_body_above_the_limit_is_a_413(make_client: MakeClient) -> None:
    client = make_client(MAX_REQUEST_BYTES="100")
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * 200 + b'"}]}'
    assert error_of(client.post("/v1/chat/completions", data=body), 413)["code"] == "request_too_large"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_an_unknown_model_is_a_404(client: FlaskClient, path: str) -> None:
    body = {**CHAT, "model": "no/such", "prompt": "x", "input": "x"}
    error = error_of(client.post(path, json=body), 404)
    assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")


def test_a_misspelled_model_name_gets_a_suggestion(client: FlaskClient) -> None:
    error = error_of(client.post("/v1/chat/completions", json={**CHAT, "model": "mock-gtp-model"}), 404)
    assert error["message"].endswith("Did you mean 'mock-gpt-model'?")


def test_a_model_without_the_capability_is_a_501_that_is_not_retryable(make_client: MakeClient) -> None:
    client = make_client(EXTERNAL_CHAT_URL="http://127.0.0.1:9/chat")
    for path, code in (("completions", "completions_not_available"), ("embeddings", "embeddings_backend_unavailable")):
        response = client.post(f"/v1/{path}", json={"prompt": "x", "input": "x"})
        error = error_of(response, 501)
        assert error["code"] == code
        assert error["message"].endswith("; use /v1/chat/completions.")
        assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2), ("logprobs", True), ("response_format", {"type": "json_object"}), ("audio", {"voice": "alloy"}),
        ("modalities", ["text", "audio"]),
    ],
)  # fmt: skip
def test_an_unsupported_parameter_is_rejected_by_name(make_client: MakeClient, name: str, value: Any) -> None:
    client = make_client(EXTERNAL_CHAT_URL="http://127.0.0.1:9/chat")
    error = error_of(client.post("/v1/chat/completions", json={"messages": CHAT["messages"], name: value}), 400)
    param = {"modalities": "audio"}.get(name, name)
    assert (error["code"], error["param"]) == ("unsupported_parameter", param)


def test_the_statuses_for_invalid_requests_and_upstream_errors_can_be_configured(make_client: MakeClient) -> None:
    client = make_client(
        EXTERNAL_CHAT_URL="http://127.0.0.1:9/chat", VALIDATION_ERROR_STATUS="422", UPSTREAM_ERROR_STATUS="500"
    )
    error_of(client.post("/v1/chat/completions", json={"messages": []}), 422)
    assert (
        error_of(client.post("/v1/chat/completions", json={"messages": CHAT["messages"]}), 500)["type"]
        == "upstream_error"
    )


def test_an_unexpected_error_shows_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr("openai_compat.backends.echo.backend.EchoBackend.chat", fail)
    response = create_app(Settings(**echo_settings())).test_client().post("/v1/chat/completions", json=CHAT)
    assert "secret" not in response.text
    assert error_of(response, 500)["code"] == "internal_error"


def echo_settings() -> dict[str, Any]:
    from openai_compat.core.settings import ModelConfig

    return {"entries": {"mock-gpt-model": ModelConfig("mock-gpt-model", "echo")}, "default_model": "mock-gpt-model"}


def test_an_unexpected_error_in_a_stream_becomes_an_error_event(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr("openai_compat.services.chat._to_chunk_deltas", fail)
    response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.status_code == 200
    assert '"code":"internal_error"' in response.text
    assert "secret" not in response.text
    assert "[DONE]" not in response.text


def test_every_error_has_a_status(upstream: MockUpstream) -> None:
    def with_subclasses(cls: type[OpenAICompatError]) -> list[type[OpenAICompatError]]:
        return [cls, *(descendant for child in cls.__subclasses__() for descendant in with_subclasses(child))]

    for cls in with_subclasses(OpenAICompatError):
        error = cls.__new__(cls)
        error.upstream_status = 418  # type: ignore[attr-defined]
        assert 400 <= status_of(error, Settings()) < 600


def test_head_and_options_work_like_get_and_post(client: FlaskClient) -> None:
    assert client.head("/v1/models").status_code == 200
    assert "POST" in client.options("/v1/chat/completions").headers["Allow"]
