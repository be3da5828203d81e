"""`POST /ask` with the echo model, its content negotiation, stream formats and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from openai_compat import create_app
from openai_compat.backends.base import missing_capability
from openai_compat.backends.echo.backend import EchoBackend
from openai_compat.config import environment
from openai_compat.core.errors import UpstreamStatusError, UpstreamTruncatedError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest
from openai_compat.web.schemas.ask import GenerationOptionsSchema
from tests.support.tools import ROOT

PLAIN = [{"role": "user", "content": "Hello there!"}]
PARTS = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hello there!"}]}]
VERSION_4 = [{"role": "user", "content": "Hello there!", "parts": [{"type": "text", "text": "Hello there!"}]}]

EVENTS = "text/event-stream; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
UI_HEADER = "x-vercel-ai-ui-message-stream"


def load(**settings: Any) -> Settings:
    return replace(environment.load({}), **settings)


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(load()).test_client()


def ask(client: FlaskClient, messages: Any = PLAIN, url: str = "/ask", **options: Any) -> TestResponse:
    headers = options.pop("headers", {})
    return client.post(url, json={"messages": messages, **options}, headers=headers)


def events(reply: TestResponse) -> list[Any]:
    """Return the JSON values of the events, and `data: [DONE]` as text."""
    blocks = reply.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    return [block[6:] if block == "data: [DONE]" else json.loads(block[6:]) for block in blocks]


def format_of(reply: TestResponse) -> str:
    assert reply.status_code == 200, reply.text
    if reply.content_type == TEXT:
        return "text"
    assert reply.content_type == EVENTS
    return "ui" if reply.headers.get(UI_HEADER) == "v1" else "sse"


def test_sse_has_an_event_for_each_delta_and_one_for_the_finish_reason(client: FlaskClient) -> None:
    *deltas, last = events(ask(client))
    assert len(deltas) > 1
    assert all(delta == {**delta, "role": "assistant", "finish_reason": None} for delta in deltas)
    assert all(delta.keys() == {"role", "content", "finish_reason"} for delta in deltas)
    assert "".join(delta["content"] for delta in deltas) == "Hello there!"
    assert last == {"role": "assistant", "content": "", "finish_reason": "stop"}


def test_text_is_the_bare_text(client: FlaskClient) -> None:
    reply = ask(client, [{"role": "user", "content": "é 日 🌍"}], "/ask?format=text")
    assert reply.data == "é 日 🌍".encode()
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_ui_is_a_message_with_one_step_and_one_text(client: FlaskClient) -> None:
    start, step, text, *deltas, text_end, step_end, finish, done = events(ask(client, PARTS))
    assert start["type"] == "start"
    assert start["messageId"].startswith("msg_")
    assert step == {"type": "start-step"}
    assert text == {"type": "text-start", "id": "1"}
    assert {delta["type"] for delta in deltas} == {"text-delta"}
    assert "".join(delta["delta"] for delta in deltas) == "Hello there!"
    assert [text_end, step_end] == [{"type": "text-end", "id": "1"}, {"type": "finish-step"}]
    assert finish == {"type": "finish", "finishReason": "stop"}
    assert done == "[DONE]"


def test_generation_options_reach_the_model(client: FlaskClient) -> None:
    *deltas, last = events(ask(client, [{"role": "user", "content": "one two three"}], max_tokens=2, theme="dark"))
    assert "".join(delta["content"] for delta in deltas) == "one two"
    assert last["finish_reason"] == "length"


def test_the_tool_turns_of_openai_and_of_version_4_are_accepted(client: FlaskClient) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    invocation = {"state": "result", "toolCallId": "c", "toolName": "f", "args": {}, "result": 7}
    user = {"role": "user", "content": "What time is it?"}
    for turn in (
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "7"},
        ],
        [{"role": "assistant", "content": "", "toolInvocations": [invocation]}],
        [{"role": "assistant", "toolInvocations": [invocation]}],
    ):
        *deltas, _ = events(ask(client, [{"role": "data", "content": "x"}, user, *turn, {"role": "data"}]))
        assert "".join(delta["content"] for delta in deltas) == "7"


def test_the_documentation_names_all_generation_options() -> None:
    section = (
        (ROOT / "docs" / "reference" / "http-api.md").read_text().partition("\n## /ask\n")[2].partition("\n## ")[0]
    )
    sentence = section.partition("generation options under")[2].partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(GenerationOptionsSchema().fields)


@pytest.mark.parametrize(
    ("option", "details"),
    [
        (
            {"temperature": "hot"},
            "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        ),
        ({"max_tokens": 0}, "'max_tokens'"),
    ],
)
def test_invalid_generation_options_are_rejected(client: FlaskClient, option: dict[str, Any], details: str) -> None:
    reply = ask(client, **option)
    assert reply.status_code == 400
    assert details in reply.get_json()["details"]


@pytest.mark.parametrize("name", ["sse", "text", "ui"])
def test_the_headers_forbid_buffering_and_compression(client: FlaskClient, name: str) -> None:
    reply = ask(client, url=f"/ask?format={name}", headers={"Accept-Encoding": "gzip"})
    assert reply.headers["Cache-Control"] == "no-cache, no-transform"
    assert reply.headers["X-Accel-Buffering"] == "no"
    assert not {"Content-Length", "Content-Encoding"} & set(reply.headers.keys())


def test_an_answer_continues_the_last_message_if_it_is_the_assistants(client: FlaskClient) -> None:
    tool = {"type": "tool-clock", "toolCallId": "call_1", "state": "output-available", "input": {}, "output": "noon"}
    reply = ask(client, [*PARTS, {"id": "answer-7", "role": "assistant", "parts": [tool]}])
    found = events(reply)
    assert found[0] == {"type": "start", "messageId": "answer-7"}
    assert "noon" in "".join(event.get("delta", "") for event in found[:-1])


FORMATS = [
    # messages, query, Accept, setting, expected format
    (PLAIN, "", None, "sse", "sse"),
    (PLAIN, "", "*/*", "text", "text"),
    (PLAIN, "", "*/*", "ui", "ui"),
    (PLAIN, "", "application/json", "sse", "sse"),
    (PLAIN, "?format=", None, "sse", "sse"),
    (PLAIN, "?format=text", "text/event-stream", "sse", "text"),
    (PLAIN, "?format=ui", "text/plain", "sse", "ui"),
    (PARTS, "?format=sse", "*/*", "ui", "sse"),
    (PLAIN, "", "text/event-stream", "text", "sse"),
    (PLAIN, "", "text/plain", "sse", "text"),
    (PARTS, "", "text/plain", "sse", "text"),
    (PLAIN, "", "text/plain;q=0.5, text/event-stream", "text", "sse"),
    (PLAIN, "", "text/plain, */*;q=0.1", "sse", "text"),
    (PLAIN, "", "application/json, text/plain, */*", "sse", "sse"),  # axios
    (PARTS, "", None, "sse", "ui"),
    (PARTS, "", "*/*", "text", "ui"),
    (PARTS, "", "application/json, text/plain, */*", "sse", "ui"),
    (PARTS, "", "text/event-stream", "sse", "ui"),
    (VERSION_4, "", "*/*", "sse", "ui"),
    ([{"role": "user", "content": "Hello", "parts": []}], "", "*/*", "sse", "sse"),
]


@pytest.mark.parametrize(("messages", "query", "accept", "setting", "expected"), FORMATS)
def test_content_negotiation(messages: Any, query: str, accept: str | None, setting: Any, expected: str) -> None:
    client = create_app(load(ask_stream_format=setting)).test_client()
    headers = {"Accept": accept} if accept else {}
    assert format_of(ask(client, messages, f"/ask{query}", headers=headers)) == expected


def test_version_4_of_the_ai_sdk_gets_text(client: FlaskClient) -> None:
    assert format_of(ask(client, VERSION_4, id="chat-1")) == "text"
    assert format_of(ask(client, VERSION_4, id="chat-1", trigger="submit-message")) == "ui"
    assert format_of(ask(client, PARTS, id="chat-1")) == "ui"
    assert format_of(ask(client, VERSION_4, "/ask?format=sse", id="chat-1")) == "sse"


def test_the_request_may_name_a_model() -> None:
    settings = load()
    entry = replace(settings.entries["mock-gpt-model"], name="other")
    client = create_app(replace(settings, entries={**settings.entries, "other": entry})).test_client()
    assert ask(client, model="other").status_code == 200
    assert ask(client, model=None).status_code == 200


def assert_error(reply: TestResponse, status: int, type_: str, details: str) -> None:
    assert reply.status_code == status, reply.text
    assert reply.content_type == "application/json"
    assert reply.json is not None
    assert reply.json.keys() == {"role", "content", "error", "details"}
    assert reply.json["role"] == "assistant"
    assert reply.json["error"] == type_
    assert details in reply.json["details"]
    assert reply.json["content"].endswith(".")
    assert reply.headers["x-request-id"]


REFUSED: list[tuple[Any, str]] = [
    (b"{", "JSON"),
    (b"", "empty"),
    (b"[1]", "object"),
    (b'{"messages": NaN}', "NaN"),
    ({}, "'messages'"),
    ({"messages": []}, "'messages'"),
    ({"messages": "Hello"}, "'messages'"),
    ({"messages": [3]}, "'messages[0]'"),
    ({"messages": [{"role": "user"}]}, "'messages[0].content'"),
    ({"messages": [{"content": "Hello"}]}, "'messages[0].role'"),
    ({"messages": [{"role": "user", "content": 3}]}, "'messages[0].content'"),
    ({"messages": [{"role": "assistant", "tool_calls": [3]}]}, "'messages[0].tool_calls[0]'"),
    ({"messages": [{"role": "assistant", "toolInvocations": [3]}]}, "'messages[0].toolInvocations[0]'"),
    ({"messages": [{"role": "oracle", "content": "x"}]}, "Supported values are"),
    ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "'messages[0].parts[0].text'"),
    ({"messages": [{"role": "user", "parts": []}]}, "no content"),
    ({"messages": PLAIN, "model": 3}, "'model'"),
    ({"messages": PLAIN, "model": "unknown"}, "'unknown'"),
]


@pytest.mark.parametrize(("body", "details"), REFUSED)
def test_an_invalid_request_is_a_400_with_an_assistant_message(client: FlaskClient, body: Any, details: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body)
    reply = client.post("/ask", data=data, content_type="application/json")
    assert_error(reply, 400, "invalid_request_error", details)


def test_an_unknown_format_is_a_400_that_lists_the_formats(client: FlaskClient) -> None:
    assert_error(ask(client, url="/ask?format=xml"), 400, "invalid_request_error", "sse, text, ui")


def test_another_content_type_is_a_400(client: FlaskClient) -> None:
    reply = client.post("/ask", data="messages=Hello", content_type="application/x-www-form-urlencoded")
    assert_error(reply, 400, "invalid_request_error", "Content-Type: application/json")


def test_the_setting_validation_error_status_does_not_apply() -> None:
    client = create_app(load(validation_error_status=422)).test_client()
    assert ask(client, []).status_code == 400


def test_a_body_that_is_too_large_is_a_413() -> None:
    client = create_app(load(max_request_bytes=100)).test_client()
    reply = ask(client, [{"role": "user", "content": "x" * 200}])
    assert_error(reply, 413, "invalid_request_error", "larger")


def test_a_missing_or_wrong_api_key_is_a_401() -> None:
    client = create_app(load(api_keys=("secret-key",))).test_client()
    assert_error(ask(client), 401, "invalid_request_error", "API key")
    assert_error(ask(client, headers={"Authorization": "Bearer wrong"}), 401, "invalid_request_error", "API key")
    assert ask(client, headers={"Authorization": "Bearer secret-key"}).status_code == 200


class Faulty(EchoBackend):
    """Backend with the fault that `upstream_model` names, before or after its first delta."""

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta]:  # type: ignore[override]
        fault = self.entry.upstream_model
        if fault == "busy":
            raise UpstreamStatusError(
                "Slow down.", upstream_status=429, type_="rate_limit_error", headers={"retry-after": "7"}
            )
        if fault == "no-chat":
            raise missing_capability(self.name, "chat", [])
        if fault == "bug":
            raise ZeroDivisionError("/home/secret/path")
        return self._answer(fault)

    def _answer(self, fault: str | None) -> Iterator[ChatDelta]:
        yield ChatDelta("Half")
        if fault == "cut":
            raise UpstreamTruncatedError("The upstream closed the connection.")
        yield ChatDelta(finish_reason="length")


def faulty(fault: str) -> FlaskClient:
    settings = load()
    entry = ModelConfig("faulty", f"{__name__}:Faulty", upstream_model=fault)
    return create_app(replace(settings, entries={"faulty": entry}, default_model="faulty")).test_client()


def test_an_upstream_error_before_the_first_delta_is_a_500_with_retry_after() -> None:
    reply = ask(faulty("busy"), PARTS)
    assert_error(reply, 500, "rate_limit_error", "Slow down.")
    assert reply.headers["retry-after"] == "7"


def test_a_model_without_chat_is_named_in_the_message() -> None:
    reply = ask(faulty("no-chat"))
    assert reply.json
    assert reply.json["content"] == "This model does not chat. Please choose another one."


def test_an_internal_error_is_a_500_without_details() -> None:
    reply = ask(faulty("bug"))
    assert_error(reply, 500, "server_error", "error")
    assert "secret" not in reply.text
    assert "ZeroDivision" not in reply.text


def test_an_error_after_the_first_delta_is_the_last_event_of_sse() -> None:
    half, error = events(ask(faulty("cut")))
    assert half["content"] == "Half"
    assert error == {
        "role": "assistant",
        "content": "The answer broke off before it was complete. Please try again.",
        "error": "upstream_error",
        "details": "The upstream closed the connection.",
        "finish_reason": "error",
    }


def test_an_error_after_the_first_delta_is_the_last_chunk_of_ui() -> None:
    *before, error = events(ask(faulty("cut"), PARTS))
    assert [event["type"] for event in before] == ["start", "start-step", "text-start", "text-delta"]
    assert error == {
        "type": "error",
        "errorText": "The answer broke off before it was complete. Please try again.",
    }


def test_an_error_after_the_first_delta_of_text_resets_the_connection() -> None:
    reply = ask(faulty("cut"), url="/ask?format=text")
    with pytest.raises(ConnectionResetError):
        reply.get_data()


@pytest.mark.parametrize(("query", "key"), [("sse", "finish_reason"), ("ui", "finishReason")])
def test_the_finish_reason_is_sent(query: str, key: str) -> None:
    found = [event for event in events(ask(faulty(""), url=f"/ask?format={query}")) if key in event]
    assert found[-1][key] == "length"


def test_a_preflight_from_another_origin_is_allowed(client: FlaskClient) -> None:
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    reply = client.options("/ask", headers={**preflight, "Access-Control-Request-Headers": "content-type"})
    assert reply.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "content-type" in reply.headers["Access-Control-Allow-Headers"]
