"""An upstream's response whose body is written by the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.streams import Heartbeat


class ScriptedResponse(UpstreamResponse):
    """A response with the given blocks. An exception among them is raised in its turn.

    `endings` records how it was ended: "closed" breaks the exchange off, "released" keeps the connection.
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

    def read(self) -> bytes:
        return b"".join(block for block in self.blocks() if isinstance(block, bytes))

    def close(self) -> None:
        self.endings.append("closed")

    def release(self) -> None:
        self.endings.append("released")
