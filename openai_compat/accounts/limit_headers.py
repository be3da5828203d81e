"""Response headers about rate limits, as OpenAI's and Anthropic's clients read them.

Sources: OpenAI's guide "Rate limits", "Rate limits in headers", and Anthropic's API reference, "Response headers".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Final

from openai_compat.state.ledger import Level, Meter

from .charges import Kind, Metered
from .limit_errors import format_duration

COUNTED: Final[tuple[Kind, ...]] = ("requests", "tokens")
"""What the headers count."""
MESSAGES: Final = "messages"
"""Endpoint whose clients read Anthropic's headers."""


def limit_headers(metered: Sequence[Metered], levels: Sequence[Level], endpoint: str, now: float) -> dict[str, str]:
    """Return the headers for the limits that leave the least. Calls of the Messages API also get Anthropic's."""
    tightest: dict[Kind, tuple[int, Meter, Level]] = {}
    for (rule, charge), level in zip(metered, levels, strict=True):
        if rule.kind in COUNTED:
            remaining = level.remaining(charge.meter)
            if rule.kind not in tightest or remaining < tightest[rule.kind][0]:
                tightest[rule.kind] = (remaining, charge.meter, level)
    headers = {}
    for kind, (remaining, meter, level) in tightest.items():
        wait = level.reset_after(meter)
        headers[f"x-ratelimit-limit-{kind}"] = str(meter.limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(remaining)
        headers[f"x-ratelimit-reset-{kind}"] = format_duration(wait)
        if endpoint == MESSAGES:
            headers[f"anthropic-ratelimit-{kind}-limit"] = str(meter.limit)
            headers[f"anthropic-ratelimit-{kind}-remaining"] = str(remaining)
            headers[f"anthropic-ratelimit-{kind}-reset"] = _to_time(now + wait)
    return headers


def _to_time(at: float) -> str:
    """Return a time as Anthropic's headers have it, such as `2027-01-15T08:00:07Z`."""
    return f"{datetime.fromtimestamp(ceil(at), UTC):%Y-%m-%dT%H:%M:%SZ}"
