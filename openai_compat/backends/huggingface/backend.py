"""Backend for language and embedding models that transformers runs in the engine process on this machine."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from openai_compat.backends.http.client import StreamedResponse
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.local.backend import LocalBackend
from openai_compat.backends.local.engine_config import missing_library
from openai_compat.backends.local.options import PooledModel
from openai_compat.core.settings import Settings
from openai_compat.core.types import CallContext

from .model_options import LocalModel, LocalModelOptions


class HuggingFaceBackend(LocalBackend):
    """Passthrough to the engine process, which answers the calls itself."""

    Options: ClassVar[type[Any]] = LocalModelOptions
    Model: ClassVar[type[PooledModel]] = LocalModel

    def _api_root(self, name: str) -> str:
        return self._engine.url

    @classmethod
    def missing_library(cls, settings: Settings) -> str | None:
        return missing_library(settings.local_model_loader)

    def forward(self, call: UpstreamRequest, context: CallContext) -> StreamedResponse:
        self._check_capability(call.path)
        return self._ask_engine(partial(super().forward, call, context), context)
