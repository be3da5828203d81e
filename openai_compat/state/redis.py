"""State store in Redis, which several machines can share (extra `redis`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .base import StateStore, StoreError
from .redis_client import open_client

PREFIX: Final = "openai-compat:"

# The counter expires after its first increment's time. The script is atomic, so every counter has an expiry.
_INCREMENT_SCRIPT = """
local total = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return total
"""


class RedisStore(StateStore):
    """Store in Redis. Its keys begin with `openai-compat:`, so that other applications can use the same database."""

    def __init__(self, url: str) -> None:
        self._redis, self._errors = open_client(url)
        self._increment_script = self._redis.register_script(_INCREMENT_SCRIPT)

    def read(self, keys: Sequence[str]) -> Mapping[str, str]:
        values = self._call("mget", [PREFIX + key for key in keys]) if keys else []
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def write(self, key: str, value: str, seconds: float) -> None:
        self._call("set", PREFIX + key, value, px=_milliseconds(seconds))

    def delete(self, key: str) -> None:
        self._call("delete", PREFIX + key)

    def increment(self, key: str, amount: int, seconds: float) -> int:
        try:
            return int(self._increment_script(keys=[PREFIX + key], args=[amount, _milliseconds(seconds)]))
        except self._errors as error:
            raise StoreError(str(error)) from error

    def set_if_absent(self, key: str, seconds: float) -> bool:
        return bool(self._call("set", PREFIX + key, "1", px=_milliseconds(seconds), nx=True))

    def close(self) -> None:
        self._redis.close()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._redis, method)(*arguments, **options)
        except self._errors as error:
            raise StoreError(str(error)) from error


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
