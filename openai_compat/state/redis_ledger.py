"""Ledger in Redis, which the workers of several machines share (extra `redis`)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1
from math import isinf
from typing import Any, Final

from .base import StoreError
from .ledger import HOLDER_SECONDS, Charge, ColdLedgerError, Ledger, Level, Meter, Refusal, Settlement
from .ledger_scripts import BEGIN_TURN, BUMP_VERSION, KEEP_ALIVE, LEVELS, RESERVE, RESTORE, SETTLE, UNDO
from .redis_client import open_client
from .redis_connections import RedisConnections

BASE: Final = "openai-compat:{ledger}"
"""Beginning of all keys. The braces keep them in one slot of a cluster."""
CONNECTIONS: Final = 8
"""Connections of a process. More calls than that wait for a fraction of a millisecond."""
UNKNOWN_SCRIPT: Final = object()
RETRY_SECONDS: Final = 1.0
"""Time between two attempts while Redis is away. All other calls fail at once meanwhile."""
DAY_MS: Final = 86_400_000
"""Time for which holds are kept, and the marks of settled calls of a process that is gone."""
MAX_DOUBTFUL: Final = 10_000
DIGESTS: Final = {
    script: sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (BEGIN_TURN, BUMP_VERSION, KEEP_ALIVE, LEVELS, RESERVE, RESTORE, SETTLE, UNDO)
}
"""Script -> name by which Redis knows it, once it has run."""


class RedisLedger(Ledger):
    """Ledger in Redis. What happens to it after a restart of Redis depends on whether Redis keeps its data.

    A reply may be lost, so that it is not known whether a command was executed. The charges of such a reservation are
    undone later. A settlement marks its call as settled, and the mark is deleted once this process has the reply.
    """

    def __init__(
        self,
        url: str,
        holder: str,
        clock: Callable[[], float] = time.time,
        holder_seconds: float = HOLDER_SECONDS,
    ) -> None:
        """Use the Redis at `url` for the process `holder`.

        Raises:
            ConfigurationError: the URL is invalid, or the extra is not installed.
        """
        self._url = url
        self._redis, self._errors = open_client(url)
        self._holder = holder
        self._clock = clock
        self._holder_seconds = holder_seconds
        self._connections = RedisConnections(self._redis.connection_pool, CONNECTIONS, self._check_away)
        self._is_away = False
        self._retry_at = 0.0
        self._doubtful: deque[str] = deque(maxlen=MAX_DOUBTFUL)
        self._acknowledged: list[str] = []

    @property
    def holder(self) -> str:
        return self._holder

    def for_holder(self, holder: str) -> RedisLedger:
        return RedisLedger(self._url, holder, self._clock, self._holder_seconds)

    def reserve(self, hold_id: str, charges: Sequence[Charge]) -> Sequence[Level] | Refusal:
        lines = "".join(map(_charge_line, charges))
        try:
            reply = self._run(RESERVE, hold_id, self._holder, self._clock() + self._holder_seconds, lines)
        except StoreError:
            self._doubtful.append(hold_id)
            raise
        status, _, rest = reply.partition(" ")
        if status == "refused":
            position, _, level = rest.partition(" ")
            return Refusal(charges[int(position)], *_to_levels(level))
        return list(map(_charged, charges, _to_levels(_checked(reply))))

    def settle(self, hold_id: str, settlements: Sequence[Settlement], record: str | None) -> None:
        lines = "".join(_settlement_line(settlement) for settlement in settlements if settlement.added)
        acknowledged, self._acknowledged = self._acknowledged, []
        try:
            _checked(self._run(SETTLE, hold_id, self._holder, lines, record or "", "\t".join(acknowledged)))
        except StoreError:
            self._acknowledged += acknowledged
            raise
        self._acknowledged.append(hold_id)

    def levels(self, meters: Sequence[Meter]) -> Sequence[Level]:
        return _to_levels(self._run(LEVELS, "".join(f"{_place(meter)}\n" for meter in meters)))

    def restore(self, levels: Sequence[tuple[Meter, Level]]) -> None:
        self._run(RESTORE, "".join(_level_line(meter, level) for meter, level in levels))

    def start(self, version: int) -> None:
        self._command("HSETNX", f"{BASE}:numbers", "version", version)

    def keep_alive(self, now: float) -> None:
        self._run(KEEP_ALIVE, now, self._holder, now + self._holder_seconds, DAY_MS)
        if doubtful := list(self._doubtful):
            self._run(UNDO, self._holder, "\t".join(doubtful))
            for _ in doubtful:
                self._doubtful.popleft()

    def begin_turn(self, now: float, seconds: float) -> bool:
        return bool(self._run(BEGIN_TURN, now, now + seconds))

    def end_turn(self) -> None:
        self._command("HDEL", f"{BASE}:numbers", "turn")

    def records(self, limit: int) -> Sequence[tuple[str, str]]:
        entries = self._command("XRANGE", f"{BASE}:records", "-", "+", "COUNT", limit)
        return [(id, body) for id, (_, body) in entries]

    def delete_records(self, ids: Sequence[str]) -> None:
        if ids:
            self._command("XDEL", f"{BASE}:records", *ids)

    def drop_records(self, keep: int) -> int:
        dropped = self._command("XTRIM", f"{BASE}:records", "MAXLEN", keep)
        return int(self._command("HINCRBY", f"{BASE}:numbers", "dropped", dropped))

    def version(self) -> int | None:
        version = self._command("HGET", f"{BASE}:numbers", "version")
        return None if version is None else int(version)

    def bump_version(self) -> None:
        self._run(BUMP_VERSION)

    def close(self) -> None:
        self._redis.close()

    def _run(self, script: str, *arguments: Any) -> Any:
        """Run a script, by its digest if Redis knows it.

        Raises:
            StoreError
        """
        reply = self._command("EVALSHA", DIGESTS[script], 1, BASE, *arguments)
        return self._command("EVAL", script, 1, BASE, *arguments) if reply is UNKNOWN_SCRIPT else reply

    def _command(self, *arguments: Any) -> Any:
        """Send a command and return its reply.

        Raises:
            StoreError
        """
        try:
            reply = self._exchange(*arguments)
        except self._errors as error:
            reply = UNKNOWN_SCRIPT
            if type(error).__name__ != "NoScriptError":
                self._is_away = True
                self._retry_at = time.monotonic() + RETRY_SECONDS
                raise StoreError(str(error)) from error
        self._is_away = False
        return reply

    def _exchange(self, *arguments: Any) -> Any:
        return self._connections.exchange(arguments)

    def _check_away(self) -> None:
        """Raise an error if Redis has just failed. One caller tries it again after `RETRY_SECONDS`.

        Raises:
            StoreError
        """
        if self._is_away:
            now = time.monotonic()
            if now < self._retry_at:
                raise StoreError("Redis has not answered a moment ago")
            self._retry_at = now + RETRY_SECONDS


def _checked(reply: str) -> str:
    """Return the reply of a ledger that is not cold.

    Raises:
        ColdLedgerError
    """
    if reply == "cold":
        raise ColdLedgerError("the ledger in Redis is empty and is restored from the database")
    return reply


def _charged(charge: Charge, before: Level) -> Level:
    """Return the level after a charge."""
    if charge.is_held:
        return Level(before.current, before.previous, before.held + charge.amount)
    return Level(before.current + charge.amount, before.previous, before.held)


def _place(meter: Meter) -> str:
    return f"{meter.owner}\t{meter.name}\t{meter.window}"


def _charge_line(charge: Charge) -> str:
    meter = charge.meter
    time = _milliseconds_of_hold(meter) if charge.is_held else _milliseconds(meter)
    return f"{_place(meter)}\t{charge.amount}\t{charge.is_held:d}\t{meter.limit}\t{meter.weight!r}\t{time}\n"


def _settlement_line(settlement: Settlement) -> str:
    return f"{_place(settlement.meter)}\t{settlement.added}\t{_milliseconds(settlement.meter)}\n"


def _level_line(meter: Meter, level: Level) -> str:
    return f"{_place(meter)}\t{level.current}\t{level.previous}\t{_milliseconds(meter)}\n"


def _milliseconds_of_hold(meter: Meter) -> int:
    """Return the time for which a hold is kept, also after the end of its window, as the call may take longer."""
    return DAY_MS if isinf(meter.lifetime) else max(DAY_MS, int(meter.lifetime * 1000) + 1)


def _milliseconds(meter: Meter) -> int | str:
    """Return the time for which an amount of the meter counts, an empty text for all time."""
    lifetime = meter.lifetime
    return "" if isinf(lifetime) else int(lifetime * 1000) + 1


def _to_levels(text: str) -> list[Level]:
    numbers: Iterable[int] = iter(map(int, text.split()))
    return [Level(*three) for three in zip(numbers, numbers, numbers, strict=True)]
