"""Registry of the pipelines that the models file configures, each loaded once at its first use."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from openai_compat.app import create_app
from openai_compat.backends.auth.base import USER_TOKEN
from openai_compat.backends.base import Backend
from openai_compat.backends.haystack.backend import KIND
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import InternalError, OpenAICompatError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext, ChatDelta

from .conversations import Conversations, MemoryConversations
from .errors import PipelineMismatchError
from .transport import ModelsTransport, Transports, UpstreamTransport, pipeline_context

log = logging.getLogger(__name__)

FORBIDDEN: Final = "openai_compat.sidecars.haystack.registry:ForbiddenPipeline"
RETRY_INTERVAL: Final = 10.0
"""Seconds for which a failed load is remembered, so that not every call repeats it."""
CONCURRENCY_POLL_INTERVAL: Final = 0.25
JSON = dict[str, Any]
Emit = Callable[[ChatDelta], None]


class PipelineRegistry:
    """Registry of all pipelines. `settings` are the workers' settings.

    An application inside this process serves the models that pipelines call.
    """

    def __init__(self, settings: Settings, conversations: Conversations | None = None) -> None:
        self._settings = settings
        self.conversations = conversations or MemoryConversations()
        self._forwarder = UpstreamClient(settings)
        self._models = {
            name: PipelineModel(entry, self)
            for name, entry in {**settings.hidden_entries, **settings.entries}.items()
            if entry.kind == KIND
        }

    @cached_property
    def transports(self) -> Transports:
        app = create_app(to_inner_settings(self._settings))
        return Transports(
            ModelsTransport(app),
            UpstreamTransport(self._forwarder, self._settings.timeouts),
            has_default=self._settings.default_upstream is not None,
            without_usage=frozenset(_without_usage({**self._settings.hidden_entries, **self._settings.entries})),
        )

    def model(self, name: str) -> PipelineModel:
        return self._models[name]

    def chat(
        self, request: JSON, emit: Emit, cancellation: CancellationToken, headers: dict[str, str] | None = None
    ) -> None:
        """Answer one call and pass each delta to `emit` when a component produces it.

        Headers of the answer, such as the adaptations, are added to `headers` before the first delta.

        Raises:
            OpenAICompatError
            ClientDisconnected
            Exception: anything that the pipeline's components raise.
        """
        token = request.get("user_token")
        context = CallContext(
            request["request_id"],
            cancellation,
            authorization=request["authorization"],
            sent_header={USER_TOKEN: token}.get,
            reply_headers={} if headers is None else headers,
        )
        self.model(request["model"]).chat(request, emit, context)

    def describe(self, name: str) -> JSON:
        """Return the description of a pipeline, loading it if necessary.

        Raises:
            InternalError: the pipeline cannot be loaded.
        """
        from .introspection import describe

        return describe(self.model(name).load())

    def close(self) -> None:
        """Close the connections to upstreams."""
        self._forwarder.close()


class PipelineModel:
    """One model config with its loaded pipeline, or the error of the last attempt to load it."""

    def __init__(self, entry: ModelConfig, registry: PipelineRegistry) -> None:
        self._entry = entry
        self._registry = registry
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._error: OpenAICompatError | None = None
        self._retry_at = 0.0
        self._slots = threading.BoundedSemaphore(entry.options.get("concurrency", 32))

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
            self._loaded = load(self._entry, self._registry.transports)
        except Exception as error:
            log.exception("the pipeline '%s' could not be loaded", self._entry.name)
            reason = str(error) if isinstance(error, PipelineMismatchError) else "the server's log has the reason"
            self._error = InternalError(f"The pipeline '{self._entry.name}' could not be loaded: {reason}.")
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            raise self._error from error
        fields = {"model": self._entry.name, "seconds": round(time.monotonic() - started, 1)}
        log.info("pipeline loaded", extra={"fields": fields})

    def chat(self, request: JSON, emit: Emit, context: CallContext) -> None:
        """Run the pipeline for one call, after waiting for one of the model's `concurrency` slots.

        Raises:
            CallCancelledError: the client disconnected while the call waited.
            Exception: see `PipelineRegistry.chat`.
        """
        from .execution import PipelineRun

        loaded = self.load()
        while not self._slots.acquire(timeout=CONCURRENCY_POLL_INTERVAL):
            context.cancellation.raise_if_cancelled()
        try:
            pipeline_context.set(context)
            PipelineRun(loaded, request, emit, self._registry.conversations).answer()
        finally:
            self._slots.release()


def _without_usage(entries: Mapping[str, ModelConfig]) -> Iterator[str]:
    """Yield the models that a streamed call must not ask for usage.

    These are the models whose strict profile rejects `stream_options`, and the models that route to one of them.
    """
    strict = {name for name, entry in entries.items() if _rejects_usage(entry)}
    for name, entry in entries.items():
        targets = {*entry.routing.targets, *entry.routing.fallbacks} if entry.routing else set()
        if name in strict or not strict.isdisjoint(targets):
            yield name


def _rejects_usage(entry: ModelConfig) -> bool:
    return entry.profile is not None and entry.profile.strict and entry.profile.strips("stream_options")


def to_inner_settings(settings: Settings) -> Settings:
    """Return the settings of the application that serves models to the pipelines.

    It has no API keys, because only this process can call it. Each pipeline's name stands for the pipeline's own model.
    """
    return replace(
        settings,
        entries=_with_own_models(settings.entries, settings),
        hidden_entries=_with_own_models(settings.hidden_entries, settings),
        api_keys=(),
        model_allow_list=(),
        max_concurrent_requests=0,  # the workers have already admitted these calls
        sse_keepalive_seconds=0.0,
    )


def _with_own_models(entries: Mapping[str, ModelConfig], settings: Settings) -> dict[str, ModelConfig]:
    return {name: _to_own_model(entry, settings) for name, entry in entries.items()}


def _to_own_model(entry: ModelConfig, settings: Settings) -> ModelConfig:
    """Return the model that a pipeline calls under its own name, at its `base_url` or else the default upstream."""
    if entry.kind != KIND:
        return entry
    if entry.base_url:
        return ModelConfig(
            entry.name,
            "openai",
            base_url=entry.base_url,
            upstream_model=entry.upstream_model,
            api_key=entry.api_key,
            headers=entry.headers,
            timeouts=entry.timeouts,
            max_concurrent=entry.max_concurrent,
        )
    upstream = settings.default_upstream
    if upstream is None or entry.options.get("generator"):
        return ModelConfig(entry.name, FORBIDDEN)
    return replace(upstream, name=entry.name, upstream_model=entry.upstream_model or entry.name)


class ForbiddenPipeline(Backend):
    """Backend without capabilities that replaces pipelines inside the sidecar, so that no pipeline calls another."""
