"""Client of a Redis server (extra `redis`)."""

from __future__ import annotations

from typing import Any, Final

from openai_compat.core.errors import ConfigurationError

SOCKET_TIMEOUT: Final = 0.25
"""Timeout in seconds for a connection and for a reply. A Redis on the same network takes less than 1 ms."""


def open_client(url: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return a client that connects on first use, and the errors that it raises. A command is never sent twice.

    Raises:
        ConfigurationError: the URL is invalid, or the extra is not installed.
    """
    try:
        import redis
    except ImportError as error:
        raise ConfigurationError(
            ["SHARED_STATE_URL names a Redis, which needs the extra 'redis': pip install 'redis>=6.4,<9'"]
        ) from error
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=SOCKET_TIMEOUT,
            decode_responses=True,
            retry=None,
        )
    except ValueError as error:
        raise ConfigurationError([f"SHARED_STATE_URL: {error}"]) from error
    return client, (redis.RedisError, OSError)
