"""Refusals of calls by limits and budgets, in OpenAI's words."""

from __future__ import annotations

from math import ceil, isinf
from typing import Final

from openai_compat.core.errors import BudgetExceededError, LimitExceededError
from openai_compat.state.ledger import Refusal

from .charges import Metered

_UNITS: Final = {
    "requests_per_minute": ("requests", "requests per min (RPM)"),
    "tokens_per_minute": ("tokens", "tokens per min (TPM)"),
    "requests_per_day": ("requests", "requests per day (RPD)"),
    "tokens_per_day": ("tokens", "tokens per day (TPD)"),
    "concurrent_requests": ("requests", "concurrent requests"),
}
HOLD_SECONDS: Final = 1.0
"""Time after which a refused call is worth a retry, if another call has to end first."""


def to_error(refusal: Refusal, metered: Metered, model: str) -> LimitExceededError | BudgetExceededError:
    """Return the error for the first limit that a call exceeds."""
    if metered.rule.kind == "money":
        return _budget_error(refusal)
    rule = metered.rule
    kind, unit = _UNITS[rule.name]
    meter, amount = refusal.charge.meter, refusal.charge.amount
    wait = refusal.level.retry_after(meter, amount)
    used = refusal.level.used(meter)
    place = f"Rate limit reached for {model} in {rule.place} on {unit}: Limit {meter.limit}"
    if isinf(wait) and rule.kind != "tokens":
        return LimitExceededError(f"{place}, Used {used}, Requested {amount}.", type_=kind, is_retryable=False)
    if isinf(wait):
        return LimitExceededError(
            f"Request too large for {model} in {rule.place} on {unit}: Limit {meter.limit}, Requested {amount}. "
            "The input or output tokens must be reduced in order to run successfully.",
            type_=kind,
            is_retryable=False,
        )
    wait = wait or HOLD_SECONDS
    return LimitExceededError(
        f"{place}, Used {used}, Requested {amount}. Please try again in {format_duration(wait)}.",
        type_=kind,
        wait=wait,
    )


def _budget_error(refusal: Refusal) -> BudgetExceededError:
    """Return the error for a budget. A retry helps only if other calls hold what is left of it."""
    charge, level = refusal.charge, refusal.level
    without_holds = level.used(charge.meter) - level.held + charge.amount
    return BudgetExceededError(is_held=level.held > 0 and without_holds <= charge.meter.limit)


def format_duration(seconds: float) -> str:
    """Return a time as OpenAI's headers and messages have it, such as `74ms`, `1.2s` or `6m0s`."""
    milliseconds = ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
