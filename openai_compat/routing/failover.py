"""One call's way through its plan: tries, waits, falls back, until somebody has begun to answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from time import perf_counter
from typing import Generic, TypeVar

from openai_compat.core.cancellation import Cancellation
from openai_compat.core.errors import (
    CallCancelledError,
    OpenAICompatError,
    RequestError,
    UpstreamStatusError,
    UpstreamTimeoutError,
)
from openai_compat.core.streams import close_stream
from openai_compat.core.types import CallContext

from .circuit_breaker import Admission
from .failure_policy import judge
from .retry import Backoff, named_wait
from .route import Plan, Target

log = logging.getLogger(__name__)

T = TypeVar("T")
Attempt = Callable[[Target, CallContext], T]
"""Asks one target; returns when its answer has begun (a stream: with its first token), or raises what went wrong."""


class Begun(Generic[T]):
    """One try, and the answer that came of it. `ended` or `failed` tell how it ended; `close` ends it on every path."""

    def __init__(self, plan: Plan, target: Target, admission: Admission, limit: FirstTokenLimit | None) -> None:
        self.target = target
        self._results: list[T] = []
        self._plan = plan
        self._admission = admission
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
        self._plan.health.answers(self.target.model)
        self._plan.balancer.answered(self.target.model, perf_counter() - self._began)

    def ended(self) -> None:
        """The answer came to its proper end."""
        self._plan.health.succeeded(self.target.model)

    def failed(self, error: OpenAICompatError) -> None:
        """The target is given up by this call."""
        verdict = judge(error)
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


class Failover(Generic[T]):
    """Finds somebody in `plan` who answers one call.

    `limits_first_token` says whether the targets' `first_token` holds (it does for streams). Where `may_repeat` is not
    set the call may have effects beyond its answer, and nobody else is asked unless an upstream said that it did
    nothing. `attempts`, `target` and `is_fallback` tell what has happened so far.
    """

    def __init__(
        self, plan: Plan, context: CallContext, *, limits_first_token: bool = False, may_repeat: bool = True
    ) -> None:
        self.attempts = 0
        self.target: Target | None = None
        self._plan = plan
        self._context = context
        self._limits_first_token = limits_first_token
        self._may_repeat = may_repeat
        self._backoff = Backoff(plan.policy.longest_wait)
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

    def answer(self, attempt: Attempt[T]) -> Begun[T]:
        """The first answer to be had. Called again, it goes on with those who have not been asked yet.

        Raises:
            what the last upstream that was asked had to say; CallCancelledError.
        """
        for target, admission in self._admitted():
            begun = self._ask(target, admission, attempt)
            if begun is not None:
                self._failure = None
                return begun
        raise self._take_failure()

    def _take_failure(self) -> Exception:
        """Forgets it as well: its traceback holds this object, and the two would wait for the collector."""
        failure, self._failure = self._failure, None
        return failure or RuntimeError("nobody is left to ask")

    def _admitted(self) -> Iterator[tuple[Target, Admission]]:
        """Those who may be asked, in turn; and at last those who were to be left alone: better they than nobody."""
        left_alone = []
        while self._waiting:
            target = self._waiting.pop(0)
            admission = self._plan.health.admit(target.model) if self._can_help(target) else None
            if admission is not None:
                yield target, admission
            else:
                left_alone.append(target)
        for target in left_alone:
            if self._can_help(target):
                yield target, Admission.NORMAL

    def _can_help(self, target: Target) -> bool:
        """Whether `target` may do better than the one that failed."""
        if self._failure is None or self._failed_at is None or not judge(self._failure).needs_window:
            return True
        if self._plan.policy.context_fallback == "always":
            return True
        known, offered = self._failed_at.window, target.window
        return known is not None and offered is not None and offered > known

    def _ask(self, target: Target, admission: Admission, attempt: Attempt[T]) -> Begun[T] | None:
        """The answer of `target`, after as many tries as it gets; None when somebody else is to be asked."""
        self.target = target
        for retry in count():
            self.attempts += 1
            begun: Begun[T] = Begun(self._plan, target, admission, self._limit_for(target))
            try:
                begun.answered(self._try(begun, attempt))
                return begun
            except OpenAICompatError as error:
                begun.close()
                if self._context.cancellation.is_cancelled:  # whatever else it looks like
                    self._plan.health.release(target.model, admission)
                    raise
                wait = self._wait_before_retry(error, admission, retry)
                if wait is None:
                    begun.failed(error)
                    self._give_up(target, error)
                    return None
                log.info("'%s' is asked again in %.2f s: %s", target.model, wait, error.message)
            except BaseException:
                begun.close()
                self._plan.health.release(target.model, admission)
                raise
            self._wait(target, admission, wait)
        raise AssertionError("count() has no end")

    def _try(self, begun: Begun[T], attempt: Attempt[T]) -> T:
        """One try, within the limit for its first token if it has one."""
        self._context.reply_headers.clear()  # what a try before this one said of its request
        limit = begun.limit
        if limit is None:
            self._context.cancellation.raise_if_cancelled()
            return attempt(begun.target, self._context)
        try:
            result = attempt(begun.target, replace(self._context, cancellation=limit.cancellation))
        except CallCancelledError:  # from what does not ask for the reason
            limit.cancellation.raise_if_cancelled()
            raise
        try:
            limit.begun()
        except OpenAICompatError:
            close_stream(result)
            raise
        return result

    def _wait(self, target: Target, admission: Admission, seconds: float) -> None:
        try:
            self._context.cancellation.wait(seconds)
        except OpenAICompatError:
            self._plan.health.release(target.model, admission)
            raise

    def _wait_before_retry(self, error: OpenAICompatError, admission: Admission, retry: int) -> float | None:
        """Seconds until the same target is asked again; None where it is not."""
        verdict = judge(error)
        # What finds out whether an upstream is back need not find out twice.
        if not verdict.retries or retry >= self._plan.policy.retries or admission is Admission.PROBE:
            return None
        if not (self._may_repeat or verdict.did_nothing):
            return None
        return self._backoff.seconds_before(retry, _named_by(error))

    def _give_up(self, target: Target, error: OpenAICompatError) -> None:
        """Remembers the failure, to be told if nobody does better.

        Raises:
            OpenAICompatError: `error` itself, where nobody is to be asked any more.
        """
        verdict = judge(error)
        if isinstance(error, RequestError) and self._plan.is_fallback(target):
            # It lacks a capability. The client asked for another model, and is to hear what is wrong with that one.
            self._failure = self._failure or error
            return
        if not (verdict.falls_back and (self._may_repeat or verdict.did_nothing)):
            raise error
        log.warning("'%s' is given up for this call: %s", target.model, error.message)
        self._failure, self._failed_at = error, target

    def _limit_for(self, target: Target) -> FirstTokenLimit | None:
        seconds = target.backend.entry.timeouts.first_token if self._limits_first_token else 0.0
        return FirstTokenLimit(self._context.cancellation, seconds) if seconds else None


def _named_by(error: OpenAICompatError) -> float | None:
    """The wait that an upstream's refusal names, in seconds."""
    return named_wait(error.headers) if isinstance(error, UpstreamStatusError) else None


class FirstTokenLimit:
    """`cancellation` is for one try: it happens with the call's own, for the same reason, and with an
    `UpstreamTimeoutError` when `seconds` have passed without `begun`.
    """

    def __init__(self, call: Cancellation, seconds: float) -> None:
        self.cancellation = Cancellation()
        self._call = call
        error = UpstreamTimeoutError("The upstream gave no first token within the time limit.")
        self._timer = threading.Timer(seconds, self.cancellation.cancel, (error,))
        self._timer.daemon = True
        self._timer.start()
        call.on_cancel(self._follow)

    def _follow(self) -> None:
        self.cancellation.cancel(self._call.reason)

    def begun(self) -> None:
        """The answer is there: the limit holds no more.

        Raises:
            UpstreamTimeoutError: it came too late; or what the call was cancelled for.
        """
        self._timer.cancel()
        self.cancellation.raise_if_cancelled()

    def close(self) -> None:
        """The try is over."""
        self._timer.cancel()
        self._call.forget(self._follow)
