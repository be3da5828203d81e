"""The decision which traces are exported, by the names of OpenTelemetry (`OTEL_TRACES_SAMPLER`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Sampler:
    """Sampler of traces that begin here, and of those of clients.

    `share` is the part of them that is sampled, from 0 to 1. With `follows_parent` the decision of the client's own
    span is taken over.
    """

    share: float
    follows_parent: bool

    @classmethod
    def named(cls, name: str, share: float) -> Sampler:
        """Return the sampler with one of OpenTelemetry's names. `share` is used by those with a ratio."""
        ratio = share if name.endswith("traceidratio") else float(name.endswith("always_on"))
        return cls(ratio, name.startswith("parentbased_"))

    def is_sampled(self, trace_id: int, parent: bool | None) -> bool:
        """Return the decision for a trace. `parent` is that of the client's span, or None if the trace begins here.

        It depends on the id alone, so that all servers with the same share choose the same traces (source:
        OpenTelemetry's specification of `TraceIdRatioBased`, which takes the lower 64 bits).
        """
        if self.follows_parent and parent is not None:
            return parent
        return trace_id & (1 << _BITS) - 1 < self.share * (1 << _BITS)
