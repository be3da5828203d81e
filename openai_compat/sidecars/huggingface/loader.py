"""Loading of models by a function that the setting `LOCAL_MODEL_LOADER` names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.engine_config import resolve_loader
from openai_compat.backends.huggingface.model_options import LocalModel

Progress = Callable[[str], None]


class Loader(Protocol):
    """Loader of a model pool. `progress` is called with a text for each step."""

    def fetch(self, model: LocalModel, progress: Progress) -> None:
        """Download the weights unless they are on this machine."""

    def load(self, model: LocalModel, progress: Progress) -> Backend:
        """Read the weights into memory and return the model."""

    def estimate(self, model: LocalModel) -> int | None:
        """Return how many bytes of memory loading will take, or None if that is unknown."""


class ImportPathLoader:
    """Loader at an import path.

    The path is `package.module:function`, and the function is `load`. Functions `fetch_weights` and `estimate_bytes` of
    the same module are used if they exist. The module is imported when the first model is loaded, because the import
    may take seconds or fail.
    """

    def __init__(self, path: str) -> None:
        self._module, _, self._name = resolve_loader(path).partition(":")

    def fetch(self, model: LocalModel, progress: Progress) -> None:
        fetch = self._find("fetch_weights")
        if fetch is not None:
            fetch(model, progress)

    def load(self, model: LocalModel, progress: Progress) -> Backend:
        load = self._find(self._name)
        if load is None:
            raise ImportError(f"{self._module} has no {self._name}", name=self._name)
        backend: Backend = load(model, progress)
        return backend

    def estimate(self, model: LocalModel) -> int | None:
        estimate = self._find("estimate_bytes")
        size: int | None = None if estimate is None else estimate(model)
        return size

    def _find(self, name: str) -> Any:
        return getattr(import_module(self._module), name, None)
