"""Encoding of large texts for PostgreSQL in a native thread, with turns for the worker's own thread."""

from __future__ import annotations

from typing import Final

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format

STEP: Final = 250_000
"""Characters that are encoded at once. Python's interpreter lock is held meanwhile, for about 0.1 ms."""


class SteppedText(Dumper):
    """Dumper of texts. psycopg's own encodes and copies a text in one step, 10 ms for 16 MB."""

    format = Format.BINARY
    oid = types["text"].oid

    def dump(self, obj: str) -> bytearray:
        encoded = bytearray()
        for start in range(0, len(obj), STEP):
            encoded += obj[start : start + STEP].encode()
        return encoded


def encode_in_steps(connection: Connection, record: object) -> None:
    """Let a new connection of SQLAlchemy's pool encode texts in steps."""
    connection.adapters.register_dumper(str, SteppedText)
