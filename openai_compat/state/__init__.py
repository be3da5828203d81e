"""Which store a `SHARED_STATE_URL` means."""

from __future__ import annotations

from .base import StateStore
from .fallback import FallbackStore
from .memory import MemoryStore
from .sqlite import SQLiteStore


def open_store(url: str | None) -> StateStore:
    """The store at `url`; nothing is opened before it is first asked.

    Raises:
        ConfigurationError: it needs what is not installed, or is no address.
    """
    if url is None or url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:"):
        return FallbackStore(SQLiteStore(url.removeprefix("sqlite:")))
    from .redis import RedisStore

    return FallbackStore(RedisStore(url))
