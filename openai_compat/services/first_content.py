"""Holding a stream back until it says something: what goes wrong before that has a status, or need not be told."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from openai_compat.backends.parsing.openai_errors import find_status, to_status_error
from openai_compat.core.errors import UpstreamAuthenticationError, UpstreamError
from openai_compat.core.streams import Heartbeat

from .sse_events import chunk_of, has_content, split_events, to_event


def wait_for_first_content(events: Iterator[bytes | Heartbeat]) -> Iterator[bytes | Heartbeat]:
    """The same events, once one of them is a piece of the answer: roles, comments and silences before it wait for it.

    Raises:
        UpstreamError: the stream told of an error in its place; or whatever reading it raises.
    """
    held: list[bytes | Heartbeat] = []
    for block in events:
        if isinstance(block, Heartbeat):
            continue
        held.append(block)
        if _has_content(block):
            break
    return chain(held, events)


def _has_content(block: bytes) -> bool:
    for event in split_events(block):
        chunk = chunk_of(event)
        if chunk is None:
            continue
        if chunk.get("error"):
            raise to_error(chunk)
        if has_content(chunk):
            return True
    return False


def to_error(chunk: dict[str, Any]) -> UpstreamError:
    """The error that an event tells of. What judges this server's credential may show it, and is told in our words."""
    status = find_status(chunk)
    if status in {401, 403}:
        return UpstreamAuthenticationError("The upstream refused the credential that this server holds for it.")
    return to_status_error(status, to_event(chunk)[len("data: ") :])
