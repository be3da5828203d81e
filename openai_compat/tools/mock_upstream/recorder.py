"""What the mock upstream has seen: the counters and requests that `/__mock__/` shows to tests."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from .errors import Json
from .exchange import Exchange, Request

KEPT_REQUESTS = 100
KEPT_BODY_BYTES = 64 * 1024


class ClientGoneError(Exception):
    """The peer hung up before its answer was complete."""


@dataclass
class Record:
    """One request, its body cut to what is kept, and how its answer ended."""

    request: Request
    is_complete: bool = False
    is_aborted: bool = False

    def to_json(self) -> Json:
        """Return the record as tests read it."""
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
    """Counts connections and requests, and keeps the last requests."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.connections_open = 0
        self.requests_open = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but what is open now."""
        self.connections_total = 0
        self.requests_total = 0
        self.requests_aborted = 0
        self.models: Counter[str] = Counter()
        self.records: deque[Record] = deque(maxlen=KEPT_REQUESTS)

    def open_connection(self) -> None:
        """Count a connection."""
        self.connections_open += 1
        self.connections_total += 1

    def ignore_connection(self) -> None:
        """Count a connection no longer: it came to read the counters."""
        self.connections_open -= 1
        self.connections_total -= 1

    @contextmanager
    def recording(self, exchange: Exchange) -> Iterator[None]:
        """Count `exchange` while it is answered, and note whether the peer stayed to the end."""
        request = exchange.request
        record = Record(replace(request, body=request.body[:KEPT_BODY_BYTES]))
        self.records.append(record)
        self.requests_total += 1
        self.requests_open += 1
        try:
            yield
        except (ClientGoneError, OSError):
            record.is_aborted = not exchange.is_complete
            self.requests_aborted += record.is_aborted
            raise
        finally:
            record.is_complete = exchange.is_complete
            self.requests_open -= 1

    def to_stats(self) -> Json:
        """Return the counters."""
        return {
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
            "requests_total": self.requests_total,
            "requests_open": self.requests_open,
            "requests_aborted": self.requests_aborted,
            "models": dict(self.models),
        }
