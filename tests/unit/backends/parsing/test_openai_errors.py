"""Classification of upstream errors by their status, code, type and message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.backends.parsing.openai_errors import find_status, is_error, refuses_stream_options, to_error_object


def body(**error: Any) -> bytes:
    return json.dumps({"error": error}).encode()


REFUSALS: dict[str, tuple[int, dict[str, Any] | bytes, bool]] = {
    "by its param": (400, {"message": "Not supported.", "param": "stream_options.include_usage"}, True),
    "by its message": (400, {"message": "unknown field: stream_options", "param": None}, True),
    "as a body": (422, body(message="no", param="stream_options"), True),
    "of FastAPI": (422, b'{"detail": [{"loc": ["body", "stream_options"], "msg": "extra fields"}]}', True),
    "of Databricks": (400, b'{"error_code": "BAD_REQUEST", "message": "stream_options: not allowed"}', True),
    "of another parameter": (400, body(message="'stream_options are nice' is too long", param="messages"), False),
    "of no parameter": (400, b"<html>", False),
    "with another status": (500, body(message="stream_options"), False),
}


@pytest.mark.parametrize(("status", "error", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_errors_that_reject_stream_options(status: int, error: dict[str, Any] | bytes, expected: bool) -> None:
    assert refuses_stream_options(status, error) is expected


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"error": {"code": 429}}, 429),
        ({"error": {"code": "429"}, "code": 500}, 429),
        ({"error": "no", "status": 503}, 503),
        ({"error": {"type": "permission_error", "code": None}}, 403),
        ({"error": {"type": "overloaded_error"}, "type": "error"}, 503),
        ({"error": {"code": "context_length_exceeded", "type": "invalid_request_error"}}, 400),
        ({"error": {"code": "content_policy_violation"}}, 400),
        ({"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}, 429),
        ({"error": {"code": "model_not_found"}}, 404),
        ({"object": "error", "type": "BadRequestError", "code": 400}, 400),
        ({"code": "Throttling", "message": "slow down"}, 429),
        ({"errors": [{"code": "invalid_api_key"}]}, 401),
        ({"error": {"message": "?"}}, None),
        ({"error": {"code": 17, "status": True}}, None),
        ({"error": ["no"]}, None),
    ],
)
def test_the_status_that_an_error_object_names(value: dict[str, Any], status: int | None) -> None:
    assert find_status(value) == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"errors": ["first", {"message": "second"}]}, "first; second"),
        ({"detail": {"error": {"message": "nested"}}}, "nested"),
        ({"error": {"message": {"reason": "why"}}}, "why"),
        ({"error": ["one", "two"]}, "one; two"),
        ({"detail": [{"loc": ["body"], "msg": "missing"}]}, '[{"loc": ["body"], "msg": "missing"}]'),
        ({"error": {"code": 17}}, "The upstream responded with status 500."),
        (b"upstream is\n warming up", "upstream is warming up"),
        (b'event: error\ndata: {"error": {"message": "an event"}}\n\n', "an event"),
        (b"data: still an event\r\n\r\n", "still an event"),
        (b"<html>sign in</html>", "The upstream responded with status 500."),
        (b"x" * 301, "The upstream responded with status 500."),
        (b"\xff\xfe", "The upstream responded with status 500."),
        (b'{"broken', "The upstream responded with status 500."),
    ],
)
def test_the_upstreams_words_are_relayed(body: Any, message: str) -> None:
    error = to_error_object(500, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert error["message"] == message


@pytest.mark.parametrize("value", [{"error": "no"}, {"object": "error"}, {"errors": [{}]}])
def test_error_objects_of_a_success_are_errors(value: dict[str, Any]) -> None:
    assert is_error(value)


@pytest.mark.parametrize("value", [{"error": None}, {"error": {}}, {"errors": [1], "choices": []}, {"object": "list"}])
def test_answers_are_no_errors(value: dict[str, Any]) -> None:
    assert not is_error(value)
