"""Transfer of large texts to and from PostgreSQL in a native thread, with turns for the worker's own thread."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, TypeVar

from gevent.monkey import get_original
from psycopg import Connection
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Dumper, Loader
from psycopg.postgres import types
from psycopg.pq import Format

STEP: Final = 250_000
"""Characters or bytes that are converted at once. Python's interpreter lock is held meanwhile, for about 0.1 ms."""
TURN: Final = 0.0001
"""Seconds between two steps of a transfer, which the worker's own thread takes 0.05 ms to notice."""

T = TypeVar("T")
_sleep: Final = get_original("time", "sleep")


class SteppedText(Dumper):
    """Dumper of texts. psycopg's own encodes and copies a text in one step, 10 ms for 16 MB."""

    format = Format.BINARY
    oid = types["text"].oid

    def dump(self, obj: str) -> bytearray:
        encoded = bytearray()
        for start in range(0, len(obj), STEP):
            encoded += obj[start : start + STEP].encode()
        return encoded


class SteppedTextLoader(Loader):
    """Loader of texts. psycopg's own decodes 16 MB that are not ASCII in one step of 27 ms."""

    format = Format.TEXT

    def load(self, data: Buffer) -> str:
        decode, encoded = getincrementaldecoder("utf-8")().decode, memoryview(data)
        parts = [decode(encoded[start : start + STEP]) for start in range(0, len(encoded), STEP)]
        if len(parts) > 1:
            _sleep(TURN)  # before the longest step, 9 ms for 16 MB of ASCII
        return "".join(parts)


class GentleConnection(Connection[Any]):
    """Connection that gives the worker's own thread a turn after each step of a transfer.

    psycopg holds Python's interpreter lock while it sends 200 kB. If the server is as fast, the wait for it gives the
    lock back for a moment that is too short for another thread, so that 16 MB would stop the streams for 35 ms.
    """

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        return super().wait(_in_turns(gen), *arguments, **options)


def _in_turns(steps: PQGen[T]) -> Generator[Any, Any, T]:
    ready = None
    while True:
        try:
            wanted = steps.send(ready)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        ready = yield wanted
        _sleep(TURN)


def connect_gently(
    dialect: object, record: object, arguments: Sequence[Any], options: Mapping[str, Any]
) -> GentleConnection:
    """Open a connection for SQLAlchemy that converts and transfers texts in steps."""
    connection = GentleConnection.connect(*arguments, **options)
    connection.adapters.register_dumper(str, SteppedText)
    connection.adapters.register_loader("text", SteppedTextLoader)
    return connection
