"""The pipelines of the models file, each loaded when it is first asked for, and once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import httpx

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
from .transport import ModelsTransport, UpstreamTransport, current_run

log = logging.getLogger(__name__)

NESTED: Final = "openai_compat.sidecars.haystack.registry:ForbiddenPipeline"
RETRY_INTERVAL: Final = 10.0
"""For how long a failed load is remembered, so that not every call tries again."""
JSON = dict[str, Any]
Emit = Callable[[ChatDelta], None]


@dataclass(frozen=True, slots=True)
class Transports:
    """How components call models: those of this server, and others. `has_default` tells whether there is an upstream
    for models that no row names; `without_usage` names the models that must not be asked for a stream's usage.
    """

    to_models: httpx.BaseTransport
    to_upstreams: httpx.BaseTransport
    has_default: bool
    without_usage: frozenset[str] = frozenset()


class PipelineRegistry:
    """`settings` are the workers'. The models that pipelines ask are served by an application within this process."""

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
        """Answers one call, each piece handed to `emit` when a component produces it. `headers` takes what the answer's
        are to say of it.

        Raises:
            OpenAICompatError, Abandoned; whatever the pipeline's components raise.
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
        from .introspection import describe

        return describe(self.model(name).loaded())

    def close(self) -> None:
        self._forwarder.close()


class PipelineModel:
    """One row: its pipeline when that is loaded, or why it could not be."""

    def __init__(self, entry: ModelConfig, catalog: PipelineRegistry) -> None:
        self._entry = entry
        self._catalog = catalog
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._problem: OpenAICompatError | None = None
        self._retry_at = 0.0
        self._places = threading.BoundedSemaphore(entry.options.get("concurrency", 32))

    def loaded(self) -> Any:
        """The pipeline. Who comes while it is being loaded waits for it.

        Raises:
            InternalError: it cannot be loaded; remembered for a while.
        """
        if self._loaded is not None:
            return self._loaded
        with self._lock:
            if self._loaded is None:
                self._load()
        return self._loaded

    def _load(self) -> None:
        if self._problem is not None and time.monotonic() < self._retry_at:
            raise self._problem.with_traceback(None)
        from .loading import load

        started = time.monotonic()
        try:
            self._loaded = load(self._entry, self._catalog.transports)
        except Exception as error:
            log.exception("the pipeline '%s' could not be loaded", self._entry.name)
            reason = str(error) if isinstance(error, PipelineMismatchError) else "the server's log has the reason"
            self._problem = InternalError(f"The pipeline '{self._entry.name}' could not be loaded: {reason}.")
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            raise self._problem from error
        facts = {"model": self._entry.name, "seconds": round(time.monotonic() - started, 1)}
        log.info("pipeline loaded", extra={"fields": facts})

    def chat(self, request: JSON, emit: Emit, context: CallContext) -> None:
        from .execution import PipelineRun

        loaded = self.loaded()
        while not self._places.acquire(timeout=0.25):
            context.cancellation.raise_if_cancelled()
        try:
            current_run.set(context)
            PipelineRun(loaded, request, emit, self._catalog.conversations).answer()
        finally:
            self._places.release()


def _without_usage(entries: Mapping[str, ModelConfig]) -> Iterator[str]:
    """The models that would refuse the call for it, as their profiles are strict, and those that may lead there."""
    strict = {name for name, entry in entries.items() if _refuses_usage(entry)}
    for name, entry in entries.items():
        reached = {*entry.routing.targets, *entry.routing.fallbacks} if entry.routing else set()
        if name in strict or not strict.isdisjoint(reached):
            yield name


def _refuses_usage(entry: ModelConfig) -> bool:
    return entry.profile is not None and entry.profile.strict and entry.profile.strips("stream_options")


def to_inner_settings(settings: Settings) -> Settings:
    """Those of the application that serves the models to the pipelines: without keys, as nobody else can call it, and
    with each pipeline's own model in the pipeline's place.
    """
    return replace(
        settings,
        entries=_with_own_models(settings.entries, settings),
        hidden_entries=_with_own_models(settings.hidden_entries, settings),
        api_keys=(),
        model_allow_list=(),
        max_concurrent_requests=0,  # the workers have taken these calls in already
        sse_keepalive_seconds=0.0,
    )


def _with_own_models(entries: Mapping[str, ModelConfig], settings: Settings) -> dict[str, ModelConfig]:
    return {name: _to_own_model(entry, settings) for name, entry in entries.items()}


def _to_own_model(entry: ModelConfig, settings: Settings) -> ModelConfig:
    """What a pipeline asks under its own name: its `base_url`, or else the default upstream."""
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
        return ModelConfig(entry.name, NESTED)
    return replace(upstream, name=entry.name, upstream_model=entry.upstream_model or entry.name)


class ForbiddenPipeline(Backend):
    """Stands for a pipeline among the models that pipelines ask, and can do nothing: no pipeline asks another."""
