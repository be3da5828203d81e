"""Values that the engine and the process of a model exchange when the process starts."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """What the process of a model needs to know. Paths are absolute, and None means llama.cpp's own default.

    `slots` calls run at once, each with a context window of `window` tokens. `connections` may be open.
    """

    name: str
    socket: str
    file: str
    slots: int
    window: int
    connections: int
    is_embedding: bool = False
    mmproj: str | None = None
    chat_template: str | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    pooling: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LaunchConfig:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class ServerState:
    """What a process reports when its model answers calls."""

    memory_bytes: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ServerState:
        """Return the state, or raise ValueError if the process ended before it wrote one."""
        content: dict[str, Any] = json.loads(text)
        return cls(**content)


def peak_memory() -> int:
    """Return the most memory that this process has used, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # macOS counts bytes, and Linux KiB
