"""A language or embedding model that runs on this machine, in the engine process that all workers share."""

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
from openai_compat.core.settings import ModelConfig, Timeouts
from openai_compat.core.types import CallContext

from .engine_client import EngineClient
from .model_options import CAPABILITIES, LocalModelOptions

log = logging.getLogger(__name__)

DOORS: Final = {"chat/completions": "chat", "completions": "completions", "embeddings": "embeddings"}
QUESTION: Final = Timeouts(connect=1.0, first_byte=2.0, idle=2.0, total=5.0)
"""For what an engine knows of a model: it answers at once, or is not asked any longer."""


class HuggingFaceBackend(OpenAIBackend):
    """Forwards to the engine, which is started when it is not there."""

    Options: ClassVar[type[Any]] = LocalModelOptions

    def __init__(self, entry: ModelConfig, options: LocalModelOptions, resources: BackendResources) -> None:
        self._engine = resources.engine or EngineClient(resources.settings)
        self._capabilities = options.capabilities
        self._window = options.max_context_tokens
        super().__init__(replace(entry, base_url=self._engine.url), OpenAIOptions(), resources)
        self._is_embedding_allowed = resources.settings.enable_embeddings_backend is not False

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        self._check(DOORS.get(call.path.partition("?")[0]))
        if not self._engine.socket_exists:
            self._engine.start(context.cancellation)
        try:
            return super().forward(call, context)
        except UpstreamConnectError:
            self._engine.start(context.cancellation)
        except UpstreamConnectionError as error:
            raise _stopped() from error
        try:
            return super().forward(call, context)
        except UpstreamConnectionError as error:
            raise _stopped() from error

    def _check(self, capability: str | None) -> None:
        """Refuses what the entry or the settings rule out, before a model is loaded for it."""
        if capability is None:
            return
        is_named = not self._capabilities or capability in self._capabilities
        if not is_named or (capability == "embeddings" and not self._is_embedding_allowed):
            offers = self._capabilities or CAPABILITIES
            raise missing_capability(self.name, capability, [name for name in offers if name != capability])

    def describe(self) -> Mapping[str, Any]:
        """The model's state, as the engine has it; one that does not run has loaded nothing."""
        capabilities = list(self._capabilities or CAPABILITIES)  # until it is loaded: what it may be able to do
        known = {"capabilities": capabilities, "state": "absent", "context_window": self._window}
        if self._engine.socket_exists:
            return {**known, **self._ask()}
        blocker = self._engine.blocker
        return known if blocker is None else {**known, "state": "failed", "error": blocker}

    def _ask(self) -> Mapping[str, Any]:
        context = CallContext("describe")
        try:
            reply = self.resources.http_client.send(
                "GET", self._url(f"models/{quote(self.name)}"), headers={}, timeouts=QUESTION, context=context
            )
            try:
                facts = json.loads(reply.read())
            finally:
                reply.close()
        except (OpenAICompatError, ValueError):
            return {}
        return facts if reply.status == 200 and isinstance(facts, dict) else {}


def _stopped() -> ModelBusyError:
    """The engine ended before it answered. Not sent again: the request itself may be what ended it."""
    return ModelBusyError(
        "The engine for local models stopped before it answered.", retry_after=1, code="engine_stopped"
    )
