"""Admission of calls by the limits and budgets of their callers, and their settlement."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from secrets import token_hex
from typing import Any, Final, Literal

from openai_compat.core.errors import AccountsUnavailableError, PermissionDeniedError
from openai_compat.core.prices import Price
from openai_compat.core.types import Usage
from openai_compat.state.base import StoreError
from openai_compat.state.ledger import Ledger, Level, Refusal, Settlement

from .account import Caller
from .bookkeeper import Bookkeeper
from .charges import Estimate, Metered, Rule, charge_by, rules_for
from .limit_errors import to_error
from .limit_headers import limit_headers

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
"""Time without a call to the ledger after a failure, as each one may take its complete timeout."""
NO_USAGE: Final = Usage(0)
_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class CallDescription:
    """What is known of a call before it is made.

    `input_tokens` and `output_tokens` are the most that it may use. `price` is that of the model, None if unknown. With
    `is_background` the answer may come after the call. `is_generation` is True if a model works for it.
    """

    endpoint: str
    model: str
    request_id: str
    input_tokens: int = 0
    output_tokens: int = 0
    end_user: str | None = None
    price: Price | None = None
    is_background: bool = False
    is_generation: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    `usage` is None if there was no answer. `price` is that of the model that answered. Times are in milliseconds.
    """

    status: int
    duration_ms: int
    served_by: str
    usage: Usage | None = None
    is_estimated: bool = False
    price: Price | None = None
    attempts: int = 1
    error: str | None = None
    first_token_ms: int | None = None


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What happens while the ledger is away, and to calls without a price.

    `limits_without_ledger` and `budgets_without_ledger` say whether calls of callers with limits or budgets go on.
    `unknown_price` says whether callers with a budget may use a model whose price is unknown.
    """

    limits_without_ledger: Literal["local", "refuse"] = "local"
    budgets_without_ledger: Literal["refuse", "allow"] = "refuse"
    unknown_price: Literal["refuse", "allow"] = "refuse"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was charged, with the levels afterwards. `unmetered` are the budgets that could not be checked.

    With `is_local` the limits are those of this process.
    """

    metered: Sequence[Metered] = ()
    levels: Sequence[Level] = ()
    unmetered: Sequence[Metered] = ()
    is_local: bool = False


NOTHING: Final = Reservation()


class Admission:
    """A call that was admitted. `settle` ends it, once."""

    def __init__(
        self, gate: Gate, caller: Caller | None, call: CallDescription, hold_id: str, reservation: Reservation
    ) -> None:
        self.call = call
        self._gate = gate
        self._caller = caller
        self._hold_id = hold_id
        self._reservation = reservation
        self._is_settled = False

    def headers(self) -> dict[str, str]:
        """Return OpenAI's headers about rate limits, for the limits that leave the least.

        Calls of the Messages API also get Anthropic's.
        """
        reservation = self._reservation
        return limit_headers(reservation.metered, reservation.levels, self.call.endpoint, self._gate.now())

    def settle(self, outcome: Outcome) -> None:
        """Correct the charges by what the call used, and record it. Further calls have no effect."""
        if not self._is_settled:
            self._is_settled = True
            self._gate.settle(self._caller, self.call, self._hold_id, self._reservation, outcome)


class Gate:
    """The admission of calls, shared by all requests of a process."""

    def __init__(
        self,
        ledger: Ledger,
        local: Ledger,
        bookkeeper: Bookkeeper,
        policy: GatePolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Use `local` for the limits of this process while `ledger` is away."""
        self._ledger = ledger
        self._local = local
        self._bookkeeper = bookkeeper
        self._policy = policy
        self._clock = clock
        self._retry_at = 0.0
        self._numbers = count(1)
        self._process = f"{os.getpid():x}{token_hex(6)}"

    def admit(self, caller: Caller | None, call: CallDescription) -> Admission:
        """Charge the caller for a call. A call without a caller is recorded only.

        Raises:
            PermissionDeniedError: the model or the endpoint is not allowed, or has no price.
            LimitExceededError, BudgetExceededError: the call was refused, and nothing was charged.
            AccountsUnavailableError: the ledger is away, and calls may not go on without it.
        """
        hold_id = f"{self._process}-{next(self._numbers)}"
        reservation = NOTHING if caller is None else self._charge(caller, call, hold_id)
        return Admission(self, caller, call, hold_id, reservation)

    def now(self) -> float:
        """Return the time, as a Unix time in seconds."""
        return self._clock()

    def _charge(self, caller: Caller, call: CallDescription, hold_id: str) -> Reservation:
        check_permission(caller, call.endpoint, call.model or None)
        rules = rules_for(caller, call.end_user)
        if not rules:
            return NOTHING
        metered = charge_by(rules, self._estimate(rules, call), self._clock())
        self._bookkeeper.start()
        if time.monotonic() < self._retry_at:
            return self._reserve_locally(hold_id, metered, call)
        try:
            levels = self._reserve(self._ledger, hold_id, metered, call)
        except StoreError as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            log.warning("limits and budgets are not shared for now: %s", error)
            return self._reserve_locally(hold_id, metered, call)
        return Reservation(metered, levels)

    def _estimate(self, rules: Sequence[Rule], call: CallDescription) -> Estimate:
        tokens = call.input_tokens + call.output_tokens
        if call.price is not None:
            return Estimate(tokens, call.price.highest_cost(call.input_tokens, call.output_tokens))
        if self._policy.unknown_price == "refuse" and any(rule.kind == "money" for rule in rules):
            subject = f"the model '{call.model}'" if call.model else "this call"
            raise PermissionDeniedError(
                f"The price of {subject} is unknown, so that keys with a budget cannot use it.",
                param="model",
                code="unknown_price",
            )
        return Estimate(tokens, None)

    def _reserve_locally(self, hold_id: str, metered: Sequence[Metered], call: CallDescription) -> Reservation:
        """Reserve by the limits of this process, while the ledger is away."""
        limits = [item for item in metered if item.rule.kind != "money"]
        budgets = [item for item in metered if item.rule.kind == "money"]
        if budgets and self._policy.budgets_without_ledger == "refuse":
            raise AccountsUnavailableError
        if limits and self._policy.limits_without_ledger == "refuse":
            raise AccountsUnavailableError
        return Reservation(limits, self._reserve(self._local, hold_id, limits, call), budgets, is_local=True)

    def _reserve(
        self, ledger: Ledger, hold_id: str, metered: Sequence[Metered], call: CallDescription
    ) -> Sequence[Level]:
        """Charge all meters.

        Raises:
            LimitExceededError, BudgetExceededError, StoreError
        """
        result = ledger.reserve(hold_id, [item.charge for item in metered])
        if not isinstance(result, Refusal):
            return result
        error = to_error(result, next(item for item in metered if item.charge is result.charge), call.model)
        with suppress(StoreError):  # the error is complete without
            levels = ledger.levels([item.charge.meter for item in metered])
            error.headers = limit_headers(metered, levels, call.endpoint, self._clock())
        raise error

    def settle(
        self, caller: Caller | None, call: CallDescription, hold_id: str, reservation: Reservation, outcome: Outcome
    ) -> None:
        """Settle the charges of a call and record it."""
        now = self._clock()
        used = outcome.usage or NO_USAGE
        nano = outcome.price.cost(used) if outcome.price is not None and outcome.usage is not None else 0
        settlements = _settlements(reservation.metered, used.total_tokens, nano, now)
        if reservation.is_local:
            self._local.settle(hold_id, settlements, None)
            unheld = _settlements(reservation.unmetered, used.total_tokens, nano, now)
            settlements = [settlement._replace(released=0) for settlement in unheld]
        record = to_record(hold_id, caller, call, outcome, int(now), nano)
        self._bookkeeper.settle(hold_id, settlements, _encode(record))


def _settlements(metered: Sequence[Metered], tokens: int, nano: int, now: float) -> list[Settlement]:
    changes = (item.settlement(tokens, nano, now) for item in metered)
    return [change for change in changes if change is not None]


def check_permission(caller: Caller, endpoint: str, model: str | None) -> None:
    """Raise an error if the caller may not use the endpoint, or the model if the call has one.

    Raises:
        PermissionDeniedError
    """
    for account in caller.accounts:
        if not account.policy.allows_endpoint(endpoint):
            raise PermissionDeniedError(
                f"The {account.kind} '{account.id}' may not use the endpoint '{endpoint}'.",
                code="endpoint_not_allowed",
            )
    if model is not None:
        check_model(caller, model)


def check_model(caller: Caller, model: str) -> None:
    """Raise an error if the caller may not use the model.

    Raises:
        PermissionDeniedError
    """
    for account in caller.accounts:
        if not account.policy.allows_model(model):
            raise PermissionDeniedError(
                f"The {account.kind} '{account.id}' does not have access to the model '{model}'.",
                param="model",
                code="model_not_found",
            )


def to_record(
    id: str, caller: Caller | None, call: CallDescription, outcome: Outcome, at: int, nano: int
) -> Mapping[str, Any]:
    """Return the record of a call."""
    used = outcome.usage or NO_USAGE
    is_priced = outcome.price is not None or outcome.usage is None
    return {
        "id": id,
        "at": at,
        "organization_id": caller and caller.organization.id,
        "project_id": caller and caller.project.id,
        "key_id": caller and caller.key.id,
        "end_user": call.end_user,
        "endpoint": call.endpoint,
        "model": call.model,
        "served_by": outcome.served_by,
        "status": outcome.status,
        "error": outcome.error,
        "attempts": outcome.attempts,
        "input_tokens": used.prompt_tokens,
        "cached_tokens": used.cached_tokens,
        "cache_write_tokens": used.cache_write_tokens,
        "output_tokens": used.completion_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "is_estimated": outcome.is_estimated,
        "cost_nano": nano if is_priced else None,
        "price": None if outcome.price is None else outcome.price.to_object(used.prompt_tokens),
        "first_token_ms": outcome.first_token_ms,
        "duration_ms": outcome.duration_ms,
        "request_id": call.request_id,
    }
