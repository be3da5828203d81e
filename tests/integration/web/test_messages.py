"""The Messages API in front of models in this process, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from openai_compat.backends.base import Backend
from openai_compat.core.large_json import MAX_STRUCTURE
from openai_compat.services.prompt_tokens import MAX_COUNTED_CHARS
from openai_compat.web.routes.messages import URL_PREFIXES
from tests.integration.web.conftest import MakeClient
from tests.support.messages_events import parse_events, read_message

MODEL = "mock-gpt-model"
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hello there!"}]
CALL: dict[str, Any] = {"model": MODEL, "max_tokens": 64, "messages": MESSAGES}
ADD = {"name": "add", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}


def error_of(response: TestResponse) -> dict[str, Any]:
    """Return the error object of a response in Anthropic's form."""
    value = response.get_json()
    assert value.keys() == {"type", "error", "request_id"}
    assert value["type"] == "error"
    assert value["error"].keys() == {"type", "message"}
    assert response.headers["request-id"] == value["request_id"]
    assert value["request_id"].startswith("req_")
    error: dict[str, Any] = value["error"]
    return error


@pytest.mark.parametrize("prefix", URL_PREFIXES)
def test_every_root_answers(client: FlaskClient, prefix: str) -> None:
    response = client.post(f"{prefix}/messages?beta=true", json=CALL, headers={"anthropic-version": "2026-10-21"})
    message = response.get_json()
    assert message["content"] == [{"type": "text", "text": "Hello there!"}]
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", MODEL)
    assert message["stop_reason"] == "end_turn"
    assert response.headers["request-id"].startswith("req_")
    assert client.post(f"{prefix}/messages/count_tokens", json=CALL).get_json()["input_tokens"] > 2


def test_a_stream_is_that_of_anthropic(client: FlaskClient) -> None:
    tools = {"tools": [ADD], "tool_choice": {"type": "tool", "name": "add"}}
    response = client.post("/v1/messages", json={**CALL, **tools, "stream": True})
    assert response.content_type == "text/event-stream; charset=utf-8"
    message = read_message(parse_events(response.data))
    complete = client.post("/v1/messages", json={**CALL, **tools}).get_json()
    assert message["content"][0]["input"] == complete["content"][0]["input"] == {"a": 1}
    assert message["stop_reason"] == complete["stop_reason"] == "tool_use"
    assert message["usage"] == complete["usage"]


def test_a_system_message_between_others_needs_no_content(client: FlaskClient) -> None:
    directive = {"role": "system", "output_config": {"effort": "low"}}
    removal = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "add"}}
    body = {**CALL, "messages": [*MESSAGES, directive, {"role": "system", "content": [removal]}]}
    response = client.post("/v1/messages", json=body)
    assert response.get_json()["content"] == [{"type": "text", "text": "Hello there!"}]
    assert response.headers["x-openai-compat-adapted"] == "messages.tool_removal=dropped"
    refused = client.post("/v1/messages", json={**CALL, "messages": [{"role": "user"}]})
    assert "Missing required parameter: 'messages[0].content'" in error_of(refused)["message"]


def test_an_answer_that_is_cut_by_the_limit(client: FlaskClient) -> None:
    assert client.post("/v1/messages", json={**CALL, "max_tokens": 1}).get_json()["stop_reason"] == "max_tokens"


def test_unknown_fields_and_beta_features_are_no_error(client: FlaskClient) -> None:
    more = {
        "thinking": {"type": "adaptive", "display": "updates"}, "context_management": {"edits": [{"type": "x"}]},
        "brand_new": {"a": 1}, "tools": [{**ADD, "eager_input_streaming": True, "allowed_callers": ["direct"]}],
    }  # fmt: skip
    response = client.post("/v1/messages", json={**CALL, **more}, headers={"anthropic-beta": "a,b"})
    assert response.status_code == 200
    assert response.headers["x-openai-compat-adapted"] == "brand_new=dropped"


def test_a_count_includes_system_tools_and_images(client: FlaskClient) -> None:
    def count(**more: Any) -> int:
        tokens = client.post("/v1/messages/count_tokens", json={"model": MODEL, "messages": MESSAGES, **more})
        value: int = tokens.get_json()["input_tokens"]
        return value

    image = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    with_image = [{"role": "user", "content": [{"type": "text", "text": "Hello there!"}, image]}]
    plain = count()
    assert count(system="Be brief.") > plain
    assert count(tools=[ADD]) > plain + 10
    assert count(messages=with_image) == plain + 765


def test_a_long_prompt_is_counted_by_its_beginning(client: FlaskClient) -> None:
    words = "word " * (MAX_COUNTED_CHARS // 4)
    body = {**CALL, "messages": [{"role": "user", "content": words}]}
    count = client.post("/v1/messages/count_tokens", json=body).get_json()["input_tokens"]
    assert count == pytest.approx(MAX_COUNTED_CHARS // 4, rel=0.1)


def test_models_that_cannot_chat_count_no_tokens(make_client: MakeClient, tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps([{"name": "m", "kind": "tests.integration.web.test_messages:Silent"}]))
    client = make_client(MODELS_FILE=str(models))
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        response = client.post(path, json={**CALL, "model": "m"})
        assert (response.status_code, response.headers["x-should-retry"]) == (501, "false")
        assert "does not support chat completions" in error_of(response)["message"]


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key"])
def test_every_header_with_a_key_is_read(make_client: MakeClient, header: str) -> None:
    client = make_client(API_KEYS="right")
    value = "Bearer {}" if header == "Authorization" else "{}"
    assert client.post("/v1/messages", json=CALL, headers={header: value.format("right")}).status_code == 200
    refused = client.post("/v1/messages", json=CALL, headers={header: value.format("wrong")})
    assert (refused.status_code, error_of(refused)["type"]) == (401, "authentication_error")
    unknown = client.get("/anthropic/v1/organizations")
    assert (unknown.status_code, error_of(unknown)["type"]) == (401, "authentication_error")


@pytest.mark.parametrize(
    ("body", "status", "type_", "message"),
    [
        (b"{", 400, "invalid_request_error", "We could not parse the JSON body"),
        (b"[]", 400, "invalid_request_error", "expected an object"),
        (b'{"x":[' + b"1," * MAX_STRUCTURE + b"1]}", 400, "invalid_request_error", "too many values"),
        (b'{"model":"mock-gpt-model"}', 400, "invalid_request_error", "Missing required parameter: 'messages'"),
        (b'{"messages":[]}', 400, "invalid_request_error", "empty array"),
        (b'{"messages":[{"role":"user","content":"x"}],"max_tokens":"1"}', 400, "invalid_request_error", "max_tokens"),
        (b'{"messages":[{"role":"user","content":[{"type":"new"}]},{"role":"user","content":1}]}', 400,
         "invalid_request_error", "messages[1].content"),
        (b'{"model":"nope","messages":[{"role":"user","content":"x"}]}', 404, "not_found_error", "'nope' does"),
        (b'{"x":"' + b"x" * 3_000_000 + b'"}', 413, "request_too_large", "larger than this server allows"),
    ],
    ids=["broken", "no-object", "values", "no-messages", "empty", "type", "content", "model", "large"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_mistakes_in_a_request(
    make_client: MakeClient, path: str, body: bytes, status: int, type_: str, message: str
) -> None:
    if path.endswith("tokens"):
        body = body.replace(b'"max_tokens":"1"', b'"system":{},"max_tokens":1').replace(b"max_tokens", b"system")
        message = message.replace("max_tokens", "system")
    response = make_client(MAX_REQUEST_BYTES="3000000").post(path, data=body, content_type="application/json")
    assert response.status_code == status
    error = error_of(response)
    assert error["type"] == type_
    assert message in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("GET", "/anthropic/v1/organizations", 404, "not_found_error"),
        ("POST", "/anthropic/v1/complete", 404, "not_found_error"),
    ],
)
def test_unknown_paths_and_methods(client: FlaskClient, method: str, path: str, status: int, type_: str) -> None:
    response = client.open(path, method=method)
    assert (response.status_code, error_of(response)["type"]) == (status, type_)
    assert response.headers.get("Allow") == ("POST" if status == 405 else None)


def test_a_body_that_is_not_json(client: FlaskClient) -> None:
    response = client.post("/v1/messages", data=b"x", content_type="text/plain")
    assert (response.status_code, error_of(response)["type"]) == (415, "invalid_request_error")


def test_a_page_of_another_site_is_refused(client: FlaskClient) -> None:
    response = client.post(
        "/v1/messages", json=CALL, headers={"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    )
    assert (response.status_code, error_of(response)["type"]) == (403, "permission_error")


def test_a_prompt_that_is_too_long_says_so_as_anthropic_does(client: FlaskClient) -> None:
    body = {**CALL, "messages": [{"role": "user", "content": "word " * 200_000}]}
    response = client.post("/v1/messages", json=body)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("prompt is too long: 2")
    assert error["message"].endswith(" tokens > 128000 maximum")


def test_a_thread_is_refused_so_that_the_client_sends_the_conversation(client: FlaskClient) -> None:
    """Anthropic's client for Python reads the code, and repeats the call without a thread."""
    response = client.post("/v1/messages", json={**CALL, "thread": {"type": "create"}})
    details = response.get_json()["error"].pop("details")
    assert (response.status_code, details["error_code"]) == (400, "thread_unsupported_request")
    assert client.post("/v1/messages", json={**CALL, "compaction": {"type": "x"}}).status_code == 400


def test_clients_of_anthropic_get_its_errors_on_every_path(make_client: MakeClient) -> None:
    client = make_client(API_KEYS="right")
    headers = {"anthropic-version": "2023-06-01"}
    assert error_of(client.get("/v1/models", headers=headers))["type"] == "authentication_error"
    assert error_of(client.get("/nowhere", headers=headers))["type"] == "not_found_error"
    assert "param" in client.get("/nowhere").get_json()["error"]


def test_the_clients_own_request_id_comes_back(client: FlaskClient) -> None:
    response = client.post("/v1/messages", json={**CALL, "model": "nope"}, headers={"x-request-id": "req_mine"})
    assert response.get_json()["request_id"] == response.headers["request-id"] == "req_mine"


class Silent(Backend):
    """A model without any capability."""
