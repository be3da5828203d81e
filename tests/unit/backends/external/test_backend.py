"""Tests of the requests that the external backend sends, and of its mapping of the API's errors."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.backends.external.backend import ExternalOptions
from openai_compat.core.errors import (
    InvalidRequestError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTruncatedError,
)
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext, ChatRequest
from tests.support.fake_http_client import (
    EVENTS,
    JSON,
    LINES,
    TEXT,
    URL,
    ScriptedClient,
    ScriptedResponse,
    ask,
    events,
    lines,
    make,
    make_backend,
)


def test_messages_and_parameters_are_sent() -> None:
    client = ScriptedClient(make({"reply": "a"}))
    backend = make_backend(
        client, api_key="sk-mine", headers={"X-Tenant": "t", "Accept": "a/b"}, timeouts=Timeouts(total=3)
    )
    messages = [{"role": "user", "content": "hällo \ud800"}]
    context = CallContext("r", headers={"x-client-request-id": "c", "accept": "z/z"}, authorization="Bearer client's")
    backend.chat(ChatRequest("external-chat", messages, {"temperature": 0.5, "stop": ["x"]}), context)
    assert (client.method, client.url, client.timeouts.total) == ("POST", URL, 3)
    assert client.body == {
        "model": "external-chat", "messages": messages, "stream": False, "temperature": 0.5, "stop": ["x"],
    }  # fmt: skip
    assert client.headers == {
        "x-client-request-id": "c", "content-type": "application/json", "accept": "a/b",
        "authorization": "Bearer sk-mine", "x-tenant": "t",
    }  # fmt: skip


def test_the_clients_key_is_not_forwarded() -> None:
    client = ScriptedClient(make({"reply": "a"}))
    context = CallContext("r", authorization="Bearer client's")
    make_backend(client).chat(ChatRequest("external-chat", []), context)
    assert "authorization" not in client.headers


def test_openai_account_headers_are_not_forwarded() -> None:
    client = ScriptedClient(make({"reply": "a"}))
    theirs = {"openai-organization": "org-1", "openai-project": "p", "openai-beta": "b", "user-agent": "x"}
    backend = make_backend(client, headers={"OpenAI-Project": "of the entry"})
    backend.chat(ChatRequest("external-chat", []), CallContext("r", headers=theirs))
    sent = {name: value for name, value in client.headers.items() if name in theirs}
    assert sent == {"openai-project": "of the entry", "user-agent": "x"}


def test_a_configured_authorization_header_overrides_the_api_key() -> None:
    client = ScriptedClient(make({"reply": "a"}))
    backend = make_backend(client, api_key="sk-mine", headers={"Authorization": "Basic eDp5"})
    backend.chat(ChatRequest("external-chat", []), CallContext("r"))
    assert client.headers["authorization"] == "Basic eDp5"


@pytest.mark.parametrize(
    ("is_streamed", "may_stream", "requested"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_stream_is_requested_if_the_client_streams_and_the_config_allows_it(
    is_streamed: bool, may_stream: bool, requested: bool
) -> None:
    client = ScriptedClient(make({"reply": "a"}))
    backend = make_backend(client, ExternalOptions(stream=may_stream), upstream_model="theirs")
    backend.chat(ChatRequest("external-chat", [], is_streamed=is_streamed), CallContext("r"))
    assert (client.body["stream"], client.body["model"]) == (requested, "theirs")
    assert ("text/event-stream" in client.headers["accept"]) is requested


@pytest.mark.parametrize("options", [{"reply_path": ""}, {"reply_path": "a..b"}, {"reply_path": 3}, {"stream": "no"}])
def test_invalid_options_are_refused_by_name(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ExternalOptions(**options)


def refusal(response: ScriptedResponse, **entry: Any) -> OpenAICompatError:
    with pytest.raises(OpenAICompatError) as raised:
        ask(response, **entry)
    assert response.ending == "closed"
    return raised.value


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_an_upstream_authentication_error(status: int) -> None:
    error = refusal(make({"error": "Incorrect API key: sk-mine-123"}, status=status), api_key="sk-mine-123")
    assert isinstance(error, UpstreamAuthenticationError)
    assert "refused this server's credential" in error.message
    assert "sk-mine" not in error.message
    assert "requires a credential" in refusal(make({}, status=status)).message


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (503, "server_error", None),
        (400, "invalid_request_error", None),
    ],
)
def test_statuses_that_the_client_can_act_upon_are_relayed(status: int, type_: str, code: str | None) -> None:
    error = refusal(make({"detail": "slow down"}, status=status, retry_after="7", x_other="y"))
    assert isinstance(error, UpstreamStatusError)
    assert (error.upstream_status, error.message, error.type, error.code) == (status, "slow down", type_, code)
    assert error.headers == {"retry-after": "7"}


def test_an_error_in_openais_form_is_relayed_unchanged() -> None:
    body = {"error": {"message": "too long", "type": "t", "param": "messages", "code": "context_length_exceeded"}}
    error = refusal(make(body, status=400))
    assert error.to_envelope() == body


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, {"error": {"message": "boom"}}, "The external API answered 500 Internal Server Error: boom"),
        (404, {"message": "no route"}, "The external API answered 404 Not Found: no route"),
        (502, b"<html><h1>Bad gateway", "The external API answered 502 Bad Gateway."),
        (500, b"Traceback (most recent call last):\n  File x", "The external API answered 500 Internal Server Error."),
        (500, b'data: {"error": "an event"}\n\n', "The external API answered 500 Internal Server Error: an event"),
        (500, b"", "The external API answered 500 Internal Server Error."),
        (500, b"line one\nline two", "The external API answered 500 Internal Server Error: line one"),
        (
            599,
            {"detail": [{"loc": ["body"], "msg": "field required"}]},
            "The external API answered 599: field required",
        ),
        (504, {"errors": [{"message": "slow\x00\x1b[31m"}]}, "The external API answered 504 Gateway Timeout: slow[31m"),
        (500, [[[[[["deep"]]]]]], "The external API answered 500 Internal Server Error."),
    ],
)
def test_other_failures_are_an_upstream_error_with_a_one_line_message(status: int, body: Any, message: str) -> None:
    error = refusal(make(body, None, status))
    assert type(error) is UpstreamError
    assert error.status is None  # the setting `UPSTREAM_ERROR_STATUS` decides it
    assert error.message == message


def test_the_message_is_shortened_and_credentials_are_masked() -> None:
    body = {"error": "key sk-mine-123 and tenant-456 " + "x" * 10_000}
    error = refusal(make(body, status=400), api_key="sk-mine-123", headers={"X-Tenant": "tenant-456"})
    assert error.message.startswith("key *** and *** xxx")
    assert len(error.message) == 500


def test_an_error_body_is_read_up_to_a_limit_and_may_be_truncated() -> None:
    endless = make([b"x" * 40_000, b"y" * 40_000, AssertionError("read too far")], None, 500, is_chunked=True)
    assert len(refusal(endless).message) < 600
    broken = make([b"it broke", UpstreamTruncatedError("cut")], None, 500, is_chunked=True)
    assert refusal(broken).message.endswith("it broke")


@pytest.mark.parametrize(
    "body",
    [
        {"error": "it failed"},
        {"error": {"message": "it failed"}},
        {"error": True, "message": "it failed"},
        {"success": False, "message": "it failed"},
        {"status": "error", "message": "it failed"},
        {"code": 500, "message": "it failed", "data": None},
        {"event": "error", "status": 400, "message": "it failed"},
        {"type": "error", "error": {"type": "api_error", "message": "it failed"}},
    ],
)
@pytest.mark.parametrize("content_type", [JSON, EVENTS, LINES, TEXT])
def test_an_error_with_status_200_is_an_error(body: Any, content_type: str) -> None:
    content = events(body) if content_type == EVENTS else lines(body)
    error = refusal(make(content, content_type))
    if body.get("status") == 400:
        assert isinstance(error, UpstreamStatusError)
        assert error.message == "it failed"
    else:
        assert type(error) is UpstreamError
        assert (error.message, error.code) == ("The external API reported an error: it failed", "external_api_error")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"code": 401, "message": "invalid api key"}, UpstreamAuthenticationError),
        ({"error": {"code": "403", "message": "no"}}, UpstreamAuthenticationError),
        ({"error": "no", "statusCode": 401}, UpstreamAuthenticationError),
        ({"error": {"type": "authentication_error", "message": "invalid x-api-key"}}, UpstreamAuthenticationError),
        ({"error": {"code": "invalid_api_key", "message": "Incorrect API key"}}, UpstreamAuthenticationError),
        ({"code": 404, "message": "no route"}, UpstreamError),
        ({"code": 500, "message": "boom"}, UpstreamError),
        ({"code": 429, "message": "slow down"}, UpstreamStatusError),
        ({"error": {"type": "rate_limit_error", "message": "slow down"}}, UpstreamStatusError),
    ],
)
@pytest.mark.parametrize("content_type", [JSON, EVENTS])
def test_an_error_with_status_200_is_classified_by_the_status_that_it_names(
    body: Any, expected: type[UpstreamError], content_type: str
) -> None:
    """Check that the client gets no 401, since the refused key is this server's."""
    error = refusal(make(events(body) if content_type == EVENTS else body, content_type), api_key="sk-mine-123")
    assert type(error) is expected
    if isinstance(error, UpstreamStatusError):
        assert error.upstream_status == 429


def test_secrets_from_the_environment_are_masked_in_errors() -> None:
    """Check a key as it may stand in a declared query or body or in the URL."""
    response = make({"error": "key abc/def-123 (abc%2Fdef-123) of Key ghi-456 is wrong"}, status=400)
    error = refusal(response, variables={"K": "abc/def-123"}, headers={"Authorization": "Key ghi-456"})
    assert error.message == "key *** (***) of Key *** is wrong"


def test_credentials_are_masked_in_an_error_with_status_200() -> None:
    assert "sk-mine" not in refusal(make({"code": 429, "message": "key sk-mine-123"}), api_key="sk-mine-123").message


@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirects_are_not_followed(status: int) -> None:
    error = refusal(make(b"", None, status, location="https://elsewhere.example"))
    assert isinstance(error, UpstreamInvalidResponseError)
    assert "elsewhere" not in error.message


def test_a_connection_error_is_passed_on() -> None:
    class UnreachableClient(ScriptedClient):
        def send(self, method: str, url: str, **call: Any) -> ScriptedResponse:
            raise UpstreamConnectionError("The upstream could not be reached.")

    with pytest.raises(UpstreamConnectionError):
        make_backend(UnreachableClient(make({}))).chat(ChatRequest("external-chat", []), CallContext("r"))


@pytest.mark.parametrize(("user", "url"), [("zoë/..", f"{URL}/zo%C3%AB%2F../say?u=zo%C3%AB%2F.."), ("a.b", None)])
def test_a_value_in_the_url_is_escaped(user: str, url: str | None) -> None:
    client = ScriptedClient(make({"text": "hi"}))
    backend = make_backend(client, ExternalOptions(request={"url": "/{{ user }}/say?u={{ user }}"}))
    list(backend.chat(ChatRequest("m", [{"role": "user", "content": "hi"}], {"user": user}), CallContext("r")))
    assert client.url == (url or f"{URL}/{user}/say?u={user}")


@pytest.mark.parametrize("user", [".", ".."])
def test_dot_segments_in_the_url_are_refused(user: str) -> None:
    backend = make_backend(ScriptedClient(make({})), ExternalOptions(request={"url": "/{{ user }}/say"}))
    with pytest.raises(InvalidRequestError, match="not allowed in the URL"):
        backend.chat(ChatRequest("m", [{"role": "user", "content": "hi"}], {"user": user}), CallContext("r"))
