"""Backend for GGUF models, which llama.cpp's own server answers in a process beside the workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import quote

from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.local.backend import CAPABILITY_BY_PATH, LocalBackend, engine_stopped
from openai_compat.backends.local.options import PooledModel
from openai_compat.backends.parsing.openai_errors import to_status_error
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import (
    ContextLengthExceededError,
    OpenAICompatError,
    UpstreamConnectError,
    UpstreamConnectionError,
)
from openai_compat.core.settings import Settings
from openai_compat.core.types import CallContext

from .model_options import LlamaCppModel, LlamaCppOptions


class LlamaCppBackend(LocalBackend):
    """Passthrough to llama.cpp's server, with a lease of the model from the engine for each call.

    The engine grants the lease when the model is loaded and has a free slot or a place in its queue. The bytes of the
    answer do not pass through the engine.
    """

    Options: ClassVar[type[Any]] = LlamaCppOptions
    Model: ClassVar[type[PooledModel]] = LlamaCppModel

    def _api_root(self, name: str) -> str:
        return f"{self._engine.model_url(name)}/v1"

    @classmethod
    def missing_library(cls, settings: Settings) -> str | None:
        return None if find_spec("xllamacpp") else "xllamacpp"

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        self._check_capability(call.path)
        response = super().forward(call, context)
        if response.status == 400:
            raise _read_refusal(response)
        return response

    def _send(self, call: UpstreamRequest, headers: Mapping[str, str], context: CallContext) -> StreamedResponse:
        """Send the call to llama.cpp, or return the engine's response if it refuses the lease."""
        response = self._request_lease(call.path, context)
        if response.status != 200:
            return response
        try:
            return self.resources.http_client.send(
                call.method,
                self._url(call.path),
                # llama.cpp keeps a thread for each open connection.
                headers={**headers, "connection": "close"},
                timeouts=self.entry.timeouts,
                context=context,
                body=call.body,
                body_length=call.body_length,
                is_repeatable=call.is_repeatable,
                limiter=ModelLease(response),
                redactor=self.redactor,
            )
        except UpstreamConnectionError as error:
            raise engine_stopped() from error

    def _request_lease(self, path: str, context: CallContext) -> StreamedResponse:
        if not (self._engine.is_joined and self._engine.socket_exists):
            self._start_engine(context)
        try:
            return self._post_lease(path, context)
        except UpstreamConnectError:
            self._start_engine(context)
        except UpstreamConnectionError as error:
            raise engine_stopped() from error
        try:
            return self._post_lease(path, context)
        except UpstreamConnectionError as error:
            raise engine_stopped() from error

    def _post_lease(self, path: str, context: CallContext) -> StreamedResponse:
        """Return the engine's response, which is not complete before the lease ends."""
        capability = CAPABILITY_BY_PATH.get(path.partition("?")[0], "")
        return self.resources.http_client.send(
            "POST",
            f"{self._engine.url}/leases/{quote(self.name)}?capability={capability}",
            headers={},
            timeouts=self.entry.timeouts,
            context=context,
        )


class ModelLease:
    """A slot of a model, held by an open response of the engine until the call of llama.cpp ends."""

    def __init__(self, response: StreamedResponse) -> None:
        self._response = response

    def acquire(self, cancellation: CancellationToken) -> None:
        """Do nothing, because the lease was granted before."""

    def release(self) -> None:
        """Close the response, which tells the engine that the slot is free."""
        self._response.close()


def _read_refusal(response: StreamedResponse) -> OpenAICompatError:
    """Return the error of a request that llama.cpp refused. A prompt that is too long gets OpenAI's code."""
    body = response.read()
    try:
        error = json.loads(body)["error"]
        return ContextLengthExceededError(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    except (ValueError, KeyError, TypeError):
        return to_status_error(response.status, body)
