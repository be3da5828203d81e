"""Base of the backends whose models the engine process holds on this machine."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final
from urllib.parse import quote

from openai_compat.backends.base import missing_capability
from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.registry import load_backend_class
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import (
    ModelBusyError,
    ModelUnavailableError,
    OpenAICompatError,
    UpstreamConnectError,
    UpstreamConnectionError,
)
from openai_compat.core.extras import install_hint
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext

from .engine_client import EngineClient
from .options import CAPABILITIES, PooledModel, SharedOptions

CAPABILITY_BY_PATH: Final = {"chat/completions": "chat", "completions": "completions", "embeddings": "embeddings"}
STATE_TIMEOUTS: Final = Timeouts(connect=1.0, first_byte=2.0, idle=2.0, total=5.0)
"""Timeouts for reading a model's state, which the engine has at hand."""


class LocalBackend(OpenAIBackend):
    """Passthrough to a model of the engine, which is started when it does not run."""

    Model: ClassVar[type[PooledModel]]
    """Class of the models in the engine's configuration."""

    def __init__(self, entry: ModelConfig, options: SharedOptions, resources: BackendResources) -> None:
        self._engine = resources.engine or EngineClient(resources.settings)
        self._capabilities = options.capabilities
        self._max_context_tokens = options.max_context_tokens
        local = replace(entry, base_url=self._api_root(entry.name))
        super().__init__(local, OpenAIOptions(responses="translated"), resources)
        self._allows_embeddings = resources.settings.enable_embeddings_backend is not False

    @abstractmethod
    def _api_root(self, name: str) -> str:
        """Return the URL of the API that answers the calls of the model `name`."""

    @classmethod
    @abstractmethod
    def missing_library(cls, settings: Settings) -> str | None:
        """Return the first library that the kind needs and that is not installed, or None."""

    @classmethod
    def blocker(cls, settings: Settings) -> str | None:
        """Return the reason why the engine cannot load models of the kind, as a sentence, or None."""
        missing = cls.missing_library(settings)
        if missing is None:
            return None
        return f"Local models need '{missing}', which is not installed. It comes with {install_hint(cls.Model.extra)}"

    def _start_engine(self, context: CallContext) -> None:
        """Start the engine unless it runs, and wait until it listens.

        Raises:
            ModelUnavailableError: a library that it needs is not installed, or the runtime directory cannot be used.
            ModelBusyError: it ended at once, or does not listen in time.
            CallCancelledError
        """
        if (blocker := self.blocker(self.resources.settings)) is not None:
            raise ModelUnavailableError(blocker)
        self._engine.start(context.cancellation)

    def _ask_engine(self, send: Callable[[], StreamedResponse], context: CallContext) -> StreamedResponse:
        """Send a request to the engine, which is started if it does not run.

        Raises:
            ModelBusyError: it ended before it answered. Other errors are those of `send` and `_start_engine`.
        """
        if not (self._engine.is_joined and self._engine.socket_exists):
            self._start_engine(context)
        try:
            return send()
        except UpstreamConnectError:
            self._start_engine(context)
        except UpstreamConnectionError as error:
            raise engine_stopped() from error
        try:
            return send()
        except UpstreamConnectionError as error:
            raise engine_stopped() from error

    def _check_capability(self, path: str) -> None:
        """Raise a RequestError if the model config or the settings exclude the endpoint's capability.

        This happens before the call reaches the engine, so that no model is loaded for it.
        """
        capability = CAPABILITY_BY_PATH.get(path.partition("?")[0])
        if capability is None:
            return
        is_listed = not self._capabilities or capability in self._capabilities
        if not is_listed or (capability == "embeddings" and not self._allows_embeddings):
            offered = self._capabilities or CAPABILITIES
            raise missing_capability(self.name, capability, [name for name in offered if name != capability])

    def describe(self) -> Mapping[str, Any]:
        """Return the model's state as the engine reports it. Without an engine the model is not loaded."""
        capabilities = list(self._capabilities or CAPABILITIES)  # the possible ones, until the model is loaded
        known = {"capabilities": capabilities, "state": "absent", "context_window": self._max_context_tokens}
        if self._engine.socket_exists:
            return {**known, **self._fetch_state()}
        blocker = self.blocker(self.resources.settings)
        return known if blocker is None else {**known, "state": "failed", "error": blocker}

    def _fetch_state(self) -> Mapping[str, Any]:
        context = CallContext("describe")
        url = f"{self._engine.url}/models/{quote(self.name)}"
        try:
            reply = self.resources.http_client.send("GET", url, headers={}, timeouts=STATE_TIMEOUTS, context=context)
            try:
                state = json.loads(reply.read())
            finally:
                reply.close()
        except (OpenAICompatError, ValueError):
            return {}
        return state if reply.status == 200 and isinstance(state, dict) else {}


def missing_extra_of(kind: str, settings: Settings) -> str | None:
    """Return the extra that a kind of local model needs and that is not installed, or None."""
    backend_class = load_backend_class(kind)
    if issubclass(backend_class, LocalBackend) and backend_class.missing_library(settings) is not None:
        return backend_class.Model.extra
    return None


def engine_stopped() -> ModelBusyError:
    """Return the error for an engine that ended before it answered.

    The request is not sent again, because it may be what ended the engine.
    """
    return ModelBusyError(
        "The engine for local models stopped before it answered.", retry_after=1, code="engine_stopped"
    )
