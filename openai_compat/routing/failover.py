"""Failover of one call along its route plan, with retries, backoff and the first-token timeout."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import Any, Final, Generic, TypeVar

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import (
    CallCancelledError,
    OpenAICompatError,
    RequestError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from openai_compat.core.streams import close_stream
from openai_compat.core.types import CallContext

from .circuit_breaker import Permit
from .failure_policy import classify
from .retry import Backoff, parse_retry_after
from .route import RoutePlan, Target

log = logging.getLogger(__name__)

T = TypeVar("T")
StartAnswer = Callable[[Target, CallContext], T]
"""Calls one target. Returns when the answer has started (a stream: with its first token), or raises an error."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock, sleep and timer of a failover, which tests replace.

    `sleep` waits on a cancellation token for some seconds. `timer` makes an object like `threading.Timer`.
    """

    clock: Callable[[], float] = perf_counter
    sleep: Callable[[CancellationToken, float], None] = CancellationToken.wait
    timer: Callable[[float, Callable[[OpenAICompatError], None], tuple[OpenAICompatError]], Any] = threading.Timer


SYSTEM_TIMING: Final = Timing()


class Attempt(Generic[T]):
    """One attempt at a target, and its result.

    The owner reports the outcome with `record_success` or `record_failure`, and calls `close` on every path.
    """

    def __init__(
        self, plan: RoutePlan, target: Target, permit: Permit, timeout: FirstTokenTimeout | None, timing: Timing
    ) -> None:
        self.target = target
        self.timeout = timeout
        self._results: list[T] = []
        self._plan = plan
        self._permit = permit
        self._timing = timing
        self._started_at = timing.clock()
        self._is_closed = False
        plan.balancer.on_start(target.model)

    @property
    def result(self) -> T:
        """What the target returned."""
        return self._results[0]

    def set_result(self, result: T) -> None:
        """Store the result, and report the latency of its first byte."""
        self._results.append(result)
        self._plan.breaker.on_first_byte(self.target.model)
        self._plan.balancer.on_first_byte(self.target.model, self._timing.clock() - self._started_at)

    def record_success(self) -> None:
        """Report that the answer is complete."""
        self._plan.breaker.on_success(self.target.model)

    def record_failure(self, error: OpenAICompatError) -> None:
        """Report that this call gives up on the target because of `error`."""
        action = classify(error)
        breaker, name = self._plan.breaker, self.target.model
        if action.is_fault:
            breaker.on_failure(
                name, self._plan.policy, self._permit, is_outage=action.is_outage, retry_after=_retry_after(error)
            )
        else:
            breaker.release(name, self._permit)

    def close(self) -> None:
        """End the attempt and close its result. Further calls have no effect."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.timeout is not None:
            self.timeout.close()
        self._plan.balancer.on_end(self.target.model)
        for result in self._results:
            close_stream(result)


class FailoverExecutor(Generic[T]):
    """Execution of one call along `plan` until a target answers.

    `limits_first_token` applies the targets' `first_token` timeout, which is meant for streams. With `may_repeat` unset
    the call may have side effects, so that another attempt follows only when an upstream did not process it.
    `attempts`, `target` and `is_fallback` describe the execution so far.
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
        self.attempts = 0
        self.target: Target | None = None
        self._plan = plan
        self._context = context
        self._limits_first_token = limits_first_token
        self._may_repeat = may_repeat
        self._timing = timing
        self._backoff = Backoff(plan.policy.max_retry_wait)
        self._remaining = plan.order()
        self._error: OpenAICompatError | None = None
        self._failed_target: Target | None = None

    @property
    def is_fallback(self) -> bool:
        """True if the last target is a fallback."""
        return self.target is not None and self._plan.is_fallback(self.target)

    @property
    def has_more(self) -> bool:
        """True if there are targets that have not been tried."""
        return bool(self._remaining)

    def run(self, start: StartAnswer[T]) -> Attempt[T]:
        """Return the first attempt that succeeds. A second call continues with the targets not yet tried.

        Raises:
            OpenAICompatError: the error of the last target, when all have failed.
            CallCancelledError: the client disconnected.
        """
        for target, permit in self._candidates():
            attempt = self._try_target(target, permit, start)
            if attempt is not None:
                self._error = None
                return attempt
        raise self._pop_error()

    def _pop_error(self) -> Exception:
        """Return the last error and drop it. Its traceback refers to this object, which would be a reference cycle."""
        error, self._error = self._error, None
        return error or RuntimeError("no target is left to try")

    def _candidates(self) -> Iterator[tuple[Target, Permit]]:
        """Yield the eligible targets in order, and after them those with an open circuit, as a last resort."""
        skipped = []
        while self._remaining:
            target = self._remaining.pop(0)
            permit = self._plan.breaker.try_acquire(target.model) if self._is_eligible(target) else None
            if permit is not None:
                yield target, permit
            else:
                skipped.append(target)
        for target in skipped:
            if self._is_eligible(target):
                yield target, Permit.NORMAL

    def _is_eligible(self, target: Target) -> bool:
        """Return True unless the last failure needs a larger context window than `target` has."""
        if self._error is None or self._failed_target is None or not classify(self._error).needs_larger_context:
            return True
        if self._plan.policy.context_overflow == "always":
            return True
        exceeded, window = self._failed_target.window, target.window
        return exceeded is not None and window is not None and window > exceeded

    def _try_target(self, target: Target, permit: Permit, start: StartAnswer[T]) -> Attempt[T] | None:
        """Return the attempt at `target` that succeeds, with as many retries as the policy allows, or None."""
        self.target = target
        for retry in count():
            self.attempts += 1
            attempt: Attempt[T] = Attempt(self._plan, target, permit, self._timeout_for(target), self._timing)
            try:
                attempt.set_result(self._start(attempt, start))
                return attempt
            except OpenAICompatError as error:
                attempt.close()
                if self._context.cancellation.is_cancelled:  # whatever the error is, it is not the target's
                    self._plan.breaker.release(target.model, permit)
                    raise
                delay = self._retry_delay(error, permit, retry)
                if delay is None:
                    attempt.record_failure(error)
                    self._handle_failure(target, error)
                    return None
                log.info("retrying '%s' in %.2f s: %s", target.model, delay, error.message)
            except BaseException:
                attempt.close()
                self._plan.breaker.release(target.model, permit)
                raise
            self._wait(target, permit, delay)
        raise AssertionError("count() has no end")

    def _start(self, attempt: Attempt[T], start: StartAnswer[T]) -> T:
        """Start one attempt, within its first-token timeout if it has one."""
        self._context.reply_headers.clear()  # those of the attempt before
        timeout = attempt.timeout
        if timeout is None:
            self._context.cancellation.raise_if_cancelled()
            return start(attempt.target, self._context)
        try:
            result = start(attempt.target, replace(self._context, cancellation=timeout.cancellation))
        except CallCancelledError:  # from code that does not use the token's reason
            timeout.cancellation.raise_if_cancelled()
            raise
        try:
            timeout.stop()
        except OpenAICompatError:
            close_stream(result)
            raise
        return result

    def _wait(self, target: Target, permit: Permit, seconds: float) -> None:
        try:
            self._timing.sleep(self._context.cancellation, seconds)
        except OpenAICompatError:
            self._plan.breaker.release(target.model, permit)
            raise

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
        if isinstance(error, RequestError) and self._plan.is_fallback(target):
            # The fallback lacks a capability. The client requested another model and gets the error of that one.
            self._error = self._error or error
            return
        if not (action.try_next and (self._may_repeat or action.not_processed)):
            raise error
        log.warning("'%s' failed for this call: %s", target.model, error.message)
        self._error, self._failed_target = error, target

    def _timeout_for(self, target: Target) -> FirstTokenTimeout | None:
        seconds = target.backend.entry.timeouts.first_token if self._limits_first_token else 0.0
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
        self._timer.daemon = True
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
