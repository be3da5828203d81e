"""Errors in the form of Anthropic's API."""

from __future__ import annotations

import json

import pytest

from openai_compat.config import environment
from openai_compat.core.errors import (
    AuthenticationError,
    BudgetExceededError,
    CapabilityError,
    InternalError,
    InvalidRequestError,
    LimitExceededError,
    OpenAICompatError,
    OverloadedError,
    PermissionDeniedError,
    RequestTooLargeError,
    ServerShuttingDownError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from openai_compat.web.anthropic_errors import to_error_event


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (InvalidRequestError("x"), "invalid_request_error"),
        (AuthenticationError("x"), "authentication_error"),
        (PermissionDeniedError("x"), "permission_error"),
        (RequestTooLargeError("x"), "request_too_large"),
        (LimitExceededError("x", type_="tokens"), "rate_limit_error"),
        (BudgetExceededError(is_held=True), "rate_limit_error"),
        (BudgetExceededError(is_held=False), "billing_error"),
        (CapabilityError("x"), "api_error"),
        (InternalError(), "api_error"),
        (OverloadedError(), "overloaded_error"),
        (ServerShuttingDownError(), "overloaded_error"),
        (UpstreamTimeoutError("x"), "api_error"),
        (UpstreamStatusError("x", upstream_status=529, type_="x"), "overloaded_error"),
        (UpstreamStatusError("x", upstream_status=504, type_="x"), "timeout_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_type_of_an_error_in_a_stream(error: OpenAICompatError, type_: str) -> None:
    name, data = to_error_event(error, environment.load({}), "req_1").decode().rstrip().split("\n")
    assert name == "event: error"
    value = json.loads(data.removeprefix("data: "))
    assert value == {"type": "error", "error": {"type": type_, "message": error.message}, "request_id": "req_1"}
