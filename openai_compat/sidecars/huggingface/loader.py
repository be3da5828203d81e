"""Loaders of the kinds of local models, of which the setting `LOCAL_MODEL_LOADER` names one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from openai_compat.backends.base import Backend
from openai_compat.backends.local.engine_config import EngineConfig, resolve_loader
from openai_compat.backends.local.options import PooledModel

Progress = Callable[[str], None]


class Loader(Protocol):
    """Loader of a model pool. `progress` is called with a text for each step."""

    def fetch(self, model: PooledModel, progress: Progress) -> None:
        """Download the weights unless they are on this machine."""

    def load(self, model: PooledModel, progress: Progress) -> Backend:
        """Read the weights into memory and return the model."""

    def estimate(self, model: PooledModel) -> int | None:
        """Return how many bytes of memory loading will take, or None if that is unknown."""


class KindLoader:
    """Loader that leaves each model to the loader of its kind. `folder` is the engine's runtime directory."""

    def __init__(self, config: EngineConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder

    def fetch(self, model: PooledModel, progress: Progress) -> None:
        self._loader(model).fetch(model, progress)

    def load(self, model: PooledModel, progress: Progress) -> Backend:
        backend: Backend = self._loader(model).load(model, progress)
        return backend

    def estimate(self, model: PooledModel) -> int | None:
        size: int | None = self._loader(model).estimate(model)
        return size

    def _loader(self, model: PooledModel) -> Any:  # a `Loader` of the model's own class
        if model.kind == "llama_cpp":
            from openai_compat.sidecars.llama_cpp.loader import LlamaCppLoader

            return LlamaCppLoader(partial(self._config.socket_path, self._folder), self._config.capacity)
        return ImportPathLoader(self._config.loader)


class ImportPathLoader:
    """Loader of models of kind `huggingface`, at an import path.

    The path is `package.module:function`, and the function is `load`. Functions `fetch_weights` and `estimate_bytes` of
    the same module are used if they exist. The module is imported when the first model is loaded, because the import
    may take seconds or fail.
    """

    def __init__(self, path: str) -> None:
        self._module, _, self._name = resolve_loader(path).partition(":")

    def fetch(self, model: PooledModel, progress: Progress) -> None:
        fetch = self._find("fetch_weights")
        if fetch is not None:
            fetch(model, progress)

    def load(self, model: PooledModel, progress: Progress) -> Backend:
        load = self._find(self._name)
        if load is None:
            raise ImportError(f"{self._module} has no {self._name}", name=self._name)
        backend: Backend = load(model, progress)
        return backend

    def estimate(self, model: PooledModel) -> int | None:
        estimate = self._find("estimate_bytes")
        size: int | None = None if estimate is None else estimate(model)
        return size

    def _find(self, name: str) -> Any:
        return getattr(import_module(self._module), name, None)
