"""Which store a `STATE_URL` means."""

from __future__ import annotations

from .base import SharedStore
from .fallback import ForgivingStore
from .memory import MemoryStore
from .sqlite import SQLiteStore


def open_store(url: str | None) -> SharedStore:
    """The store at `url`; nothing is opened before it is first asked.

    Raises:
        ConfigurationError: it needs what is not installed, or is no address.
    """
    if url is None or url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:"):
        return ForgivingStore(SQLiteStore(url.removeprefix("sqlite:")))
    from .redis import RedisStore

    return ForgivingStore(RedisStore(url))
