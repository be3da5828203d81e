"""Pool of the engine's models, which loads a model on its first call and unloads idle ones to free memory."""

from __future__ import annotations

import logging
import threading
from copy import copy
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Literal

from openai_compat.backends.base import Backend
from openai_compat.backends.local.engine_config import EngineConfig
from openai_compat.backends.local.options import PooledModel
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import ModelBusyError, ModelNotFoundError, ModelUnavailableError, OpenAICompatError
from openai_compat.core.extras import install_hint

from .loader import Loader

log = logging.getLogger(__name__)

State = Literal["absent", "loading", "ready", "failed"]

FAILURE_TTL: Final = 60.0
"""Seconds until a failed load is tried again. The hub or the disk may be back by then."""
LOADING_RETRY_AFTER: Final = 10
FULL_RETRY_AFTER: Final = 2


@dataclass
class _ModelSlot:
    """State of one model. `calls` counts the callers between `acquire` and `release`."""

    model: PooledModel
    capacity: int
    state: State = "absent"
    backend: Backend | None = None
    error: OpenAICompatError | None = None
    failed_at: float = 0.0
    calls: int = 0
    used_at: float = 0.0
    progress: str = ""
    last_size: int = 0

    @property
    def memory_bytes(self) -> int:
        """The memory that the model occupies now."""
        return _memory_bytes(self.backend) if self.backend is not None else 0


class ModelPool:
    """Thread-safe pool of loaded models."""

    def __init__(self, config: EngineConfig, loader: Loader) -> None:
        self._config = config
        self._loader = loader
        self._slots = {model.name: _ModelSlot(model, config.capacity(model)) for model in config.models}
        self._changed = threading.Condition()
        self._load_lock = threading.Lock()
        for name in config.preload:
            self._start_loading(self._slots[name])

    def acquire(self, name: str, cancellation: CancellationToken) -> Backend:
        """Return the loaded model and occupy one of its slots until `release`.

        Raises:
            ModelNotFoundError
            ModelBusyError: all its slots are occupied, or loading takes longer than `load_timeout`.
            CallCancelledError: the client disconnected while the model was being loaded.
            OpenAICompatError: what loading it raised. The model is not loaded again before `FAILURE_TTL` is over.
        """
        slot = self._slot(name)
        with self._changed:
            if slot.calls >= slot.capacity:
                raise ModelBusyError(
                    f"The model '{name}' has reached its limit of concurrent calls. Please try again later.",
                    retry_after=FULL_RETRY_AFTER,
                )
            slot.calls += 1
            try:
                return self._wait_until_loaded(slot, cancellation)
            except BaseException:
                slot.calls -= 1
                raise

    def release(self, name: str) -> None:
        """Free a slot of the model."""
        slot = self._slot(name)
        with self._changed:
            slot.calls -= 1
            slot.used_at = monotonic()
            evicted = self._evict_idle(keep=slot)
            self._changed.notify_all()
        _close(evicted)

    def describe(self, name: str) -> dict[str, Any]:
        """Return the model's state, as `GET /v1/models/{id}` shows it."""
        slot = self._slot(name)
        with self._changed:
            backend = slot.backend
            description: dict[str, Any] = {"state": slot.state, "context_window": slot.model.max_context_tokens}
            if slot.calls:
                description["callers"] = slot.calls
            if slot.state == "loading":
                description["progress"] = slot.progress
            if slot.state == "failed" and slot.error is not None:
                description["error"] = slot.error.message
        if backend is None:
            return description
        window = getattr(backend, "context_window", None)
        return {**description, "context_window": window, "memory_bytes": slot.memory_bytes, **backend.describe()}

    def report(self) -> dict[str, dict[str, Any]]:
        """Return the number of calls and the memory of each model."""
        with self._changed:
            return {
                name: {
                    "is_loaded": slot.backend is not None,
                    "calls": slot.calls,
                    "memory_bytes": slot.memory_bytes,
                }
                for name, slot in self._slots.items()
            }

    def backend(self, name: str) -> Backend | None:
        """Return the model, or None while it is not loaded."""
        return self._slot(name).backend

    def close(self) -> None:
        """Unload all models."""
        with self._changed:
            slots = [slot for slot in self._slots.values() if slot.backend is not None]
            backends = [self._detach(slot) for slot in slots]
        _close(backends)

    def _slot(self, name: str) -> _ModelSlot:
        slot = self._slots.get(name)
        if slot is None:
            raise ModelNotFoundError(name)
        return slot

    def _wait_until_loaded(self, slot: _ModelSlot, cancellation: CancellationToken) -> Backend:
        """Start loading the model if necessary, and wait for it. The lock is released while this waits.

        A model with a process of its own, which has ended, is loaded again.
        """
        deadline = monotonic() + self._config.load_timeout
        cancellation.on_cancel(self._wake)
        try:
            if not getattr(slot.backend, "is_running", True):
                log.error("the process of the model '%s' has ended", slot.model.name)
                _close([self._detach(slot)])
            while slot.backend is None:
                cancellation.raise_if_cancelled()
                self._start_loading(slot)
                remaining = deadline - monotonic()
                if remaining <= 0:
                    raise ModelBusyError(
                        f"The model '{slot.model.name}' is still being loaded. Please try again later.",
                        retry_after=LOADING_RETRY_AFTER,
                        code="model_loading",
                    )
                self._changed.wait(remaining)
        finally:
            cancellation.remove_callback(self._wake)
        return slot.backend

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _start_loading(self, slot: _ModelSlot) -> None:
        """Start a thread that loads the model, unless one is running.

        Raises:
            OpenAICompatError: the error of a load that failed less than `FAILURE_TTL` ago.
        """
        if slot.state == "failed" and slot.error is not None and monotonic() < slot.failed_at + FAILURE_TTL:
            raise copy(slot.error)  # one for each caller, because an error collects tracebacks
        if slot.state != "loading":
            slot.state, slot.progress = "loading", "waiting for its turn"
            threading.Thread(target=self._load, args=(slot,), name=f"load {slot.model.name}", daemon=True).start()

    def _load(self, slot: _ModelSlot) -> None:
        """Load one model in a thread of its own. Several may download at a time, but only one reads its weights."""
        started = monotonic()
        try:
            self._loader.fetch(slot.model, lambda step: self._set_progress(slot, step))
            with self._load_lock:
                self._free_memory(slot)
                backend = self._loader.load(slot.model, lambda step: self._set_progress(slot, step))
                self._check_size(slot, backend)
        except Exception as error:  # noqa: BLE001 - it is logged, and raised to the callers that wait
            self._set_failed(slot, to_load_error(slot.model, error))
        else:
            self._set_ready(slot, backend, monotonic() - started)

    def _set_progress(self, slot: _ModelSlot, step: str) -> None:
        slot.progress = step
        log.info("model '%s': %s", slot.model.name, step)

    def _set_failed(self, slot: _ModelSlot, error: OpenAICompatError) -> None:
        log.error("%s", error.message)
        with self._changed:
            slot.state, slot.error, slot.failed_at = "failed", error, monotonic()
            if isinstance(error, ModelBusyError):
                slot.state = "absent"  # there may be memory for it at the next call
            self._changed.notify_all()

    def _set_ready(self, slot: _ModelSlot, backend: Backend, seconds: float) -> None:
        with self._changed:
            slot.backend, slot.state, slot.error = backend, "ready", None
            slot.used_at = monotonic()
            evicted = self._evict_idle(keep=slot)
            self._changed.notify_all()
        megabytes = slot.memory_bytes // 1_000_000
        log.info("model '%s' was loaded in %.1f s and takes %d MB", slot.model.name, seconds, megabytes)
        _close(evicted)

    def _free_memory(self, slot: _ModelSlot) -> None:
        """Unload idle models until `slot` fits, and wait for busy ones to become idle.

        Raises:
            ModelUnavailableError: it can never fit.
            ModelBusyError: the others stayed busy.
        """
        budget = self._config.memory_bytes
        if not budget:
            return
        needed = slot.last_size or self._loader.estimate(slot.model) or 0
        if needed > budget:
            raise _too_large(slot.model, needed, budget)
        deadline = monotonic() + self._config.load_timeout
        while True:
            with self._changed:
                evicted = self._evict_idle(needed)
                fits = self._used_bytes() + needed <= budget
                if not fits and not evicted:
                    slot.progress = "waiting for memory that other models use"
                    if not self._changed.wait(deadline - monotonic()):
                        raise ModelBusyError(
                            f"There is no memory for the model '{slot.model.name}' while other models are busy.",
                            retry_after=LOADING_RETRY_AFTER,
                        )
            _close(evicted)
            if fits:
                return

    def _check_size(self, slot: _ModelSlot, backend: Backend) -> None:
        """Record how much memory the model takes, and close it if that exceeds the budget."""
        slot.last_size = _memory_bytes(backend)
        if self._config.memory_bytes and slot.last_size > self._config.memory_bytes:
            backend.close()
            raise _too_large(slot.model, slot.last_size, self._config.memory_bytes)

    def _used_bytes(self) -> int:
        return sum(slot.memory_bytes for slot in self._slots.values())

    def _evict_idle(self, needed: int = 0, keep: _ModelSlot | None = None) -> list[Backend]:
        """Remove idle models, least recently used first, until `needed` bytes fit. The caller closes them."""
        evicted: list[Backend] = []
        idle = [
            slot for slot in self._slots.values() if slot.backend is not None and not slot.calls and slot is not keep
        ]
        for slot in sorted(idle, key=lambda slot: slot.used_at):
            if not self._config.memory_bytes or self._used_bytes() + needed <= self._config.memory_bytes:
                break
            log.info("model '%s' is unloaded to free %d MB", slot.model.name, slot.memory_bytes // 1_000_000)
            evicted.append(self._detach(slot))
        return evicted

    def _detach(self, slot: _ModelSlot) -> Backend:
        backend, slot.backend, slot.state = slot.backend, None, "absent"
        assert backend is not None  # noqa: S101 - checked by the callers
        return backend


def _memory_bytes(backend: Backend) -> int:
    """Return the memory that a model reports, or 0, because a custom loader's models need not report it."""
    return int(getattr(backend, "memory_bytes", 0))


def _too_large(model: PooledModel, needed: int, budget: int) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The model '{model.name}' needs {needed // 1_000_000} MB, and LOCAL_MEMORY_BYTES allows "
        f"{budget // 1_000_000} MB for all models together."
    )


def to_load_error(model: PooledModel, error: Exception) -> OpenAICompatError:
    """Return the error of a failed load for its callers. An unexpected exception is logged and shown by its type."""
    if isinstance(error, OpenAICompatError):
        return error
    if isinstance(error, MemoryError):
        return ModelUnavailableError(f"The model '{model.name}' could not be loaded: there is not enough memory.")
    if isinstance(error, ImportError):
        missing = (error.name or "a library").partition(".")[0]
        return ModelUnavailableError(
            f"The model '{model.name}' needs '{missing}', which is not installed. "
            f"Local models need {install_hint(model.extra)}"
        )
    log.error("loading the model '%s' failed", model.name, exc_info=error)
    return ModelUnavailableError(
        f"The model '{model.name}' could not be loaded ({type(error).__name__}). The server's log has the details."
    )


def _close(backends: list[Backend]) -> None:
    for backend in backends:
        try:
            backend.close()
        except Exception:  # the others must be closed all the same
            log.exception("the model '%s' could not be closed", backend.name)
