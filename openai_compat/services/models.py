"""The list of models: those configured here, and those of the default upstream, remembered for a while."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from time import monotonic
from typing import Any, Final

from ..backends.base import (
    ForwardedCall,
    SupportsChat,
    SupportsCompletions,
    SupportsEmbeddings,
    SupportsForwarding,
)
from ..backends.openai_errors import read_error
from ..domain import CallContext
from ..errors import OpenAICompatError, UpstreamReplyError
from ..routing.table import Route, RoutingTable
from ..settings import Settings
from ..streams import Cancellation, Pending

log = logging.getLogger(__name__)

JSON = dict[str, Any]
CAPABILITIES: Final[Mapping[str, type]] = {
    "chat": SupportsChat,
    "completions": SupportsCompletions,
    "embeddings": SupportsEmbeddings,
    "forwarding": SupportsForwarding,
}
"""What a description calls a backend's capabilities. `forwarding` takes whatever its peer takes."""

FIRST_WAIT_SECONDS: Final = 2.0
"""How long the very first list may wait for the upstream; after that a list never waits."""
MOST_CALLERS: Final = 256


class ModelCatalog:
    """Lists and describes models as `GET /v1/models` does."""

    def __init__(self, settings: Settings, routing: RoutingTable) -> None:
        self._routing = routing
        upstream = routing.forwarding_upstream
        self._upstream = UpstreamModels(upstream, settings.models_cache_seconds) if upstream else None

    def list_all(self, context: CallContext) -> JSON:
        """Every model that this server answers for.

        Raises:
            UpstreamError: the default upstream refused, and there is no model but its own.
        """
        models = {route.model: to_model_object(route) for route in self._routing.routes()}
        for model in self._upstream_models(context, is_alone=not models):
            if isinstance(model.get("id"), str) and self._routing.allows(model["id"]):
                models.setdefault(model["id"], model)
        return {"object": "list", "data": list(models.values())}

    def _upstream_models(self, context: CallContext, *, is_alone: bool) -> list[JSON]:
        if self._upstream is None:
            return []
        try:
            return self._upstream.ask(context)
        except OpenAICompatError as error:
            if is_alone:
                raise
            log.warning("the upstream's models are left out of the list: %s", error.message)
            return []

    def describe(self, route: Route) -> JSON:
        """One configured model, with what its backend knows of it."""
        entry = route.backend.entry
        details = {"metadata": dict(entry.metadata)} if entry.metadata else {}
        capabilities = [name for name, kind in CAPABILITIES.items() if isinstance(route.backend, kind)]
        return {**to_model_object(route), "capabilities": capabilities, **details, **route.backend.describe()}


def to_model_object(route: Route) -> JSON:
    """OpenAI's model object. `permission` is gone from OpenAI's own; older clients still read it."""
    entry = route.backend.entry
    return {"id": entry.name, "object": "model", "created": entry.created, "owned_by": entry.owned_by, "permission": []}


@dataclass(frozen=True, slots=True)
class _Remembered:
    models: list[JSON]
    until: float


class UpstreamModels:
    """An upstream's list of models, one for each credential it was asked with.

    A list that is too old is still given, while a new one is fetched: a slow upstream blocks nobody.
    """

    def __init__(self, upstream: SupportsForwarding, seconds: float) -> None:
        self._upstream = upstream
        self._seconds = seconds
        self._known: dict[str | None, _Remembered] = {}
        self._pending: dict[str | None, Pending[list[JSON]]] = {}
        self._lock = Lock()

    def ask(self, context: CallContext) -> list[JSON]:
        """The models; empty where the upstream has not answered yet. Raises what the first fetch raised."""
        caller = context.authorization
        known = self._known.get(caller)
        if known is not None and monotonic() < known.until:
            return known.models
        pending = self._fetch_once(caller, context)
        if known is not None:
            return known.models
        return pending.result() if pending.wait(FIRST_WAIT_SECONDS) else []

    def _fetch_once(self, caller: str | None, context: CallContext) -> Pending[list[JSON]]:
        """One fetch at a time for each caller. It outlives the request that began it."""
        with self._lock:
            pending = self._pending.get(caller)
            if pending is None:
                own = replace(context, cancellation=Cancellation(), silence_seconds=0.0)
                pending = self._pending[caller] = Pending(lambda: self._fetch(caller, own))
            return pending

    def _fetch(self, caller: str | None, context: CallContext) -> list[JSON]:
        try:
            models = self._ask(context)
            with self._lock:
                while len(self._known) >= MOST_CALLERS:
                    self._known.pop(next(iter(self._known)))
                self._known[caller] = _Remembered(models, monotonic() + self._seconds)
            return models
        finally:
            with self._lock:
                self._pending.pop(caller, None)

    def _ask(self, context: CallContext) -> list[JSON]:
        reply = self._upstream.forward(ForwardedCall("GET", "models", context.headers), context)
        try:
            if reply.status >= 400:
                raise read_error(reply)
            content = json.loads(reply.read())
        except ValueError as error:
            raise UpstreamReplyError("The upstream's list of models could not be read.") from error
        finally:
            reply.close()
        models = content.get("data") if isinstance(content, Mapping) else None
        if not isinstance(models, list):
            raise UpstreamReplyError("The upstream's list of models could not be read.")
        return [model for model in models if isinstance(model, dict)]
