"""Configuration of the engine process, made from the settings by a worker and read by the engine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from openai_compat.backends.registry import load_backend_class
from openai_compat.core.extras import missing_extra
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.version import __version__

from .options import PooledModel

LOCAL_KINDS: Final = ("huggingface", "llama_cpp")
"""Kinds whose models the engine holds."""
OWN_LOADER: Final = "openai_compat.sidecars.huggingface.models.loading:load_model"
FORMER_OWN_LOADER: Final = "openai_compat.local.loading:load_model"
"""The import path of the same loader in earlier versions, which environments may still name."""


@dataclass(frozen=True)
class EngineConfig:
    """The models of an engine and its limits. Bytes and seconds are whole numbers.

    `loader` is the import path of `load_model(entry, progress) -> Backend`, which loads models of kind `huggingface`.
    `memory_bytes` limits the memory of all loaded models together (0: no limit).
    A call waits at most `load_timeout` seconds for a model that is being loaded.
    `queue_limit` calls of one model may wait behind those that are running.
    """

    models: tuple[PooledModel, ...]
    loader: str
    preload: tuple[str, ...] = ()
    memory_bytes: int = 0
    load_timeout: float = 300.0
    queue_limit: int = 64
    max_request_bytes: int = 32 * 1024 * 1024
    validation_error_status: int = 400
    log_level: Any = "info"
    log_format: Any = "text"
    tiktoken_cache_dir: str | None = None

    @property
    def identity(self) -> str:
        """A hash that is equal for all workers of a server and changes with its configuration."""
        return hashlib.sha256(f"{__version__} {self.to_json()}".encode()).hexdigest()[:12]

    def to_json(self) -> str:
        models = [{"kind": model.kind, **model.to_json()} for model in self.models]
        return json.dumps({**asdict(self), "models": models}, sort_keys=True, default=str)

    @classmethod
    def from_json(cls, text: str) -> EngineConfig:
        content = json.loads(text)
        models = tuple(_model_class(model.pop("kind"))(**model) for model in content.pop("models"))
        return cls(models=models, preload=tuple(content.pop("preload")), **content)

    def capacity(self, model: PooledModel) -> int:
        """Return how many calls a model accepts at a time, running and queued ones together."""
        return model.max_batch + (self.queue_limit if model.queue_limit is None else model.queue_limit)

    def socket_path(self, folder: Path, name: str) -> Path:
        """Return the path of the socket for a model that a process of its own runs.

        It has the model's number instead of its name, because the path of a socket is limited.
        """
        number = [model.name for model in self.models].index(name)
        return folder / f"{self.identity}-{number}.sock"


def to_engine_config(settings: Settings) -> EngineConfig:
    """Return the engine configuration for all local models of a server."""
    configured = (*settings.entries.values(), *settings.hidden_entries.values())
    entries = [entry for entry in configured if entry.kind in LOCAL_KINDS]
    names = {entry.name for entry in entries}
    return EngineConfig(
        models=tuple(to_local_model(entry, settings) for entry in entries),
        loader=settings.local_model_loader,
        preload=tuple(name for name in settings.preload_models if name in names),
        memory_bytes=settings.local_memory_bytes,
        load_timeout=settings.local_load_timeout,
        queue_limit=settings.local_max_queued,
        max_request_bytes=settings.max_request_bytes,
        validation_error_status=settings.validation_error_status,
        log_level=settings.log_level,
        log_format=settings.log_format,
        tiktoken_cache_dir=settings.tiktoken_cache_dir,
    )


def resolve_loader(path: str) -> str:
    """Return `OWN_LOADER` for the import path that it had in earlier versions, and any other path unchanged."""
    return OWN_LOADER if path == FORMER_OWN_LOADER else path


def missing_library(loader: str) -> str | None:
    """Return the first library that `OWN_LOADER` needs and that is not installed.

    The needs of other loaders are not known here, so that the result is None for them.
    """
    return missing_extra() if resolve_loader(loader) == OWN_LOADER else None


def to_local_model(entry: ModelConfig, settings: Settings) -> PooledModel:
    """Return a model's options, with the settings' defaults where the model config has none."""
    return _model_class(entry.kind).from_entry(entry, settings)


def _model_class(kind: str) -> type[PooledModel]:
    model_class: type[PooledModel] = load_backend_class(kind).Model  # type: ignore[attr-defined]  # a `LocalBackend`
    return model_class
