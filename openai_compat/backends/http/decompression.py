"""Incremental decompression of response bodies, in blocks of limited size."""

from __future__ import annotations

import time
import zlib
from typing import Final

MAX_DECODED_BYTES: Final = 256 * 1024
"""Bytes of one decoded block, about 0.5 ms of work. A byte of gzip may stand for a thousand."""


class Decoder:
    """A decoder for gzip and deflate, which zlib distinguishes by itself (47), with any number of gzip members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(47)
        self._encoded = b""
        self._has_more = False

    @property
    def is_inside(self) -> bool:
        """True if the compressed data has not reached its end."""
        return not self._member.eof

    def feed(self, data: bytes) -> None:
        """Add compressed data, once `take` has returned all that was decoded before."""
        self._encoded = data
        self._has_more = True

    def take(self) -> bytes:
        """Return the next block, or b"" if more data is needed. After a full block other greenlets get a turn.

        Raises:
            zlib.error: The data is not compressed.
        """
        while self._has_more:
            if self._member.eof:
                self._member = zlib.decompressobj(47)
            block = self._member.decompress(self._encoded, MAX_DECODED_BYTES)
            is_full = len(block) == MAX_DECODED_BYTES
            self._encoded = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._has_more = bool(self._encoded) or (is_full and not self._member.eof)
            if is_full:
                time.sleep(1e-9)
            if block:
                return block
        return b""
