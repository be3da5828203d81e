"""The parameters that a model's name carries: `fault-slow:delay=0.05,chunks=100`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import ApiError


@dataclass(frozen=True)
class Options:
    """Every parameter, with the value that it has when the name does not give it."""

    chunks: int = 0
    """Pieces of text in the answer; 0 for one a word."""
    size: int = 0
    """Characters in each piece; 0 for whole words."""
    delay: float = 0.0
    """Seconds between two pieces; for an answer that is not streamed, seconds before it."""
    prefix: str = ""
    """Text that goes before the usual reply."""
    suffix: str = ""
    """Text that follows the usual reply."""
    calls: int = 1
    """Tool calls in the answer, when the request offers tools."""
    after: int = -1
    """Events (or quarters of a body) that are sent before the fault; -1 for half of them."""
    code: int = 0
    """The HTTP status of the faults that choose one."""
    retry_after: float = -1.0
    """Value of the retry-after header; negative for none."""
    retry_after_ms: float = -1.0
    """Value of the retry-after-ms header; negative for none."""
    should_retry: str = ""
    """Value of the x-should-retry header; empty for none."""
    times: int = 0
    """The fault happens to so many requests for this exact model name, later ones are healthy; 0 for always."""
    seconds: float = 0.0
    """The fault lasts so long from the first request for this exact model name; 0 for ever."""

    def updated(self, text: str) -> Options:
        """Return these options with those of `text` (`key=value,key=value`) put in place."""
        changes: dict[str, Any] = dict(self._parse_pair(pair) for pair in text.split(",") if pair)
        return replace(self, **changes)

    def _parse_pair(self, pair: str) -> tuple[str, int | float | str]:
        """Return the name and the converted value of one `key=value`; raise `ApiError` for one that makes no sense."""
        name, _, value = pair.partition("=")
        if name not in NAMES:
            raise ApiError(400, f"Unknown parameter '{name}' in the model's name: {', '.join(NAMES)}.", param="model")
        kind = type(getattr(self, name))
        try:
            return name, kind(value)
        except ValueError:
            raise ApiError(400, f"'{value}' is no {kind.__name__} for '{name}'.", param="model") from None


NAMES = tuple(field.name for field in fields(Options))
