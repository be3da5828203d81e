"""Background responses, which go on without their client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from openai_compat.accounts.stream_size import StreamSize
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, InternalError, OpenAICompatError, StorageUnavailableError
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.services.event_stream import EventStream
from openai_compat.services.inference import Answer
from openai_compat.services.openai_objects import to_json
from openai_compat.services.sse_events import split_events

from .lifecycle import Lifecycle
from .objects import to_failed
from .state import CallState
from .store import ResponseStore

if TYPE_CHECKING:
    from openai_compat.storage.leases import Lease

log = logging.getLogger(__name__)

FLUSH_INTERVAL: Final = 0.25
"""Seconds for which events are collected, so that a fast model costs four transactions a second."""
WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks for responses that were cancelled, perhaps by another worker, or deleted."""
RETRY_DELAYS: Final = (1, 2, 4, 8, 15)
"""Seconds between the attempts to store an end, together those for which the lease is valid without renewal."""

T = TypeVar("T")
StartAnswer = Callable[[CallContext], Answer]


@dataclass(slots=True)
class BackgroundEnd:
    """How a background response ended.

    `status` is the HTTP status that its end stands for, `error` the code or the type of its error, `first_token_at` the
    value of `time.perf_counter` when the answer started, and `streamed_tokens` the estimate of its tokens.
    """

    status: int = 200
    error: str | None = None
    usage: Usage | None = None
    first_token_at: float | None = None
    streamed_tokens: int = 0

    def fail(self, status: int, error: OpenAICompatError) -> None:
        """Note that it failed."""
        self.status = status
        self.error = error.code or error.type


EndWork = Callable[[BackgroundEnd], None]


class BackgroundJob:
    """Work on one background response.

    `finished` returns the response that has ended, once the answer was read to its end.
    """

    def __init__(
        self,
        store: ResponseStore,
        state: CallState,
        lifecycle: Lifecycle,
        start: StartAnswer,
        finished: Callable[[], Mapping[str, Any]],
        *,
        is_streamed: bool,
    ) -> None:
        self.cancellation = CancellationToken()
        self.is_streamed = is_streamed
        self.end = BackgroundEnd()
        self._size = StreamSize(has_deltas=True)
        self._store = store
        self._state = state
        self._lifecycle = lifecycle
        self._start = start
        self._finished = finished
        self._events: list[str] = []
        self._stored_events = 0
        self._lease: Lease | None = None

    @property
    def id(self) -> str:
        """The id of the response."""
        return str(self._lifecycle.response["id"])

    def queue(self) -> Mapping[str, Any]:
        """Store the response and return it.

        Raises:
            StorageUnavailableError
        """
        self._lease = self._store.reserve(self.id)
        try:
            self._add(self._lifecycle.queue())
            self._state.save(self._lifecycle.response, to_json(self._lifecycle.response))
            self._flush()
        except BaseException:
            self._lease.release()
            raise
        return self._lifecycle.response

    def run(self, context: CallContext) -> None:
        """Work until the response has ended, by itself or by a cancellation. Failures become its status.

        Raises:
            StorageUnavailableError: the end could not be stored. The response fails once its lease has expired.
        """
        try:
            self._answer(context)
        except CallCancelledError as error:
            self.end.fail(error.status, error)
            log.info("the background response %s was cancelled", self.id)
        except StorageUnavailableError as error:
            self.end.fail(500, error)
            raise
        except OpenAICompatError as error:
            self._fail(error)
        except Exception:
            log.exception("a background response failed")
            self._fail(InternalError())
        finally:
            self.end.streamed_tokens = self._size.tokens
            self._state.release()
            if self._lease is not None:
                self._lease.release()

    def _answer(self, context: CallContext) -> None:
        self._add(self._lifecycle.proceed())
        if not self._store_progress(self._lifecycle.response):
            raise CallCancelledError
        answer = self._start(context)
        self.end.first_token_at = time.perf_counter()
        if isinstance(answer, EventStream):
            try:
                self._read(answer)
            finally:
                answer.close()
                self.end.usage = answer.usage
        else:
            self.end.usage = answer.usage
        response = self._finished()
        self._persist(lambda: self._state.append(response))
        self._state.release()
        self._end(response)

    def _read(self, stream: EventStream) -> None:
        """Store the events, without the last ones, which are stored together with the end of the response."""
        flushed_at = time.monotonic()
        for block in stream:
            if time.monotonic() - flushed_at >= FLUSH_INTERVAL:
                with suppress(StorageUnavailableError):  # the next flush stores these events as well
                    self._flush()
                flushed_at = time.monotonic()
            if not isinstance(block, Heartbeat):
                self._size.add(block)
                self._add(block)

    def _fail(self, error: OpenAICompatError) -> None:
        log.warning("the background response %s failed: %s", self.id, error.message)
        self.end.fail(500, error)
        self._add(self._lifecycle.fail(error))
        self._end(to_failed(self._lifecycle.response, error))

    def _end(self, response: Mapping[str, Any]) -> None:
        """Store the response that has ended, unless it was cancelled or deleted."""
        self._store_progress(response)

    def _store_progress(self, response: Mapping[str, Any]) -> bool:
        """Store the response and its new events. Return False if it was cancelled or deleted."""
        events = self._take_events()
        return self._persist(lambda: self._store.proceed(self._state.owner, response, events))

    def _persist(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, which is repeated while the database is away.

        A short outage then loses no long answer.
        """
        for delay in RETRY_DELAYS:
            try:
                return work()
            except StorageUnavailableError:
                self.cancellation.wait(delay)
        return work()

    def _add(self, block: bytes) -> None:
        if self.is_streamed:
            self._events += (event.decode() for event in split_events(block))

    def _take_events(self) -> Sequence[tuple[int, str]]:
        events, self._events = self._events, []
        first = self._stored_events
        self._stored_events += len(events)
        return list(enumerate(events, first))

    def _flush(self) -> None:
        if self._events:
            self._store.add_events(self._state.owner, self.id, list(enumerate(self._events, self._stored_events)))
            self._take_events()


class BackgroundRunner:
    """Background responses of this process, each in a thread (under gevent, a greenlet)."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._running: dict[str, CancellationToken] = {}
        self._is_watching = False

    @property
    def is_idle(self) -> bool:
        """True if no response is being worked on."""
        return not self._running

    def start(self, job: BackgroundJob, context: CallContext, end: EndWork) -> None:
        """Run a job that was queued, and call `end` once it has ended."""
        interval = FLUSH_INTERVAL if job.is_streamed else 0.0
        detached = replace(
            context, cancellation=job.cancellation, reply_headers={}, heartbeat_interval=interval, resends=[]
        )
        self._running[job.id] = job.cancellation
        run = copy_context().run
        threading.Thread(target=run, args=(self._run, job, detached, end), daemon=True).start()
        if not self._is_watching:
            self._is_watching = True
            threading.Thread(target=self._watch, daemon=True).start()

    def cancel_all(self, reason: OpenAICompatError) -> None:
        """End all responses with `reason` as their error."""
        for cancellation in list(self._running.values()):
            cancellation.cancel(reason)

    def _run(self, job: BackgroundJob, context: CallContext, end: EndWork) -> None:
        try:
            job.run(context)
        except StorageUnavailableError as error:
            log.warning("the end of the background response %s could not be stored: %s", job.id, error.message)
        finally:
            del self._running[job.id]
            end(job.end)

    def _watch(self) -> None:
        while self._running:
            time.sleep(WATCH_INTERVAL)
            running = dict(self._running)
            try:
                active = self._store.active_among(running)
            except StorageUnavailableError:
                continue
            for id in running.keys() - active:
                running[id].cancel()
        self._is_watching = False
