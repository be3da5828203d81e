"""Embedding models that llama.cpp runs, with the parameters that its own API lacks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openai_compat.backends.base import SupportsEmbeddings
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.llama_cpp.model_options import LlamaCppModel
from openai_compat.backends.parameter_checks import check_embeddings, require_text
from openai_compat.backends.parsing.openai_errors import read_error
from openai_compat.backends.runtime_dir import socket_url
from openai_compat.core.errors import UpstreamStatusError
from openai_compat.core.settings import Settings
from openai_compat.core.timeouts import Timeouts
from openai_compat.core.types import CallContext, Embeddings, EmbeddingsRequest, Usage

from .gguf_header import GGUFHeader
from .launch import LaunchConfig
from .server_process import LlamaServer

TIMEOUTS: Final = Timeouts()
"""The workers have the timeouts of the call."""
_TOO_LONG: Final = re.compile(r"too large to process")


class LlamaEmbeddingServer(LlamaServer, SupportsEmbeddings):
    """A loaded embedding model. Its calls pass through the engine, which decodes token ids and cuts long inputs."""

    def __init__(self, model: LlamaCppModel, header: GGUFHeader, config: LaunchConfig) -> None:
        self._size = header.embedding_length
        self._url = socket_url(Path(config.socket))
        self._client = UpstreamClient(Settings())
        super().__init__(model, header, config)  # a failure calls `close`

    def embed(self, request: EmbeddingsRequest, context: CallContext) -> Embeddings:
        """Return vectors of length 1. `dimensions` cuts them, which some models are trained for."""
        check_embeddings(request, self._size)
        inputs = [require_text(text) for text in request.inputs]
        truncated: Sequence[int] = ()
        try:
            answer = self._post("v1/embeddings", {"input": inputs}, context)
        except UpstreamStatusError as error:
            if not _TOO_LONG.search(error.message):
                raise
            cut, truncated = self._cut(inputs, context)
            answer = self._post("v1/embeddings", {"input": cut}, context)
        vectors = [item["embedding"] for item in sorted(answer["data"], key=lambda item: item["index"])]
        if request.dimensions is not None:
            vectors = [_shorten(vector, request.dimensions) for vector in vectors]
        return Embeddings(vectors, Usage(answer["usage"]["prompt_tokens"]), truncated)

    def describe(self) -> Mapping[str, Any]:
        return {**super().describe(), "dimensions": self._size}

    def close(self) -> None:
        self._client.close()
        super().close()

    def _cut(self, inputs: Sequence[str], context: CallContext) -> tuple[list[list[int]], list[int]]:
        """Return the inputs as the model's tokens, cut to its window, and the indexes of those that were too long.

        The last token is kept, because models have a special one at the end.
        """
        window = self.context_window
        body = [{"content": text, "add_special": True} for text in inputs]
        tokens: list[list[int]] = [self._post("tokenize", content, context)["tokens"] for content in body]
        cut = [ids if len(ids) <= window else [*ids[: window - 1], ids[-1]] for ids in tokens]
        return cut, [index for index, ids in enumerate(tokens) if len(ids) > window]

    def _post(self, path: str, content: Any, context: CallContext) -> Any:
        response = self._client.send(
            "POST",
            f"{self._url}/{path}",
            headers={"content-type": "application/json", "connection": "close"},
            timeouts=TIMEOUTS,
            context=context,
            body=json.dumps(content).encode(),
        )
        if response.status >= 400:
            raise read_error(response)
        return json.loads(response.read())


def _shorten(vector: Sequence[float], dimensions: int) -> list[float]:
    """Return the beginning of a vector, with a length of 1."""
    kept = vector[:dimensions]
    length = math.hypot(*kept) or 1.0
    return [number / length for number in kept]
