"""Every failure of every route wears OpenAI's envelope."""

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
DOORS = [
    f"{root}/{path}"
    for root in ("/v1", "", "/api/v1", "/openai/v1", "/openai/deployments/mock-gpt-model")
    for path in ("chat/completions", "completions", "embeddings")
]


def error_of(response: TestResponse, status: int) -> dict[str, Any]:
    """The error, once it is sure that it is one: status, type of content, the four keys and their types."""
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


@pytest.mark.parametrize("door", DOORS)
def test_a_bad_body_is_a_400_on_every_door(client: FlaskClient, door: str) -> None:
    for body in BAD_BODIES:
        assert error_of(client.post(door, data=body, content_type="application/json"), 400)["message"]


@pytest.mark.parametrize("door", DOORS)
def test_the_wrong_method_is_a_405_that_says_which_is_right(client: FlaskClient, door: str) -> None:
    response = client.delete(door)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("door", DOORS)
def test_another_content_type_is_a_415(client: FlaskClient, door: str) -> None:
    error_of(client.post(door, data="a=b", content_type="application/x-www-form-urlencoded"), 415)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json", None])
def test_json_by_another_name_or_none_is_json(client: FlaskClient, content_type: str | None) -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    assert client.post("/v1/chat/completions", data=body, content_type=content_type).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/", "/chat", "/openai/deployments/x", "/%00"])
def test_an_unknown_path_is_a_404(client: FlaskClient, path: str) -> None:
    assert error_of(client.get(path), 404)["code"] == "unknown_url"


def test_a_body_beyond_the_limit_is_a_413(make_client: MakeClient) -> None:
    client = make_client(MAX_REQUEST_BYTES="100")
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * 200 + b'"}]}'
    assert error_of(client.post("/v1/chat/completions", data=body), 413)["code"] == "request_too_large"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_an_unknown_model_is_a_404(client: FlaskClient, path: str) -> None:
    body = {**CHAT, "model": "no/such", "prompt": "x", "input": "x"}
    error = error_of(client.post(path, json=body), 404)
    assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")


def test_a_slip_of_the_pen_is_answered_with_the_nearest_name(client: FlaskClient) -> None:
    error = error_of(client.post("/v1/chat/completions", json={**CHAT, "model": "mock-gtp-model"}), 404)
    assert error["message"].endswith("Did you mean 'mock-gpt-model'?")


def test_a_model_without_the_capability_is_a_501_that_no_client_retries(make_client: MakeClient) -> None:
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
        ("n", 2), ("logprobs", True), ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("functions", [{"name": "f"}]), ("response_format", {"type": "json_object"}), ("audio", {"voice": "alloy"}),
        ("modalities", ["text", "audio"]),
    ],
)  # fmt: skip
def test_a_promise_that_cannot_be_kept_is_refused_by_name(make_client: MakeClient, name: str, value: Any) -> None:
    client = make_client(EXTERNAL_CHAT_URL="http://127.0.0.1:9/chat")
    error = error_of(client.post("/v1/chat/completions", json={"messages": CHAT["messages"], name: value}), 400)
    asked = {"modalities": "audio"}.get(name, name)
    assert (error["code"], error["param"]) == ("unsupported_parameter", asked)


def test_statuses_of_bad_input_and_bad_upstreams_can_be_chosen(make_client: MakeClient) -> None:
    client = make_client(
        EXTERNAL_CHAT_URL="http://127.0.0.1:9/chat", VALIDATION_ERROR_STATUS="422", UPSTREAM_ERROR_STATUS="500"
    )
    error_of(client.post("/v1/chat/completions", json={"messages": []}), 422)
    assert (
        error_of(client.post("/v1/chat/completions", json={"messages": CHAT["messages"]}), 500)["type"]
        == "upstream_error"
    )


def test_an_unexpected_fault_shows_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr("openai_compat.backends.echo.backend.EchoBackend.chat", fail)
    response = create_app(Settings(**vars_of_echo())).test_client().post("/v1/chat/completions", json=CHAT)
    assert "secret" not in response.text
    assert error_of(response, 500)["code"] == "internal_error"


def vars_of_echo() -> dict[str, Any]:
    from openai_compat.core.settings import ModelConfig

    return {"entries": {"mock-gpt-model": ModelConfig("mock-gpt-model", "echo")}, "default_model": "mock-gpt-model"}


def test_an_unexpected_fault_in_a_stream_is_told_in_the_stream(
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
    def all_kinds(kind: type[OpenAICompatError]) -> list[type[OpenAICompatError]]:
        return [kind, *(deeper for below in kind.__subclasses__() for deeper in all_kinds(below))]

    for kind in all_kinds(OpenAICompatError):
        error = kind.__new__(kind)
        error.upstream_status = 418  # type: ignore[attr-defined]
        assert 400 <= status_of(error, Settings()) < 600


def test_head_and_options_work_where_get_and_post_do(client: FlaskClient) -> None:
    assert client.head("/v1/models").status_code == 200
    assert "POST" in client.options("/v1/chat/completions").headers["Allow"]
