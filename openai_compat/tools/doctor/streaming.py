"""Checks of streamed responses for buffering, compression and rewriting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .results import CheckResult, failed, passed
from .target import Target, parse_events

PAUSES: Final = (0.0, 0.2, 0.2, 0.2)
TRIES: Final = 3
MAX_DELAY_SHARE: Final = 0.5
"""Share of the pauses by which a delayed first event counts as buffered. A slow network delays all events alike."""
BUFFERING_FIXES: Final = (
    "nginx, in the location of this server: proxy_buffering off; and proxy_http_version 1.1;",
    "nginx: no proxy_ignore_headers X-Accel-Buffering;",
    "elsewhere: no buffering of responses (a CDN's cache, a compressor, a web firewall)",
)
COMPRESSION_FIXES: Final = (
    "nginx: gzip off; (or gzip_types without text/event-stream)",
    "elsewhere: no compression of text/event-stream",
)
REWRITING_FIXES: Final = (
    "nginx: no sub_filter for text/event-stream",
    "elsewhere: no rewriting of events, or an idle timeout above the longest gap between events",
)


def check_buffering(target: Target) -> Sequence[CheckResult]:
    """Measure the delay of the first event, the smallest of three tries.

    A proxy that buffers does so each time, while a busy machine does not.
    """
    delay, duration = min(_delay(target) for _ in range(TRIES))
    if delay < duration * MAX_DELAY_SHARE:
        return [
            passed("buffering", f"events arrive as they are sent (the first was delayed by {max(delay, 0.0):.2f} s)")
        ]
    message = f"events are buffered: sent over {duration:.1f} s, they arrived within {duration - delay:.2f} s"
    return [failed("buffering", message, *BUFFERING_FIXES)]


def _delay(target: Target) -> tuple[float, float]:
    """Return by how many seconds the first event was delayed against the last, and over how many all were sent."""
    events = parse_events(target.run_command(pauses=PAUSES))
    duration = events[-1].sent_at - events[0].sent_at
    return duration - (events[-1].received_at - events[0].received_at), duration


def check_compression(target: Target) -> Sequence[CheckResult]:
    """Stream as a client that accepts gzip and Brotli."""
    response = target.run_command({"Accept-Encoding": "gzip, br"}, pauses=[0])
    encoding = response.headers.get("content-encoding")
    if encoding is None:
        return [passed("compression", "streams are not compressed")]
    message = f"streams are compressed ({encoding}), so events wait for a block to fill"
    return [failed("compression", message, *COMPRESSION_FIXES)]


def check_keep_alive_comments(target: Target) -> Sequence[CheckResult]:
    """Check that the comments that fill an idle gap reach the client."""
    response = target.run_command(pauses=[0, 0.4], comments=True)
    if any(line.startswith(b":") for line in response.body.split(b"\n")):
        return [passed("keep-alive comments", "comments in an idle gap arrive")]
    message = "comments in an idle gap are removed, so a proxy may close an idle stream"
    return [failed("keep-alive comments", message, *REWRITING_FIXES)]
