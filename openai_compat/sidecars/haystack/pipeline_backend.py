"""Backend of the sidecar, which loads a pipeline at its first use and runs it in a thread for each call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import Any, Final

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.backends.haystack.backend import HaystackBackend
from openai_compat.backends.resources import BackendResources
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import CallCancelledError, InternalError, OpenAICompatError
from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import CallContext, ChatDelta, ChatRequest

from .conversations import Conversations
from .errors import ClientDisconnected, PipelineMismatchError, to_known_error
from .transport import Transports, pipeline_context

log = logging.getLogger(__name__)

RETRY_INTERVAL: Final = 10.0
"""Seconds for which a failed load is remembered, so that not every call repeats it."""
POLL_INTERVAL: Final = 0.25
MAX_BUFFERED: Final = 64
"""Deltas that a pipeline may be ahead of its client."""


class PipelineBackend(Backend, SupportsChat):
    """Backend for one pipeline, with the loaded pipeline or the error of the last attempt to load it."""

    supported_chat_parameters = HaystackBackend.supported_chat_parameters

    def __init__(
        self,
        entry: ModelConfig,
        resources: BackendResources,
        transports: Callable[[], Transports],
        conversations: Conversations,
    ) -> None:
        super().__init__(entry, HaystackBackend.Options(**entry.options), resources)
        self._transports = transports
        self._conversations = conversations
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._error: OpenAICompatError | None = None
        self._retry_at = 0.0
        self._slots = threading.BoundedSemaphore(self.options.concurrency)
        self._running: set[int] = set()

    def report(self) -> Mapping[str, Any]:
        """Return whether the pipeline is loaded, and the number of its calls that run or wait."""
        return {"is_loaded": self._loaded is not None, "calls": len(self._running)}

    def load(self) -> Any:
        """Return the loaded pipeline. Concurrent callers wait while one of them loads it.

        Raises:
            InternalError: the pipeline cannot be loaded. The error is repeated for `RETRY_INTERVAL` seconds.
        """
        if self._loaded is not None:
            return self._loaded
        with self._lock:
            if self._loaded is None:
                self._try_load()
        return self._loaded

    def _try_load(self) -> None:
        if self._error is not None and time.monotonic() < self._retry_at:
            raise self._error.with_traceback(None)
        from .loading import load

        started = time.monotonic()
        try:
            self._loaded = load(self.entry, self._transports())
        except Exception as error:
            log.exception("the pipeline '%s' could not be loaded", self.name)
            reason = str(error) if isinstance(error, PipelineMismatchError) else "the server's log has the reason"
            self._error = InternalError(f"The pipeline '{self.name}' could not be loaded: {reason}.")
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            raise self._error from error
        fields = {"model": self.name, "seconds": round(time.monotonic() - started, 1)}
        log.info("pipeline loaded", extra={"fields": fields})

    def describe(self) -> Mapping[str, Any]:
        """Return the description of the pipeline, loading it if necessary.

        Raises:
            InternalError: the pipeline cannot be loaded.
        """
        from .introspection import describe

        return describe(self.load())

    def chat(self, request: ChatRequest, context: CallContext) -> Iterator[ChatDelta]:
        """Yield the deltas of the pipeline as its components produce them.

        `context.conversation_id` is the key of the stored conversation.
        """
        cancellation = CancellationToken()  # cancelled with the call, and when the stream is closed
        deltas = _DeltaQueue(cancellation)
        own_context = replace(context, cancellation=cancellation)
        context.cancellation.on_cancel(cancellation.cancel)
        thread = threading.Thread(
            target=copy_context().run, args=(self._run, request, deltas, own_context), daemon=True
        )
        thread.start()
        try:
            while (delta := deltas.get()) is not None:
                yield delta
        finally:
            context.cancellation.remove_callback(cancellation.cancel)
            cancellation.cancel()

    def _run(self, request: ChatRequest, deltas: _DeltaQueue, context: CallContext) -> None:
        """Run the pipeline and put its deltas into the queue, and last its error or None."""
        end: OpenAICompatError | None = None
        self._running.add(threading.get_ident())
        try:
            self._run_pipeline(request, deltas, context)
        except ClientDisconnected:
            end = CallCancelledError()
        except Exception as error:  # noqa: BLE001 - components raise anything; `to_known_error` logs it
            end = to_known_error(error)
        finally:
            self._running.discard(threading.get_ident())
        with suppress(ClientDisconnected):
            deltas.put(end)

    def _run_pipeline(self, request: ChatRequest, deltas: _DeltaQueue, context: CallContext) -> None:
        from .execution import PipelineRun

        loaded = self.load()
        while not self._slots.acquire(timeout=POLL_INTERVAL):
            context.cancellation.raise_if_cancelled()
        try:
            pipeline_context.set(context)
            PipelineRun(loaded, request, deltas.put, self._conversations, context.conversation_id).answer()
        finally:
            self._slots.release()


class _DeltaQueue:
    """Bounded queue from the thread that runs a pipeline. Both of its ends stop waiting when the call is cancelled."""

    def __init__(self, cancellation: CancellationToken) -> None:
        self._cancellation = cancellation
        self._items: Queue[ChatDelta | OpenAICompatError | None] = Queue(MAX_BUFFERED)

    def put(self, item: ChatDelta | OpenAICompatError | None) -> None:
        """Append an item, waiting while the client reads slowly.

        Raises:
            ClientDisconnected
        """
        while not self._cancellation.is_cancelled:
            with suppress(Full):
                return self._items.put(item, timeout=POLL_INTERVAL)
        raise ClientDisconnected

    def get(self) -> ChatDelta | None:
        """Return the next delta, or None at the end.

        Raises:
            OpenAICompatError: the pipeline's error.
            CallCancelledError: raised within `POLL_INTERVAL`, also while a component computes.
        """
        while True:
            self._cancellation.raise_if_cancelled()
            with suppress(Empty):
                item = self._items.get(timeout=POLL_INTERVAL)
                if isinstance(item, OpenAICompatError):
                    raise item
                return item
