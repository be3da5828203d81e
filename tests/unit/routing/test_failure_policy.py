"""Classification of failures."""

from __future__ import annotations

import pytest

from openai_compat.core.errors import (
    BackendError,
    CallCancelledError,
    CapabilityError,
    InternalError,
    InvalidAnswerError,
    InvalidRequestError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamConnectError,
    UpstreamConnectionError,
    UpstreamInvalidResponseError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.routing.failure_policy import classify


def status_error(status: int, code: str | None = None, **headers: str) -> UpstreamStatusError:
    """Return the error of an upstream that answered with `status`. Underscores in header names become hyphens."""
    response_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return UpstreamStatusError("no", upstream_status=status, type_="x", code=code, headers=response_headers)


TOO_LONG = status_error(400, "context_length_exceeded")
RETRY, FALL_BACK, RETURN_ERROR = (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (status_error(429), RETRY),
        (status_error(503), RETRY),
        (status_error(529), RETRY),
        (status_error(500), RETRY),
        (status_error(502), RETRY),
        (status_error(504), RETRY),
        (status_error(408), RETRY),
        (UpstreamConnectionError("no"), RETRY),
        (UpstreamTruncatedError("no"), RETRY),
        (UpstreamInvalidResponseError("no"), RETRY),
        (InvalidAnswerError("no"), RETRY),
        (status_error(429, "insufficient_quota"), FALL_BACK),
        (status_error(429, x_should_retry="false"), FALL_BACK),
        (status_error(500, x_should_retry="false"), FALL_BACK),
        (UpstreamTimeoutError("no"), FALL_BACK),
        (UpstreamBusyError(1), FALL_BACK),
        (InternalError(), FALL_BACK),
        (BackendError("no"), FALL_BACK),
        (status_error(400, "context_length_exceeded"), FALL_BACK),
        (status_error(413, "context_length_exceeded"), FALL_BACK),
        (status_error(400), RETURN_ERROR),
        (status_error(400, "content_filter"), RETURN_ERROR),
        (status_error(401), RETURN_ERROR),
        (status_error(403), RETURN_ERROR),
        (status_error(404), RETURN_ERROR),
        (status_error(422), RETURN_ERROR),
        (status_error(501), RETURN_ERROR),
        (UpstreamAuthenticationError("no"), FALL_BACK),
        (InvalidRequestError("no"), RETURN_ERROR),
        (CapabilityError("no"), RETURN_ERROR),
        (CallCancelledError(), RETURN_ERROR),
    ],
)
def test_each_failure_is_retried_falls_back_or_is_returned(
    error: OpenAICompatError, expected: tuple[bool, bool]
) -> None:
    action = classify(error)
    assert (action.retry, action.try_next) == expected


def test_overload_and_connection_failures_are_outages() -> None:
    assert all(
        classify(error).is_outage for error in (status_error(429), status_error(503), UpstreamConnectionError("no"))
    )
    assert not any(
        classify(error).is_outage
        for error in (status_error(500), UpstreamTruncatedError("x"), UpstreamTimeoutError("x"))
    )


def test_only_a_refusal_proves_that_the_call_was_not_processed() -> None:
    unsent = UpstreamConnectError("x")
    assert all(classify(error).not_processed for error in (status_error(429), status_error(503), TOO_LONG, unsent))
    assert not any(classify(error).not_processed for error in (status_error(500), UpstreamConnectionError("x")))


def test_only_the_upstreams_own_failures_are_its_faults() -> None:
    assert all(classify(error).is_fault for error in (status_error(500), UpstreamTimeoutError("x"), status_error(429)))
    assert not any(
        classify(error).is_fault
        for error in (InternalError(), UpstreamBusyError(1), TOO_LONG, status_error(400), InvalidRequestError("x"))
    )
    assert not classify(InvalidAnswerError("x")).is_fault


def test_which_errors_another_model_would_answer_too() -> None:
    wrong = (status_error(400), status_error(422), status_error(413), status_error(400, "content_filter"))
    assert all(classify(error).is_clients_fault for error in (*wrong, InvalidRequestError("x")))
    others = (TOO_LONG, status_error(404), status_error(401), status_error(400, "unsupported_value"), status_error(503))
    assert not any(classify(error).is_clients_fault for error in (*others, CapabilityError("x")))


@pytest.mark.parametrize(
    ("type_", "code", "message"),
    [
        ("exceed_context_size_error", "400", "request (3031 tokens) exceeds the available context size (1024 tokens)"),
        (
            "BadRequestError",
            "400",
            "This model's maximum context length is 1024 tokens. However, your request has 3031 input tokens.",
        ),
        (
            "invalid_request_error",
            None,
            "The input token count (3031) exceeds the maximum number of tokens allowed (1024).",
        ),
    ],
)
def test_a_prompt_that_is_too_long_for_the_upstream_needs_a_larger_window(
    type_: str, code: str | None, message: str
) -> None:
    error = UpstreamStatusError(message, upstream_status=400, type_=type_, code=code)
    assert classify(error) == classify(TOO_LONG)


def test_a_prompt_that_leaves_too_little_room_for_the_answer_does_not() -> None:
    message = (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
        "(1000 in the messages, 4000 in the completion)."
    )
    error = UpstreamStatusError(message, upstream_status=400, type_="BadRequestError", code="400")
    assert not classify(error).needs_larger_context
