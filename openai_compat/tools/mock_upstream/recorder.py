"""Counters and requests of the mock upstream, which tests read from `/__mock__/`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from .errors import Json
from .exchange import Exchange, Request

MAX_REQUESTS = 100
MAX_BODY_BYTES = 64 * 1024


class ClientDisconnectedError(Exception):
    """The client disconnected before its response was complete."""


@dataclass
class Record:
    """One request with the beginning of its body, and how its response ended."""

    request: Request
    is_complete: bool = False
    is_aborted: bool = False

    def to_json(self) -> Json:
        """Return the record for `GET /__mock__/requests`."""
        return {
            "method": self.request.method,
            "path": self.request.path,
            "query": self.request.query,
            "headers": dict(self.request.headers),
            "body": self.request.body.decode("utf-8", "replace"),
            "aborted": self.is_aborted,
            "complete": self.is_complete,
        }


class RequestRecorder:
    """Counters of connections and requests, and the last `MAX_REQUESTS` requests."""

    def __init__(self) -> None:
        self.connections_open = 0
        self.requests_open = 0
        self.reset()

    def reset(self) -> None:
        """Reset everything except for the counts of open connections and requests."""
        self.connections_total = 0
        self.requests_total = 0
        self.requests_aborted = 0
        self.models: Counter[str] = Counter()
        self.records: deque[Record] = deque(maxlen=MAX_REQUESTS)

    def open_connection(self) -> None:
        """Count a connection."""
        self.connections_open += 1
        self.connections_total += 1

    def ignore_connection(self) -> None:
        """Remove a connection from the counts, because it only reads the counters."""
        self.connections_open -= 1
        self.connections_total -= 1

    @contextmanager
    def recording(self, exchange: Exchange) -> Iterator[None]:
        """Count an exchange during the `with` block and record how it ended."""
        request = exchange.request
        record = Record(replace(request, body=request.body[:MAX_BODY_BYTES]))
        self.records.append(record)
        self.requests_total += 1
        self.requests_open += 1
        try:
            yield
        except (ClientDisconnectedError, OSError):
            record.is_aborted = not exchange.is_complete
            self.requests_aborted += record.is_aborted
            raise
        finally:
            record.is_complete = exchange.is_complete
            self.requests_open -= 1

    def to_stats(self) -> Json:
        """Return the counters for `GET /__mock__/stats`."""
        return {
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
            "requests_total": self.requests_total,
            "requests_open": self.requests_open,
            "requests_aborted": self.requests_aborted,
            "models": dict(self.models),
        }
