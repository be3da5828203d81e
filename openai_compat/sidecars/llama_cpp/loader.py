"""Loader of GGUF models, which starts a process of llama.cpp for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from openai_compat.backends.base import Backend
from openai_compat.backends.llama_cpp.model_options import LlamaCppModel
from openai_compat.core.errors import ModelUnavailableError
from openai_compat.sidecars.huggingface.models import hub

from .embedding_server import LlamaEmbeddingServer
from .gguf_header import GGUFHeader, read_header
from .launch import LaunchConfig
from .server_process import LlamaServer

LARGEST_DEFAULT_WINDOW: Final = 8192
"""Tokens. The memory of a window is reserved when the model is loaded, and some models have windows of a million."""
DEFAULT_MAX_TOKENS: Final = 1024
SPARE_CONNECTIONS: Final = 8
"""Connections whose calls have ended and that llama.cpp has not closed yet."""
GUESSED_MEMORY: Final = 100_000_000
"""Bytes that a process needs besides the weights and the windows."""


class LlamaCppLoader:
    """Loader of a model pool for models of kind `llama_cpp`.

    `socket_path` returns the path of a model's socket, and `capacity` how many calls it may have.
    """

    def __init__(self, socket_path: Callable[[str], Path], capacity: Callable[[LlamaCppModel], int]) -> None:
        self._socket_path = socket_path
        self._capacity = capacity

    def fetch(self, model: LlamaCppModel, progress: Callable[[str], None]) -> None:
        """Download the files unless they are on this machine."""
        hub.fetch_weights(model, progress)

    def load(self, model: LlamaCppModel, progress: Callable[[str], None]) -> Backend:
        """Start the process of the model, and wait until it answers calls."""
        hub.fetch_weights(model, progress)
        progress("loading the weights")
        header = _header(model)
        config = self._launch_config(model, header)
        if config.is_embedding and (config.pooling == "none" or not (config.pooling or header.is_embedding_model)):
            raise ModelUnavailableError(
                f"The file of the model '{model.name}' names no pooling, without which there are no embeddings. Set "
                "`pooling` in its entry of the models file to `mean`, `cls` or `last`."
            )
        return (LlamaEmbeddingServer if config.is_embedding else LlamaServer)(model, header, config)

    def estimate(self, model: LlamaCppModel) -> int | None:
        """Return the size of the files and of the context windows."""
        names = [name for name in (model.gguf_file, model.mmproj_file) if name]
        folders = [hub.file_path(model, name).parent for name in names]
        found = [folder.glob(Path(part).name) for folder, part in zip(folders, model.hub_files, strict=True)]
        files = sum(file.stat().st_size for files in found for file in files)
        header = _header(model)
        return files + model.max_batch * window_of(model, header) * header.bytes_per_token() + GUESSED_MEMORY

    def _launch_config(self, model: LlamaCppModel, header: GGUFHeader) -> LaunchConfig:
        return LaunchConfig(
            name=model.name,
            socket=str(self._socket_path(model.name)),
            file=str(hub.file_path(model, model.gguf_file or "")),
            slots=model.max_batch,
            window=window_of(model, header),
            connections=self._capacity(model) + SPARE_CONNECTIONS,
            is_embedding=is_embedding(model, header),
            mmproj=None if model.mmproj_file is None else str(hub.file_path(model, model.mmproj_file)),
            chat_template=_chat_template(model),
            threads=model.threads,
            gpu_layers=model.gpu_layers,
            pooling=model.pooling,
            temperature=model.temperature,
            top_p=model.top_p,
            max_tokens=model.default_max_tokens or DEFAULT_MAX_TOKENS,
        )


def window_of(model: LlamaCppModel, header: GGUFHeader) -> int:
    """Return the context window of each call, in tokens."""
    own = header.context_length or model.default_context_tokens
    return min(own, model.max_context_tokens or LARGEST_DEFAULT_WINDOW)


def is_embedding(model: LlamaCppModel, header: GGUFHeader) -> bool:
    """Return True if the model makes vectors, by its `capabilities` or else by its file."""
    return "embeddings" in model.capabilities if model.capabilities else header.is_embedding_model


def _header(model: LlamaCppModel) -> GGUFHeader:
    try:
        return read_header(hub.file_path(model, model.gguf_file or ""))
    except ValueError as error:
        raise ModelUnavailableError(f"The model '{model.name}' could not be loaded: {error}.") from error


def _chat_template(model: LlamaCppModel) -> str | None:
    if model.chat_template_file is None:
        return None
    try:
        return Path(model.chat_template_file).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnavailableError(
            f"The chat template of the model '{model.name}' (key `chat_template_file`) cannot be read."
        ) from error
