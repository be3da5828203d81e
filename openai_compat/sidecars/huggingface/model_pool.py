"""The models of an engine: each loaded once, when it is first wanted, and given up when the memory is needed."""

from __future__ import annotations

import logging
import threading
from copy import copy
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Literal

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.engine_config import EngineConfig
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import ModelBusyError, ModelNotFoundError, ModelUnavailableError, OpenAICompatError
from openai_compat.core.extras import install_hint

from .loader import Loader

log = logging.getLogger(__name__)

State = Literal["absent", "loading", "ready", "failed"]

FAILURE_TTL: Final = 60.0
"""For how long a failed load is remembered: a hub or a disk may come back, but not between two requests."""
LOADING_RETRY_AFTER: Final = 10
FULL_RETRY_AFTER: Final = 2


@dataclass
class _ModelSlot:
    """One model and what has become of it. `calls` counts the callers that hold a place."""

    model: LocalModel
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
    def memory(self) -> int:
        """What the model occupies now, in bytes."""
        return _size(self.backend) if self.backend is not None else 0


class ModelPool:
    """Gives out loaded models. All methods may be called from many threads."""

    def __init__(self, plan: EngineConfig, loader: Loader) -> None:
        self._plan = plan
        self._fetch, self._load, self._estimate = loader.fetch, loader.load, loader.estimate
        self._slots = {model.name: _ModelSlot(model, plan.capacity(model)) for model in plan.models}
        self._changed = threading.Condition()
        self._one_at_a_time = threading.Lock()
        for name in plan.preload:
            self._begin(self._slots[name])

    def acquire(self, name: str, cancellation: CancellationToken) -> Backend:
        """The loaded model, and a place in it, which is the caller's until `release`.

        Raises:
            ModelNotFoundError, ModelBusyError: its places are taken, or it loads for longer than anyone should wait.
            CallCancelledError: the caller left while it was being loaded.
            what loading it raised, without loading it again.
        """
        slot = self._slot(name)
        with self._changed:
            if slot.calls >= slot.capacity:
                raise ModelBusyError(
                    f"The model '{name}' has as many callers as it takes. Please try again later.",
                    retry_after=FULL_RETRY_AFTER,
                )
            slot.calls += 1
            try:
                return self._loaded(slot, cancellation)
            except BaseException:
                slot.calls -= 1
                raise

    def release(self, name: str) -> None:
        """Gives a place back."""
        slot = self._slot(name)
        with self._changed:
            slot.calls -= 1
            slot.used_at = monotonic()
            evicted = self._evict(0, but=slot)
            self._changed.notify_all()
        _close(evicted)

    def describe(self, name: str) -> dict[str, Any]:
        """The model's state, as `GET /v1/models/{id}` shows it."""
        slot = self._slot(name)
        with self._changed:
            backend = slot.backend
            facts: dict[str, Any] = {"state": slot.state, "context_window": slot.model.max_context_tokens}
            if slot.calls:
                facts["callers"] = slot.calls
            if slot.state == "loading":
                facts["progress"] = slot.progress
            if slot.state == "failed" and slot.error is not None:
                facts["error"] = slot.error.message
        if backend is None:
            return facts
        window = getattr(backend, "context_window", None)
        return {**facts, "context_window": window, "memory_bytes": slot.memory, **backend.describe()}

    def backend(self, name: str) -> Backend | None:
        """The model, if it is there."""
        return self._slot(name).backend

    def close(self) -> None:
        """Gives up every model."""
        with self._changed:
            slots = [slot for slot in self._slots.values() if slot.backend is not None]
            backends = [self._give_up(slot) for slot in slots]
        _close(backends)

    def _slot(self, name: str) -> _ModelSlot:
        slot = self._slots.get(name)
        if slot is None:
            raise ModelNotFoundError(name)
        return slot

    def _loaded(self, slot: _ModelSlot, cancellation: CancellationToken) -> Backend:
        """Waits, with the lock given up meanwhile, until the model is there."""
        deadline = monotonic() + self._plan.load_timeout
        cancellation.on_cancel(self._wake)
        try:
            while slot.backend is None:
                cancellation.raise_if_cancelled()
                self._begin(slot)
                left = deadline - monotonic()
                if left <= 0:
                    raise ModelBusyError(
                        f"The model '{slot.model.name}' is still being loaded. Please try again later.",
                        retry_after=LOADING_RETRY_AFTER,
                        code="model_loading",
                    )
                self._changed.wait(left)
        finally:
            cancellation.remove_callback(self._wake)
        return slot.backend

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _begin(self, slot: _ModelSlot) -> None:
        """Starts loading, unless that has been tried a moment ago.

        Raises:
            OpenAICompatError: what came of it then.
        """
        if slot.state == "failed" and slot.error is not None and monotonic() < slot.failed_at + FAILURE_TTL:
            raise copy(slot.error)  # each caller's own: it carries the traceback of where it was raised
        if slot.state != "loading":
            slot.state, slot.progress = "loading", "waiting for its turn"
            threading.Thread(target=self._run, args=(slot,), name=f"load {slot.model.name}", daemon=True).start()

    def _run(self, slot: _ModelSlot) -> None:
        """Loads one model, in a thread of its own. Downloads go on side by side; loading is one model's turn."""
        began = monotonic()
        try:
            self._fetch(slot.model, lambda step: self._note(slot, step))
            with self._one_at_a_time:
                self._free_memory(slot)
                backend = self._load(slot.model, lambda step: self._note(slot, step))
                self._check_size(slot, backend)
        except Exception as error:  # noqa: BLE001 - it is remembered for whoever waits, and logged
            self._fail(slot, to_load_error(slot.model, error))
        else:
            self._keep(slot, backend, monotonic() - began)

    def _note(self, slot: _ModelSlot, step: str) -> None:
        slot.progress = step
        log.info("model '%s': %s", slot.model.name, step)

    def _fail(self, slot: _ModelSlot, error: OpenAICompatError) -> None:
        log.error("%s", error.message)
        with self._changed:
            slot.state, slot.error, slot.failed_at = "failed", error, monotonic()
            if isinstance(error, ModelBusyError):
                slot.state = "absent"  # the next caller may find room
            self._changed.notify_all()

    def _keep(self, slot: _ModelSlot, backend: Backend, seconds: float) -> None:
        with self._changed:
            slot.backend, slot.state, slot.error = backend, "ready", None
            slot.used_at = monotonic()
            evicted = self._evict(0, but=slot)
            self._changed.notify_all()
        log.info("model '%s' is ready after %.1f s, with %d MB", slot.model.name, seconds, slot.memory // 1_000_000)
        _close(evicted)

    def _free_memory(self, slot: _ModelSlot) -> None:
        """Evicts idle models until `slot` fits, and waits for busy ones to become idle.

        Raises:
            ModelUnavailableError: it can never fit. ModelBusyError: the others stayed busy.
        """
        budget = self._plan.memory_bytes
        if not budget:
            return
        needed = slot.last_size or self._estimate(slot.model) or 0
        if needed > budget:
            raise _too_large(slot.model, needed, budget)
        deadline = monotonic() + self._plan.load_timeout
        while True:
            with self._changed:
                evicted = self._evict(needed)
                has_room = self._used() + needed <= budget
                if not has_room and not evicted:
                    slot.progress = "waiting for memory that other models use"
                    if not self._changed.wait(deadline - monotonic()):
                        raise ModelBusyError(
                            f"There is no memory for the model '{slot.model.name}' while others are busy.",
                            retry_after=LOADING_RETRY_AFTER,
                        )
            _close(evicted)
            if has_room:
                return

    def _check_size(self, slot: _ModelSlot, backend: Backend) -> None:
        """Notes what the model needs, for the next time; one that is too large is closed again."""
        slot.last_size = _size(backend)
        if self._plan.memory_bytes and slot.last_size > self._plan.memory_bytes:
            backend.close()
            raise _too_large(slot.model, slot.last_size, self._plan.memory_bytes)

    def _used(self) -> int:
        return sum(slot.memory for slot in self._slots.values())

    def _evict(self, needed: int, but: _ModelSlot | None = None) -> list[Backend]:
        """Takes out idle models, the longest unused first, while the budget is exceeded; the caller closes them."""
        evicted: list[Backend] = []
        idle = [
            slot for slot in self._slots.values() if slot.backend is not None and not slot.calls and slot is not but
        ]
        for slot in sorted(idle, key=lambda slot: slot.used_at):
            if not self._plan.memory_bytes or self._used() + needed <= self._plan.memory_bytes:
                break
            log.info("model '%s' is given up: its %d MB are needed", slot.model.name, slot.memory // 1_000_000)
            evicted.append(self._give_up(slot))
        return evicted

    def _give_up(self, slot: _ModelSlot) -> Backend:
        backend, slot.backend, slot.state = slot.backend, None, "absent"
        assert backend is not None  # noqa: S101 - who calls has looked
        return backend


def _size(backend: Backend) -> int:
    """What it occupies, in bytes; a loader of somebody else's need not say."""
    return int(getattr(backend, "memory_bytes", 0))


def _too_large(model: LocalModel, needed: int, budget: int) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The model '{model.name}' needs {needed // 1_000_000} MB, and LOCAL_MEMORY_BYTES allows "
        f"{budget // 1_000_000} MB for all models together."
    )


def to_load_error(model: LocalModel, error: Exception) -> OpenAICompatError:
    """What callers get to hear of a failed load: the cause in words where it has them, else its name."""
    if isinstance(error, OpenAICompatError):
        return error
    if isinstance(error, MemoryError):
        return ModelUnavailableError(f"The model '{model.name}' could not be loaded: there is not enough memory.")
    if isinstance(error, ImportError):
        missing = (error.name or "a library").partition(".")[0]
        return ModelUnavailableError(
            f"The model '{model.name}' needs '{missing}', which is not installed. "
            f"Local models need {install_hint('local')}"
        )
    log.error("loading the model '%s' failed", model.name, exc_info=error)
    return ModelUnavailableError(
        f"The model '{model.name}' could not be loaded ({type(error).__name__}); the server's log has the details."
    )


def _close(backends: list[Backend]) -> None:
    for backend in backends:
        try:
            backend.close()
        except Exception:  # the memory of the others is to be given back all the same
            log.exception("the model '%s' could not be closed", backend.name)
