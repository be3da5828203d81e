"""Backend for language and embedding models that transformers runs in the engine process on this machine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.local.backend import LocalBackend
from openai_compat.backends.local.engine_config import missing_library
from openai_compat.backends.local.options import PooledModel
from openai_compat.backends.resources import BackendResources
from openai_compat.core.profiles import ADAPTED_HEADER, from_header, record_adaptations
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.types import CallContext

from .model_options import LocalModel, LocalModelOptions


class HuggingFaceBackend(LocalBackend):
    """Passthrough to the engine process, which answers the calls itself."""

    Options: ClassVar[type[Any]] = LocalModelOptions
    Model: ClassVar[type[PooledModel]] = LocalModel

    def __init__(self, entry: ModelConfig, options: LocalModelOptions, resources: BackendResources) -> None:
        # The engine knows what the model's chat template supports, and emulates or drops the rest.
        super().__init__(replace(entry, tools=None, response_format=None), options, resources)

    def _api_root(self, name: str) -> str:
        return self._engine.url

    @classmethod
    def missing_library(cls, settings: Settings) -> str | None:
        return missing_library(settings.local_model_loader)

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        self._check_capability(call.path)
        response = self._ask_engine(partial(super().forward, call, context), context)
        record_adaptations(from_header(response.headers.get(ADAPTED_HEADER, "")), context.reply_headers)
        return response
