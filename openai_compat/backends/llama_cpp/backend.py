"""Backend for GGUF models, which llama.cpp's own server answers in a process beside the workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, Final
from urllib.parse import quote

from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.local.backend import CAPABILITY_BY_PATH, LocalBackend, engine_stopped
from openai_compat.backends.local.options import PooledModel
from openai_compat.backends.resources import BackendResources
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import UpstreamConnectionError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext

from .model_options import LlamaCppModel, LlamaCppOptions
from .request import adapt, drop_tools, offer_tools, read_refusal

KNOWS_TOOLS: Final = "x-knows-tools"
"""Header of a lease, with 1 if the model's chat template has a format for tools, and else 0."""


class LlamaCppBackend(LocalBackend):
    """Passthrough to llama.cpp's server, with a lease of the model from the engine for each call.

    The engine grants the lease when the model is loaded and has a free slot or a place in its queue. The bytes of the
    answer do not pass through the engine. Embeddings do, because llama.cpp's own API lacks some of their parameters.
    """

    Options: ClassVar[type[Any]] = LlamaCppOptions
    Model: ClassVar[type[PooledModel]] = LlamaCppModel

    def __init__(self, entry: ModelConfig, options: LlamaCppOptions, resources: BackendResources) -> None:
        super().__init__(entry, options, resources)
        self._reads_media = options.mmproj_file is not None
        self._slots = options.max_batch

    def _api_root(self, name: str) -> str:
        return f"{self._engine.model_url(name)}/v1"

    @classmethod
    def missing_library(cls, settings: Settings) -> str | None:
        return None if find_spec("xllamacpp") else "xllamacpp"

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        self._check_capability(call.path)
        if call.path.startswith("embeddings"):
            send = partial(self._post, f"{self._engine.url}/{call.path}", call, context)
            return self._ask_engine(send, context)
        response = self._send_leased(call, context)
        if response.status in {400, 500}:
            raise read_refusal(response)
        return response

    def _send_leased(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        """Send the call to llama.cpp, or return the engine's response if it refuses the lease."""
        call, content_with_tools = adapt(call, self.name, reads_media=self._reads_media, slots=self._slots)
        capability = CAPABILITY_BY_PATH.get(call.path.partition("?")[0], "")
        wanted = f"{quote(self.name)}?capability={capability}"
        request = UpstreamRequest("POST", "", {})
        lease = self._ask_engine(partial(self._post, f"{self._engine.url}/leases/{wanted}", request, context), context)
        if lease.status != 200:
            return lease
        if content_with_tools is not None:
            with closing_on_error(lease):
                if lease.headers.get(KNOWS_TOOLS) == "0":
                    call = drop_tools(call, content_with_tools, self.name, context)
                else:
                    call = offer_tools(call, content_with_tools, self.name)
        # llama.cpp keeps a thread for each open connection.
        closing = replace(call, headers={**call.headers, "connection": "close"})
        try:
            return self._post(self._url(call.path), closing, context, ModelLease(lease))
        except UpstreamConnectionError as error:
            raise engine_stopped() from error

    def _post(
        self, url: str, call: UpstreamRequest, context: CallContext, lease: ModelLease | None = None
    ) -> StreamedResponse:
        return self.resources.http_client.send(
            call.method,
            url,
            headers=call.headers,
            timeouts=self.entry.timeouts,
            context=context,
            body=call.body,
            body_length=call.body_length,
            is_repeatable=call.is_repeatable,
            limiter=lease,
            redactor=self.redactor,
        )


@contextmanager
def closing_on_error(response: StreamedResponse) -> Iterator[None]:
    """Close the response if the `with` block raises."""
    try:
        yield
    except BaseException:
        response.close()
        raise


class ModelLease:
    """A slot of a model, held by an open response of the engine until the call of llama.cpp ends."""

    def __init__(self, response: StreamedResponse) -> None:
        self._response = response

    def acquire(self, cancellation: CancellationToken) -> None:
        """Do nothing, because the lease was granted before."""

    def release(self) -> None:
        """Close the response, which tells the engine that the slot is free."""
        self._response.close()
