"""Mid-stream recovery, in which another model continues a stream that broke off.

It is switched on by `on_stream_break: continue` in the models file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, NoReturn

from openai_compat.core.errors import (
    BackendError,
    CallCancelledError,
    OpenAICompatError,
    UpstreamError,
    UpstreamStatusError,
)
from openai_compat.core.streams import HEARTBEAT, BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.failover import Attempt, FailoverExecutor
from openai_compat.routing.failure_policy import classify
from openai_compat.routing.route import Target

from .continuation import Continuation, DivergedError
from .event_stream import EventStream
from .failover_streams import record_end

log = logging.getLogger(__name__)

OpenStream = Callable[[Target, CallContext], EventStream]
"""Send the call to one target, as the continuation says. Return its stream, primed, whose texts pass the filter."""

OnRouted = Callable[[FailoverExecutor[Any]], None]
"""Report the executor's last target and number of attempts."""


class RecoveringStream(EventStream):
    """The events of the first target that answers and, after a break, those of the next one, as one stream.

    The next target is asked to continue the text that was sent, where its model supports that. Otherwise it is asked
    from the start: the repeated beginning is dropped, and an answer that differs from it is not used. If no target is
    left, the break is an error. A break within a tool call, within reasoning, or after the finish reason is an error at
    once.

    `on_routed` gets the executor each time that other targets were asked to continue.

    Raises:
        The constructor: what `FailoverExecutor.run` raises.
    """

    def __init__(
        self,
        failover: FailoverExecutor[EventStream],
        continuation: Continuation,
        open_stream: OpenStream,
        context: CallContext,
        *,
        on_routed: OnRouted,
    ) -> None:
        self._failover = failover
        self._continuation = continuation
        self._open_stream = open_stream
        self._heartbeat_interval = context.heartbeat_interval
        self._resends = context.resends
        self._on_routed = on_routed
        self._breaks: list[UpstreamError] = []
        self._silent_since = 0.0
        self._pending: BackgroundStart[Attempt[EventStream]] | None = None
        self._use(failover.run(self._start_first))

    def _use(self, attempt: Attempt[EventStream]) -> None:
        self._attempt = attempt
        self._events = iter(attempt.result)
        if not self._continuation.is_resumed:
            self.headers = attempt.result.headers

    @property
    def usage(self) -> Usage | None:
        return self._attempt.result.usage

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return self

    def __next__(self) -> bytes | Heartbeat:
        while self._pending is None:
            try:
                block = next(self._events)
            except StopIteration:
                if not self._continuation.is_repeating:
                    self.failure = record_end(self._attempt)
                    raise
                self._reject(DivergedError())
            except DivergedError as error:
                self._reject(error)
            except UpstreamError as error:
                self._start_failover(error)
            except BackendError as error:
                self._attempt.record_failure(error)
                raise
            else:
                if block is HEARTBEAT or not self._continuation.is_repeating:
                    self._continuation.deliver()
                    return block
                if self._is_gap():  # the client has this text, and an end mark would be that of a shorter answer
                    return HEARTBEAT
        return self._poll_failover(self._pending)

    def _is_gap(self) -> bool:
        """Return True if nothing was sent for the heartbeat interval while a target repeats the text."""
        now = monotonic()
        if not self._heartbeat_interval or now - self._silent_since < self._heartbeat_interval:
            return False
        self._silent_since = now
        return True

    def close(self) -> None:
        if self._pending is not None:
            self._pending.close()
        self._attempt.close()

    def _start_failover(self, error: UpstreamError) -> None:
        self._attempt.record_failure(error)
        can_follow = self._continuation.is_possible and self._failover.has_more
        if not can_follow or classify(error).is_clients_fault:
            raise error
        log.warning("'%s' broke off mid-stream, the next target continues: %s", self._attempt.target.model, error)
        self._breaks.append(error.with_traceback(None))  # the traceback refers to this object: a reference cycle
        self._ask_next()

    def _reject(self, error: DivergedError) -> None:
        """Ask the next target in place of one that gives another answer."""
        self._attempt.record_failure(error)
        if not self._failover.has_more:
            self._give_up(error)
        log.warning("'%s' gives another answer, the next target continues", self._attempt.target.model)
        self._ask_next()

    def _ask_next(self) -> None:
        self._attempt.close()
        self._pending = BackgroundStart(lambda: self._failover.run(self._start_next))

    def _poll_failover(self, pending: BackgroundStart[Attempt[EventStream]]) -> bytes | Heartbeat:
        """Return a heartbeat while the next target has not started, and then its first event."""
        if not pending.wait(self._heartbeat_interval or None):
            return HEARTBEAT
        self._pending, self._silent_since = None, monotonic()
        try:
            self._use(pending.result())
        except CallCancelledError:
            raise
        except OpenAICompatError as error:  # a RequestError, too: the client asked for another model
            self._give_up(error)
        finally:
            self._on_routed(self._failover)
        return next(self)

    def _give_up(self, error: Exception) -> NoReturn:
        """Raise the error of the first break, because the next target does not continue the answer."""
        log.warning("no other target continues the answer: %s", error)
        raise self._breaks.pop(0) from error

    def _start_first(self, target: Target, context: CallContext) -> EventStream:
        self._continuation.begin()
        return self._open_stream(target, context)

    def _start_next(self, target: Target, context: CallContext) -> EventStream:
        if self._continuation.ask_for_rest(target.backend.entry.assistant_prefill):
            try:
                return self._open_stream(target, context)
            except UpstreamStatusError as error:
                if classify(error).try_next:
                    raise
                log.info("'%s' does not continue a partial answer and is asked from the start", target.model)
                self._resends.append(target.model)
        self._continuation.ask_from_start()
        return self._open_stream(target, context)
