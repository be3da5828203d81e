"""Options in the name of a model, as in `fault-slow:delay=0.05,chunks=100`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import ApiError


@dataclass(frozen=True)
class Options:
    """All options with their defaults."""

    chunks: int = 0
    """Chunks in the answer, 0 for one a word."""
    size: int = 0
    """Characters in each chunk, 0 for complete words."""
    delay: float = 0.0
    """Seconds between two chunks, or before a non-streaming answer."""
    prefix: str = ""
    """Text before the reply."""
    suffix: str = ""
    """Text after the reply."""
    calls: int = 1
    """Tool calls in the answer if the request has tools."""
    redacted: int = 0
    """1 for encrypted reasoning in the answers of the Messages API that think."""
    after: int = -1
    """Events, or quarters of a JSON body, that are sent before the fault, -1 for half of them."""
    code: int = 0
    """HTTP status, for the faults that return one."""
    retry_after: float = -1.0
    """Value of the retry-after header, negative for none."""
    retry_after_ms: float = -1.0
    """Value of the retry-after-ms header, negative for none."""
    should_retry: str = ""
    """Value of the x-should-retry header, empty for none."""
    times: int = 0
    """Number of requests for this exact model name that fail. Later ones are healthy. 0 for no limit."""
    seconds: float = 0.0
    """Duration of the fault in seconds from the first request for this exact model name, 0 for no limit."""

    def updated(self, text: str) -> Options:
        """Return a copy with the options in `text`, `key=value,key=value`.

        Raises:
            ApiError: an option is unknown or its value is invalid.
        """
        changes: dict[str, Any] = dict(self._parse_pair(pair) for pair in text.split(",") if pair)
        return replace(self, **changes)

    def _parse_pair(self, pair: str) -> tuple[str, int | float | str]:
        """Return the name and the converted value of one `key=value`."""
        name, _, value = pair.partition("=")
        if name not in NAMES:
            raise ApiError(400, f"Unknown parameter '{name}' in the model's name: {', '.join(NAMES)}.", param="model")
        value_type = type(getattr(self, name))
        try:
            return name, value_type(value)
        except ValueError:
            raise ApiError(
                400, f"'{value}' is not a valid {value_type.__name__} for '{name}'.", param="model"
            ) from None


NAMES = tuple(field.name for field in fields(Options))
