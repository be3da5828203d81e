"""Timeouts of calls to upstreams, with defaults for those that another model can answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final

ROUTED: Final[Mapping[str, float]] = {"first_byte": 90.0, "idle": 60.0, "first_token": 60.0}
"""Default timeouts in seconds where another model can answer. A client must not wait 600 s for a silent upstream."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of one call to an upstream, in seconds. 0 means no limit.

    Attributes:
        connect: From the start of the call to an established connection, including TLS and a proxy's handshake.
        first_byte: From the request's last byte to the end of the response's headers. Interim responses (1xx) do not
            extend it.
        idle: Each pause between two reads of the response.
        total: The complete call.
        first_token: The time to first token of a stream. Routing enforces it for backends of every kind.
    """

    connect: float = 10.0
    first_byte: float = 600.0
    idle: float = 300.0
    total: float = 3600.0
    first_token: float = 0.0

    def for_route(self, named: Collection[str]) -> Timeouts:
        """Return the timeouts for a route that can call another model instead of waiting any longer.

        Those that are not `named` in the configuration get the defaults `ROUTED`. If the configuration names how long
        to wait for an answer to begin, the others allow as much.
        """
        waits = [getattr(self, name) or inf for name in ("first_byte", "first_token") if name in named]
        longest = max(waits, default=0.0)
        defaults = {
            name: max(seconds, longest)
            for name, seconds in ROUTED.items()
            if name not in named and not (name == "first_token" and waits)
        }
        return replace(self, **{name: seconds for name, seconds in defaults.items() if seconds < inf})
