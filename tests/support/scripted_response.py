"""Upstream response with scripted blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.streams import Heartbeat


class ScriptedResponse(UpstreamResponse):
    """Response that yields the given blocks and raises the exceptions among them.

    `endings` records how it was ended: "closed" drops the connection, "released" returns it to the pool.
    """

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, *blocks: bytes | Heartbeat | Exception) -> None:
        self._blocks = blocks
        self.endings: list[str] = []

    def blocks(self) -> Iterator[bytes | Heartbeat]:
        for block in self._blocks:
            if isinstance(block, Exception):
                raise block
            yield block

    def close(self) -> None:
        self.endings.append("closed")

    def release(self) -> None:
        self.endings.append("released")
