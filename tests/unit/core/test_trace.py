"""Trace contexts that clients send, good and malformed (W3C Trace Context, 3.2)."""

from __future__ import annotations

import pytest

from openai_compat.core.trace import Trace, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_trace_context_is_read(text: str, is_sampled: bool) -> None:
    assert parse_traceparent(text) == (int(TRACE, 16), int(SPAN, 16), is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}-{SPAN}-01",
    ],
)
def test_a_malformed_trace_context_counts_as_none(text: str | None) -> None:
    assert parse_traceparent(text) is None


def test_the_state_of_a_trace_goes_on_only_with_the_clients_trace() -> None:
    headers = {"traceparent": "sent", "tracestate": "vendor=1", "x-request-id": "1"}
    theirs = Trace(1, 2, 3, 4, is_sampled=True).headers(headers, 5)
    assert theirs == {**headers, "traceparent": f"00-{1:032x}-{5:016x}-01"}
    assert "tracestate" not in Trace(1, 2, None, 4, is_sampled=False).headers(headers, 5)
