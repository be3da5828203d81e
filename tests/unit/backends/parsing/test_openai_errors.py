"""Classification of upstream errors by their status, code, type and message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.backends.parsing.openai_errors import find_status, refuses_stream_options


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
        ({"error": {"type": "overloaded_error"}, "type": "error"}, None),
        ({"error": {"code": 17, "status": True}}, None),
        ({"error": ["no"]}, None),
    ],
)
def test_the_status_that_an_error_object_names(value: dict[str, Any], status: int | None) -> None:
    assert find_status(value) == status
