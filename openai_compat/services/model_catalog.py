"""The list of models, those configured here and the cached ones of the default upstream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from time import monotonic
from typing import Final

from openai_compat.backends.base import CAPABILITIES, SupportsForwarding
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.parsing.openai_errors import read_error
from openai_compat.core.anthropic import VERSION_HEADER
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import OpenAICompatError, UpstreamInvalidResponseError, UpstreamStatusError
from openai_compat.core.large_json import parse_json
from openai_compat.core.settings import Settings
from openai_compat.core.streams import BackgroundStart
from openai_compat.core.types import JSON, CallContext
from openai_compat.routing.router import ModelRouter, Route

log = logging.getLogger(__name__)

FIRST_FETCH_TIMEOUT: Final = 2.0
"""Seconds that callers wait for the upstream's first list, counted from the request for it."""
RETRY_INTERVAL: Final = 5.0
"""Seconds for which a failure is cached, so that not every caller asks again."""
NO_LIST: Final = frozenset({404, 405, 501})
"""Statuses of an upstream that has no list of models."""
MAX_CALLERS: Final = 256
NOT_SHARED: Final = frozenset({"range", "if-range", "if-none-match", "if-modified-since", VERSION_HEADER})
"""Headers that ask for a part of an answer, for none, or for another form. The cached answer is shared, so they are not
sent."""


class ModelCatalog:
    """The models endpoint."""

    def __init__(self, settings: Settings, routing: ModelRouter) -> None:
        self._routing = routing
        self._allowed = settings.model_allow_list
        upstream = routing.forwarding_upstream
        self._upstream = UpstreamModelCache(upstream, settings.models_cache_ttl) if upstream else None

    def list_all(self, context: CallContext) -> JSON:
        """Return every model that this server answers for.

        These are the names of `MODEL_ALLOW_LIST` if the default upstream has no list.

        Raises:
            UpstreamError: the default upstream failed, and no other model is configured.
        """
        models = {route.model: to_model_object(route) for route in self._routing.routes()}
        for model in self._upstream_models(context, is_alone=not models):
            if isinstance(model.get("id"), str) and self._routing.allows(model["id"]):
                models.setdefault(model["id"], model)
        return {"object": "list", "data": list(models.values())}

    def context_windows(self) -> dict[str, int]:
        """Return the context windows in tokens that are configured, by the models' names."""
        windows = {route.model: route.entry.context_window for route in self._routing.routes()}
        return {name: window for name, window in windows.items() if window is not None}

    def _upstream_models(self, context: CallContext, *, is_alone: bool) -> list[JSON]:
        if self._upstream is None:
            return []
        try:
            return self._upstream.get(context)
        except OpenAICompatError as error:
            if self._allowed and _has_no_list(error):
                return [{"id": name, **_model_object("openai-compat", 0)} for name in self._allowed]
            if is_alone:
                raise
            return []

    def find(self, model: str, context: CallContext) -> JSON | None:
        """Return a model as the list has it, or None.

        Raises:
            UpstreamError: as from `list_all`.
        """
        return next((found for found in self.list_all(context)["data"] if found["id"] == model), None)

    def describe(self, route: Route) -> JSON:
        """Return one configured model with its backend's details."""
        entry = route.entry
        details: JSON = {"metadata": dict(entry.metadata)} if entry.metadata else {}
        if entry.context_window is not None:
            details["context_window"] = entry.context_window
        if entry.is_alias and route.plan is not None:
            backends = [target.backend for target in route.plan.targets.values()]
            details["targets"] = list(route.plan.targets)
        else:
            backends = [route.backend]
            details.update(route.backend.describe())
        capabilities = [
            name for name, kind in CAPABILITIES.items() if all(isinstance(backend, kind) for backend in backends)
        ]
        return {**to_model_object(route), "capabilities": capabilities, **details}


def to_model_object(route: Route) -> JSON:
    """Return OpenAI's model object."""
    entry = route.entry
    return {"id": route.model, **_model_object(entry.owned_by, entry.created)}


def _model_object(owned_by: str, created: int) -> JSON:
    """Return a model object without its id. OpenAI no longer sends `permission`, but older clients read it."""
    return {"object": "model", "created": created, "owned_by": owned_by, "permission": []}


def _has_no_list(error: OpenAICompatError) -> bool:
    """Return True if the upstream answers, but not with a list of models."""
    if isinstance(error, UpstreamStatusError):
        return error.upstream_status in NO_LIST
    return isinstance(error, UpstreamInvalidResponseError)


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    """The result of a fetch, models or an error. After a failed refresh the older models stay."""

    models: list[JSON]
    error: OpenAICompatError | None
    until: float

    def value(self) -> list[JSON]:
        if self.error is not None:
            raise self.error.with_traceback(None)  # raised many times, it would collect a traceback each time
        return self.models


class _Refresh:
    """A fetch in progress."""

    def __init__(self, fetch: Callable[[], list[JSON]]) -> None:
        self.started = monotonic()
        self.pending = BackgroundStart(fetch)

    def wait(self) -> bool:
        return self.pending.wait(max(0.0, self.started + FIRST_FETCH_TIMEOUT - monotonic()))


class UpstreamModelCache:
    """Stale-while-revalidate cache of an upstream's models, one list for each credential.

    An expired list is still returned while a new one is fetched, so that a slow upstream blocks no caller.
    """

    def __init__(self, upstream: SupportsForwarding, seconds: float) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._known: dict[str | None, _CacheEntry] = {}
        self._fetches: dict[str | None, _Refresh] = {}
        self._lock = Lock()

    def get(self, context: CallContext) -> list[JSON]:
        """Return the models, an empty list while the upstream has not answered yet.

        Raises:
            OpenAICompatError: the last fetch failed, and no earlier one succeeded.
        """
        caller = context.authorization
        known = self._known.get(caller)
        if known is not None and monotonic() < known.until:
            return known.value()
        fetch = self._fetch_once(caller, context)
        if known is not None and known.error is None:
            return known.models
        if fetch.wait():
            return fetch.pending.result()
        return known.value() if known is not None else []

    def _fetch_once(self, caller: str | None, context: CallContext) -> _Refresh:
        """Return the caller's fetch in progress, or a new one. It outlives the request that started it."""
        headers = {name: value for name, value in context.headers.items() if name not in NOT_SHARED}
        own = replace(context, headers=headers, cancellation=CancellationToken(), heartbeat_interval=0.0)
        with self._lock:
            if caller not in self._fetches:
                self._fetches[caller] = _Refresh(lambda: self._fetch(caller, own))
            return self._fetches[caller]

    def _fetch(self, caller: str | None, context: CallContext) -> list[JSON]:
        try:
            models = self._request(context)
            self._store(caller, _CacheEntry(models, None, monotonic() + self._seconds))
            return models
        except OpenAICompatError as error:
            log.warning("the upstream's list of models is not available: %s", error.message)
            self._store_failure(caller, error)
            raise
        finally:
            with self._lock:
                self._fetches.pop(caller, None)

    def _store_failure(self, caller: str | None, error: OpenAICompatError) -> None:
        known = self._known.get(caller)
        until = monotonic() + RETRY_INTERVAL
        if known is not None and known.error is None:
            self._store(caller, replace(known, until=until))
        else:
            self._store(caller, _CacheEntry([], error, until))

    def _store(self, caller: str | None, entry: _CacheEntry) -> None:
        with self._lock:
            self._known.pop(caller, None)
            while len(self._known) >= MAX_CALLERS:
                self._known.pop(next(iter(self._known)))
            self._known[caller] = entry

    def _request(self, context: CallContext) -> list[JSON]:
        reply = self._upstream.forward(UpstreamRequest("GET", "models", context.headers), context)
        try:
            if reply.status >= 400:
                raise read_error(reply)
            content = parse_json(reply.read())
        except ValueError as error:
            raise UpstreamInvalidResponseError("The upstream's list of models could not be read.") from error
        finally:
            reply.close()
        models = content.get("data") if isinstance(content, Mapping) else None
        if not isinstance(models, list):
            raise UpstreamInvalidResponseError("The upstream's list of models could not be read.")
        return [model for model in models if isinstance(model, dict)]
