"""Whether events come as they are sent, and as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .results import CheckResult, bad, good
from .target import Target, parse_events

PAUSES: Final = (0.0, 0.2, 0.2, 0.2)
TRIES: Final = 3
HELD_SHARE: Final = 0.5
"""A path that takes half of the pauses out of a stream collects it; a slow network moves all events alike."""
BUFFERING: Final = (
    "nginx, where it passes to this server: proxy_buffering off; and proxy_http_version 1.1;",
    "nginx: no proxy_ignore_headers X-Accel-Buffering;",
    "elsewhere: whatever collects responses (a CDN's cache, a compressor, a web firewall)",
)
COMPRESSION: Final = (
    "nginx: gzip off; (or gzip_types without text/event-stream)",
    "elsewhere: no compression of text/event-stream",
)


def check_events(patient: Target) -> Sequence[CheckResult]:
    """The best of a few tries: a path that collects events does so each time, a busy machine does not."""
    held, sent = min(_held_seconds(patient) for _ in range(TRIES))
    if held < sent * HELD_SHARE:
        return [good("events", f"they come as they are sent (the first was held back for {max(held, 0.0):.2f} s)")]
    return [bad("events", f"held back: sent over {sent:.1f} s, they came within {sent - held:.2f} s", *BUFFERING)]


def _held_seconds(patient: Target) -> tuple[float, float]:
    """For how long the first event was held back until the last had been sent, and how long they were sent over."""
    words = parse_events(patient.order(pauses=PAUSES))
    sent = words[-1].said - words[0].said
    return sent - (words[-1].came - words[0].came), sent


def check_compression(patient: Target) -> Sequence[CheckResult]:
    answer = patient.order({"Accept-Encoding": "gzip, br"}, pauses=[0])
    encoding = answer.headers.get("content-encoding")
    if encoding is None:
        return [good("compression", "a stream comes uncompressed, also to a client that could take it otherwise")]
    return [bad("compression", f"streams are compressed ({encoding}): events wait for a block", *COMPRESSION)]


def check_comments(patient: Target) -> Sequence[CheckResult]:
    answer = patient.order(pauses=[0, 0.4], comments=True)
    if any(line.startswith(b":") for line in answer.body.split(b"\n")):
        return [good("comments", "the comments that fill a silence come through")]
    return [
        bad(
            "comments",
            "the comments that fill a silence are taken out on the way: whatever is silent for long is cut",
            "nginx: no sub_filter for text/event-stream",
            "elsewhere: whatever rewrites events; until then, an idle timeout as long as the longest silence",
        )
    ]
