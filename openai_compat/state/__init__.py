"""State stores, and the choice of one by `SHARED_STATE_URL`."""

from __future__ import annotations

from .base import StateStore
from .fallback import FallbackStore
from .memory import MemoryStore
from .sqlite import SQLiteStore


def open_store(url: str | None) -> StateStore:
    """Return the store at `url`. It connects on first use.

    Raises:
        ConfigurationError: The URL is invalid, or the store needs an extra that is not installed.
    """
    if url is None or url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:"):
        return FallbackStore(SQLiteStore(url.removeprefix("sqlite:")))
    from .redis import RedisStore

    return FallbackStore(RedisStore(url))
