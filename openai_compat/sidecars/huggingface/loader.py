"""Finds the function that loads models (`LOCAL_MODEL_LOADER`), and calls it no sooner than a model is wanted."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.model_options import LocalModel

Progress = Callable[[str], None]


class Loader(Protocol):
    """What a store needs: `fetch` brings the weights to this machine, `load` puts them into memory, `estimate` says
    how many bytes that will take (None: unknown).
    """

    def fetch(self, model: LocalModel, progress: Progress) -> None: ...

    def load(self, model: LocalModel, progress: Progress) -> Backend: ...

    def estimate(self, model: LocalModel) -> int | None: ...


class ImportPathLoader:
    """`package.module:function` is `load`; functions `fetch_weights` and `estimate_bytes` beside it are used too.

    The module is imported with the first model: it may take seconds, and may be missing.
    """

    def __init__(self, path: str) -> None:
        self._module, _, self._name = path.partition(":")

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
