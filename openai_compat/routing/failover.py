"""Failover of one call along its route plan, with retries, backoff and the first-token timeout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import (
    CallCancelledError,
    OpenAICompatError,
    UpstreamAuthenticationError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from openai_compat.core.observation import AttemptRecord
from openai_compat.core.streams import close_stream
from openai_compat.core.timers import SharedTimer
from openai_compat.core.trace import new_span_id
from openai_compat.core.types import CallContext

from .circuit_breaker import Permit
from .failure_policy import classify, concerns_credential
from .retry import Backoff, parse_retry_after
from .route import RoutePlan, Target

log = logging.getLogger(__name__)

T = TypeVar("T")
StartAnswer = Callable[[Target, CallContext], T]
"""Calls one target. Returns when the answer has started (a stream: with its first token), or raises an error."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock, sleep and timer of a failover, which tests replace.

    `sleep` waits on a cancellation token for some seconds. `timer` makes an object like `SharedTimer`.
    """

    clock: Callable[[], float] = perf_counter
    sleep: Callable[[CancellationToken, float], None] = CancellationToken.wait
    timer: Callable[[float, Callable[[OpenAICompatError], None], tuple[OpenAICompatError]], Any] = SharedTimer


SYSTEM_TIMING: Final = Timing()


class Attempt(Generic[T]):
    """One attempt at a target, and its result.

    The owner reports the outcome with `record_success` or `record_failure`, and calls `close` on every path.
    """

    def __init__(
        self,
        plan: RoutePlan,
        target: Target,
        permit: Permit,
        context: CallContext,
        timeout: FirstTokenTimeout | None,
        timing: Timing,
    ) -> None:
        self.target = target
        self.timeout = timeout
        self._results: list[T] = []
        self._plan = plan
        self._permit = permit
        self._context = context
        self._timing = timing
        self._record = AttemptRecord(target.model, timing.clock())
        if context.trace is not None:
            self._record.span_id = new_span_id()
        context.attempts.append(self._record)
        self._open_until = plan.breaker.open_until(target.model)
        self._is_closed = False
        plan.balancer.on_start(target.model)

    def trace(self, context: CallContext) -> CallContext:
        """Return the context with the headers that make the upstream's spans children of the attempt's."""
        if context.trace is None:
            return context
        return replace(context, headers=context.trace.headers(context.headers, self._record.span_id))

    @property
    def result(self) -> T:
        """What the target returned."""
        return self._results[0]

    def set_result(self, result: T) -> None:
        """Store the result, and report the latency of its first byte."""
        self._results.append(result)
        self._plan.breaker.on_first_byte(self.target.model, self._open_until)
        self._record.first_byte_at = now = self._timing.clock()
        self._plan.balancer.on_first_byte(self.target.model, now - self._record.started_at)

    def record_success(self) -> None:
        """Report that the answer is complete."""
        self._plan.breaker.on_success(self.target.model)

    def record_failure(self, error: OpenAICompatError) -> None:
        """Report that this call gives up on the target because of `error`."""
        self._record.error = error.code or error.type
        action = classify(error)
        breaker, name = self._plan.breaker, self.target.model
        if action.is_fault and not self._concerns_caller(error):
            breaker.on_failure(
                name,
                self._plan.policy,
                self._permit,
                is_outage=action.is_outage,
                since=self._open_until,
                retry_after=_retry_after(error),
            )
        else:
            breaker.release(name, self._permit)

    def _concerns_caller(self, error: OpenAICompatError) -> bool:
        """Return True if the error is about the caller's own credential, so that it says nothing about the upstream."""
        return concerns_credential(error) and self.target.backend.sends_caller_credential(self._context)

    @property
    def may_retry(self) -> bool:
        """True unless the circuit was opened after the start of the attempt, because of other calls."""
        return not self._plan.breaker.was_opened(self.target.model, self._open_until)

    def pause(self, error: OpenAICompatError) -> None:
        """Keep other calls away from the target for the time that `error` requests, if any."""
        seconds = _retry_after(error)
        if seconds is not None and not self._concerns_caller(error):
            self._open_until = self._plan.breaker.pause(self.target.model, self._plan.policy, seconds)

    def fail(self, error: OpenAICompatError) -> None:
        """End the attempt because of `error`, which the owner reports or follows with another attempt."""
        self._record.error = error.code or error.type
        self.close()

    def close(self) -> None:
        """End the attempt and close its result. Further calls have no effect."""
        if self._is_closed:
            return
        self._is_closed = True
        self._record.ended_at = self._timing.clock()
        if self.timeout is not None:
            self.timeout.close()
        self._plan.balancer.on_end(self.target.model)
        for result in self._results:
            close_stream(result)


class FailoverExecutor(Generic[T]):
    """Execution of one call along `plan` until a target answers.

    `limits_first_token` applies the targets' `first_token` timeout, which is meant for streams. With `may_repeat` unset
    the call may have side effects, so that another attempt follows only when an upstream did not process it.
    `attempts`, `target`, `tried` and `is_fallback` describe the execution so far.
    """

    def __init__(
        self,
        plan: RoutePlan,
        context: CallContext,
        *,
        limits_first_token: bool = False,
        may_repeat: bool = True,
        timing: Timing = SYSTEM_TIMING,
    ) -> None:
        self.target: Target | None = None
        self.tried: list[str] = []
        self._attempts = 0
        self._plan = plan
        self._context = context
        self._limits_first_token = limits_first_token
        self._may_repeat = may_repeat
        self._timing = timing
        self._backoff = Backoff(plan.policy.max_retry_wait)
        self._remaining = plan.order()
        self._error: OpenAICompatError | None = None
        self._failed_target: Target | None = None
        self._exceeded_window = 0

    @property
    def attempts(self) -> int:
        """The number of requests, including those that were sent again within one attempt."""
        return self._attempts + len(self._context.resends)

    @property
    def is_fallback(self) -> bool:
        """True if the last target is a fallback."""
        return self.target is not None and self._plan.is_fallback(self.target)

    @property
    def has_more(self) -> bool:
        """True if another target can be tried, and the call may be repeated."""
        return self._may_repeat and any(map(self._is_eligible, self._remaining))

    def run(self, start: StartAnswer[T]) -> Attempt[T]:
        """Return the first attempt that succeeds. A second call continues with the targets not yet tried.

        Raises:
            OpenAICompatError: the most useful error, when all have failed. It is the error of the plan's own target,
                unless a fallback found a mistake in the request.
            CallCancelledError: the client disconnected.
        """
        for target, permit in self._candidates():
            attempt = self._try_target(target, permit, start)
            if attempt is not None:
                self._error = None
                return attempt
        raise self._pop_error()

    def _pop_error(self) -> Exception:
        """Return the kept error and drop it. Its traceback refers to this object, which would be a reference cycle."""
        error, self._error = self._error, None
        self.target = self._failed_target
        return error or RuntimeError("no target is left to try")

    def _candidates(self) -> Iterator[tuple[Target, Permit]]:
        """Yield the eligible targets in order, and after them those with an open circuit, as a last resort.

        A request that is wrong for every model is no reason for a last resort.
        """
        skipped = []
        while self._remaining:
            target = self._remaining.pop(0)
            permit = self._plan.breaker.try_acquire(target.model) if self._is_eligible(target) else None
            if permit is not None:
                yield target, permit
            else:
                skipped.append(target)
        for target in skipped:
            is_wrong = self._error is not None and classify(self._error).is_clients_fault
            if not is_wrong and self._is_eligible(target):
                yield target, Permit.NORMAL

    def _is_eligible(self, target: Target) -> bool:
        """Return True unless the prompt exceeded a context window that is known to be as large as that of `target`."""
        window = target.window
        if window is None or self._plan.policy.context_overflow == "always":
            return True
        return window > self._exceeded_window

    @property
    def _has_alternative(self) -> bool:
        """True if there is a target left whose circuit is closed."""
        breaker = self._plan.breaker
        return any(
            self._is_eligible(target) and not breaker.was_opened(target.model, None) for target in self._remaining
        )

    def _try_target(self, target: Target, permit: Permit, start: StartAnswer[T]) -> Attempt[T] | None:
        """Return the attempt at `target` that succeeds, with as many retries as the policy allows, or None."""
        self.target = target
        self.tried.append(target.model)
        for retry in count():
            self._attempts += 1
            attempt: Attempt[T] = Attempt(
                self._plan, target, permit, self._context, self._timeout_for(target), self._timing
            )
            try:
                attempt.set_result(self._start(attempt, start))
                return attempt
            except OpenAICompatError as error:
                attempt.fail(error)
                if self._context.cancellation.is_cancelled:  # whatever the error is, it is not the target's
                    self._plan.breaker.release(target.model, permit)
                    raise
                if not self._wait_for_retry(attempt, permit, error, retry):
                    attempt.record_failure(error)
                    self._handle_failure(target, error)
                    return None
            except BaseException:
                attempt.close()
                self._plan.breaker.release(target.model, permit)
                raise
        raise AssertionError("count() has no end")

    def _start(self, attempt: Attempt[T], start: StartAnswer[T]) -> T:
        """Start one attempt, within its first-token timeout if it has one."""
        self._context.reply_headers.clear()  # those of the attempt before
        timeout, context = attempt.timeout, attempt.trace(self._context)
        if attempt.target.timeouts is not None:
            context = replace(context, timeouts=attempt.target.timeouts)
        if timeout is None:
            context.cancellation.raise_if_cancelled()
            return start(attempt.target, context)
        try:
            result = start(attempt.target, replace(context, cancellation=timeout.cancellation))
        except CallCancelledError:  # from code that does not use the token's reason
            timeout.cancellation.raise_if_cancelled()
            raise
        try:
            timeout.stop()
        except OpenAICompatError:
            close_stream(result)
            raise
        return result

    def _wait_for_retry(self, attempt: Attempt[T], permit: Permit, error: OpenAICompatError, retry: int) -> bool:
        """Wait, and return True if the same target is to be called again.

        If other calls open the circuit meanwhile, the call goes to the next target. Without another target it waits and
        retries.
        """
        delay = self._retry_delay(error, permit, retry)
        if delay is None:
            return False
        if self._has_alternative:
            if not attempt.may_retry:
                return False
            attempt.pause(error)
        log.info("retrying '%s' in %.2f s: %s", attempt.target.model, delay, error.message)
        try:
            self._timing.sleep(self._context.cancellation, delay)
        except OpenAICompatError:
            self._plan.breaker.release(attempt.target.model, permit)
            raise
        return attempt.may_retry or not self._has_alternative

    def _retry_delay(self, error: OpenAICompatError, permit: Permit, retry: int) -> float | None:
        """Return the seconds until the same target is retried, or None if it is not. A probe is never retried."""
        action = classify(error)
        if not action.retry or retry >= self._plan.policy.retries or permit is Permit.PROBE:
            return None
        if not (self._may_repeat or action.not_processed):
            return None
        return self._backoff.delay(retry, _retry_after(error))

    def _handle_failure(self, target: Target, error: OpenAICompatError) -> None:
        """Keep `error`, which the client receives if no other target succeeds.

        Raises:
            OpenAICompatError: `error` itself, if no other target may be tried.
        """
        action = classify(error)
        is_first = len(self.tried) == 1 and not self._plan.is_fallback(target)
        is_final = not action.try_next and (is_first or isinstance(error, CallCancelledError))
        if is_final or not (self._may_repeat or action.not_processed):
            raise error
        level = logging.ERROR if isinstance(error, UpstreamAuthenticationError) else logging.WARNING
        log.log(level, "'%s' failed for this call: %s", target.model, error.message)
        if action.needs_larger_context:
            self._exceeded_window = max(self._exceeded_window, target.window or 0)
        if self._error is None or self._usefulness(target, error) > self._usefulness(self._failed_target, self._error):
            self._error, self._failed_target = error, target

    def _usefulness(self, target: Target | None, error: OpenAICompatError) -> int:
        """Return the rank of an error among those of a call. The client can correct its own mistake only.

        It asked for the plan's own target. What a fallback lacks does not concern the client.
        """
        if classify(error).is_clients_fault:
            return 2
        return 0 if target is None or self._plan.is_fallback(target) else 1

    def _timeout_for(self, target: Target) -> FirstTokenTimeout | None:
        seconds = target.first_token_timeout if self._limits_first_token else 0.0
        return FirstTokenTimeout(self._context.cancellation, seconds, self._timing) if seconds else None


def _retry_after(error: OpenAICompatError) -> float | None:
    """Return the seconds that the upstream's error response requests in `Retry-After`."""
    return parse_retry_after(error.headers) if isinstance(error, UpstreamStatusError) else None


class FirstTokenTimeout:
    """Time-to-first-token timeout of one attempt, enforced by routing so that backends need not implement it.

    `cancellation` is the attempt's own token. It is cancelled together with the call's, for the same reason, and with
    an `UpstreamTimeoutError` after `seconds` unless `stop` is called before.
    """

    def __init__(self, call: CancellationToken, seconds: float, timing: Timing = SYSTEM_TIMING) -> None:
        self.cancellation = CancellationToken()
        self._call = call
        error = UpstreamTimeoutError("The upstream sent no first token within the time limit.")
        self._timer = timing.timer(seconds, self.cancellation.cancel, (error,))
        self._timer.start()
        call.on_cancel(self._cancel_attempt)

    def _cancel_attempt(self) -> None:
        self.cancellation.cancel(self._call.reason)

    def stop(self) -> None:
        """Stop the timer because the answer has started.

        Raises:
            UpstreamTimeoutError: the answer started after the timeout.
            CallCancelledError: the call was cancelled, or the reason that the cancellation gave.
        """
        self._timer.cancel()
        self.cancellation.raise_if_cancelled()

    def close(self) -> None:
        """Stop the timer and the propagation of the call's cancellation."""
        self._timer.cancel()
        self._call.remove_callback(self._cancel_attempt)
