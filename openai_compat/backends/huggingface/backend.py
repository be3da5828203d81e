"""Backend for language and embedding models that run in the engine process on this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final
from urllib.parse import quote

from openai_compat.backends.base import missing_capability
from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import (
    ModelBusyError,
    OpenAICompatError,
    UpstreamConnectError,
    UpstreamConnectionError,
)
from openai_compat.core.profiles import ADAPTED_HEADER, from_header, record_adaptations
from openai_compat.core.settings import ModelConfig
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext

from .engine_client import EngineClient
from .model_options import CAPABILITIES, LocalModelOptions

log = logging.getLogger(__name__)

CAPABILITY_BY_PATH: Final = {"chat/completions": "chat", "completions": "completions", "embeddings": "embeddings"}
STATE_TIMEOUTS: Final = Timeouts(connect=1.0, first_byte=2.0, idle=2.0, total=5.0)
"""Timeouts for reading a model's state, which the engine has at hand."""


class HuggingFaceBackend(OpenAIBackend):
    """Passthrough to the engine process, which is started when it does not run."""

    Options: ClassVar[type[Any]] = LocalModelOptions

    def __init__(self, entry: ModelConfig, options: LocalModelOptions, resources: BackendResources) -> None:
        self._engine = resources.engine or EngineClient(resources.settings)
        self._capabilities = options.capabilities
        self._max_context_tokens = options.max_context_tokens
        # The engine knows what the model's chat template supports, and emulates or drops the rest.
        forwarded = replace(entry, base_url=self._engine.url, tools=None, response_format=None)
        super().__init__(forwarded, OpenAIOptions(responses="translated"), resources)
        self._allows_embeddings = resources.settings.enable_embeddings_backend is not False

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        self._check_capability(CAPABILITY_BY_PATH.get(call.path.partition("?")[0]))
        response = self._forward(call, context)
        record_adaptations(from_header(response.headers.get(ADAPTED_HEADER, "")), context.reply_headers)
        return response

    def _forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        if not (self._engine.is_joined and self._engine.socket_exists):
            self._engine.start(context.cancellation)
        try:
            return super().forward(call, context)
        except UpstreamConnectError:
            self._engine.start(context.cancellation)
        except UpstreamConnectionError as error:
            raise _engine_stopped() from error
        try:
            return super().forward(call, context)
        except UpstreamConnectionError as error:
            raise _engine_stopped() from error

    def _check_capability(self, capability: str | None) -> None:
        """Raise a RequestError if the model config or the settings exclude the capability.

        This happens before the call reaches the engine, so that no model is loaded for it.
        """
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
        blocker = self._engine.blocker
        return known if blocker is None else {**known, "state": "failed", "error": blocker}

    def _fetch_state(self) -> Mapping[str, Any]:
        context = CallContext("describe")
        try:
            reply = self.resources.http_client.send(
                "GET", self._url(f"models/{quote(self.name)}"), headers={}, timeouts=STATE_TIMEOUTS, context=context
            )
            try:
                state = json.loads(reply.read())
            finally:
                reply.close()
        except (OpenAICompatError, ValueError):
            return {}
        return state if reply.status == 200 and isinstance(state, dict) else {}


def _engine_stopped() -> ModelBusyError:
    """Return the error for an engine that ended before it answered.

    The request is not sent again, because it may be what ended the engine.
    """
    return ModelBusyError(
        "The engine for local models stopped before it answered.", retry_after=1, code="engine_stopped"
    )
