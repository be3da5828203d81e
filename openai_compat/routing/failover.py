"""One call's way through its plan: tries, waits, falls back, until somebody has attempt to answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from time import perf_counter
from typing import Generic, TypeVar

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
"""Asks one target; returns when its answer has attempt (a stream: with its first token), or raises what went wrong."""


class Attempt(Generic[T]):
    """One try, and the answer that came of it. `ended` or `failed` tell how it ended; `close` ends it on every path."""

    def __init__(self, plan: RoutePlan, target: Target, permit: Permit, limit: FirstTokenTimeout | None) -> None:
        self.target = target
        self._results: list[T] = []
        self._plan = plan
        self._admission = permit
        self.limit = limit
        self._began = perf_counter()
        self._is_closed = False
        plan.balancer.began(target.model)

    @property
    def result(self) -> T:
        """What the attempt returned."""
        return self._results[0]

    def answered(self, result: T) -> None:
        self._results.append(result)
        self._plan.health.on_first_byte(self.target.model)
        self._plan.balancer.answered(self.target.model, perf_counter() - self._began)

    def ended(self) -> None:
        """The answer came to its proper end."""
        self._plan.health.on_success(self.target.model)

    def failed(self, error: OpenAICompatError) -> None:
        """The target is given up by this call."""
        verdict = classify(error)
        health, name = self._plan.health, self.target.model
        if verdict.is_fault:
            outage = verdict.is_outage
            health.failed(name, self._plan.policy, self._admission, is_outage=outage, named=_named_by(error))
        else:
            health.release(name, self._admission)

    def close(self) -> None:
        """Closes the result, too."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.limit is not None:
            self.limit.close()
        self._plan.balancer.ended(self.target.model)
        for result in self._results:
            close_stream(result)


class FailoverExecutor(Generic[T]):
    """Finds somebody in `plan` who answers one call.

    `limits_first_token` says whether the targets' `first_token` holds (it does for streams). Where `may_repeat` is not
    set the call may have effects beyond its answer, and nobody else is asked unless an upstream said that it did
    nothing. `attempts`, `target` and `is_fallback` tell what has happened so far.
    """

    def __init__(
        self, plan: RoutePlan, context: CallContext, *, limits_first_token: bool = False, may_repeat: bool = True
    ) -> None:
        self.attempts = 0
        self.target: Target | None = None
        self._plan = plan
        self._context = context
        self._limits_first_token = limits_first_token
        self._may_repeat = may_repeat
        self._backoff = Backoff(plan.policy.max_retry_wait)
        self._waiting = plan.order()
        self._failure: OpenAICompatError | None = None
        self._failed_at: Target | None = None

    @property
    def is_fallback(self) -> bool:
        return self.target is not None and self._plan.is_fallback(self.target)

    @property
    def has_more(self) -> bool:
        """Whether anybody is left to ask."""
        return bool(self._waiting)

    def run(self, start: StartAnswer[T]) -> Attempt[T]:
        """The first answer to be had. Called again, it goes on with those who have not been asked yet.

        Raises:
            what the last upstream that was asked had to say; CallCancelledError.
        """
        for target, permit in self._candidates():
            attempt = self._try_target(target, permit, start)
            if attempt is not None:
                self._failure = None
                return attempt
        raise self._take_failure()

    def _take_failure(self) -> Exception:
        """Forgets it as well: its traceback holds this object, and the two would wait for the collector."""
        failure, self._failure = self._failure, None
        return failure or RuntimeError("nobody is left to ask")

    def _candidates(self) -> Iterator[tuple[Target, Permit]]:
        """Those who may be asked, in turn; and at last those who were to be left alone: better they than nobody."""
        left_alone = []
        while self._waiting:
            target = self._waiting.pop(0)
            permit = self._plan.health.try_acquire(target.model) if self._is_eligible(target) else None
            if permit is not None:
                yield target, permit
            else:
                left_alone.append(target)
        for target in left_alone:
            if self._is_eligible(target):
                yield target, Permit.NORMAL

    def _is_eligible(self, target: Target) -> bool:
        """Whether `target` may do better than the one that failed."""
        if self._failure is None or self._failed_at is None or not classify(self._failure).needs_larger_context:
            return True
        if self._plan.policy.context_overflow == "always":
            return True
        known, offered = self._failed_at.window, target.window
        return known is not None and offered is not None and offered > known

    def _try_target(self, target: Target, permit: Permit, start: StartAnswer[T]) -> Attempt[T] | None:
        """The answer of `target`, after as many tries as it gets; None when somebody else is to be asked."""
        self.target = target
        for retry in count():
            self.attempts += 1
            attempt: Attempt[T] = Attempt(self._plan, target, permit, self._limit_for(target))
            try:
                attempt.answered(self._start(attempt, start))
                return attempt
            except OpenAICompatError as error:
                attempt.close()
                if self._context.cancellation.is_cancelled:  # whatever else it looks like
                    self._plan.health.release(target.model, permit)
                    raise
                wait = self._wait_before_retry(error, permit, retry)
                if wait is None:
                    attempt.failed(error)
                    self._give_up(target, error)
                    return None
                log.info("'%s' is asked again in %.2f s: %s", target.model, wait, error.message)
            except BaseException:
                attempt.close()
                self._plan.health.release(target.model, permit)
                raise
            self._wait(target, permit, wait)
        raise AssertionError("count() has no end")

    def _start(self, attempt: Attempt[T], start: StartAnswer[T]) -> T:
        """One try, within the limit for its first token if it has one."""
        self._context.reply_headers.clear()  # what a try before this one said of its request
        limit = attempt.limit
        if limit is None:
            self._context.cancellation.raise_if_cancelled()
            return start(attempt.target, self._context)
        try:
            result = start(attempt.target, replace(self._context, cancellation=limit.cancellation))
        except CallCancelledError:  # from what does not ask for the reason
            limit.cancellation.raise_if_cancelled()
            raise
        try:
            limit.attempt()
        except OpenAICompatError:
            close_stream(result)
            raise
        return result

    def _wait(self, target: Target, permit: Permit, seconds: float) -> None:
        try:
            self._context.cancellation.wait(seconds)
        except OpenAICompatError:
            self._plan.health.release(target.model, permit)
            raise

    def _wait_before_retry(self, error: OpenAICompatError, permit: Permit, retry: int) -> float | None:
        """Seconds until the same target is asked again; None where it is not."""
        verdict = classify(error)
        # What finds out whether an upstream is back need not find out twice.
        if not verdict.retries or retry >= self._plan.policy.retries or permit is Permit.PROBE:
            return None
        if not (self._may_repeat or verdict.not_processed):
            return None
        return self._backoff.delay(retry, _named_by(error))

    def _give_up(self, target: Target, error: OpenAICompatError) -> None:
        """Remembers the failure, to be told if nobody does better.

        Raises:
            OpenAICompatError: `error` itself, where nobody is to be asked any more.
        """
        verdict = classify(error)
        if isinstance(error, RequestError) and self._plan.is_fallback(target):
            # It lacks a capability. The client asked for another model, and is to hear what is wrong with that one.
            self._failure = self._failure or error
            return
        if not (verdict.try_next and (self._may_repeat or verdict.not_processed)):
            raise error
        log.warning("'%s' is given up for this call: %s", target.model, error.message)
        self._failure, self._failed_at = error, target

    def _limit_for(self, target: Target) -> FirstTokenTimeout | None:
        seconds = target.backend.entry.timeouts.first_token if self._limits_first_token else 0.0
        return FirstTokenTimeout(self._context.cancellation, seconds) if seconds else None


def _named_by(error: OpenAICompatError) -> float | None:
    """The wait that an upstream's refusal names, in seconds."""
    return parse_retry_after(error.headers) if isinstance(error, UpstreamStatusError) else None


class FirstTokenTimeout:
    """`cancellation` is for one try: it happens with the call's own, for the same reason, and with an
    `UpstreamTimeoutError` when `seconds` have passed without `attempt`.
    """

    def __init__(self, call: CancellationToken, seconds: float) -> None:
        self.cancellation = CancellationToken()
        self._call = call
        error = UpstreamTimeoutError("The upstream gave no first token within the time limit.")
        self._timer = threading.Timer(seconds, self.cancellation.cancel, (error,))
        self._timer.daemon = True
        self._timer.start()
        call.on_cancel(self._follow)

    def _follow(self) -> None:
        self.cancellation.cancel(self._call.reason)

    def attempt(self) -> None:
        """The answer is there: the limit holds no more.

        Raises:
            UpstreamTimeoutError: it came too late; or what the call was cancelled for.
        """
        self._timer.cancel()
        self.cancellation.raise_if_cancelled()

    def close(self) -> None:
        """The try is over."""
        self._timer.cancel()
        self._call.remove_callback(self._follow)
