"""Loading, waiting, failures, concurrency limits and eviction in the engine's model pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.local.engine_config import EngineConfig
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import (
    CallCancelledError,
    ModelBusyError,
    ModelNotFoundError,
    ModelUnavailableError,
    OpenAICompatError,
)
from openai_compat.core.settings import ModelConfig
from openai_compat.sidecars.huggingface import model_pool
from openai_compat.sidecars.huggingface.model_pool import ModelPool
from tests.support.waiting import wait_until

TIMEOUT = 20.0
"""Seconds that bound a failing test."""


class Loaded(Backend):
    """Model that reports its memory and records whether it was closed."""

    def __init__(self, name: str, memory_bytes: int) -> None:
        super().__init__(ModelConfig(name, "huggingface"), None, None)  # type: ignore[arg-type]
        self.memory_bytes = memory_bytes
        self.is_closed = False
        self.is_running = True

    def close(self) -> None:
        self.is_closed = True


class Loader:
    """Loader that waits for `may_load`, makes models of given `sizes`, raises given `errors` and records calls."""

    def __init__(self) -> None:
        self.may_load = threading.Event()
        self.may_load.set()
        self.sizes: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}
        self.loaded: list[Loaded] = []
        self.attempts: list[str] = []
        self.fetched: list[str] = []

    def fetch(self, model: LocalModel, progress: Callable[[str], None]) -> None:
        self.fetched.append(model.name)

    def load(self, model: LocalModel, progress: Callable[[str], None]) -> Backend:
        self.attempts.append(model.name)
        progress("half way")
        assert self.may_load.wait(TIMEOUT)
        if model.name in self.errors:
            raise self.errors[model.name]
        self.loaded.append(Loaded(model.name, self.sizes.get(model.name, 0)))
        return self.loaded[-1]

    def estimate(self, model: LocalModel) -> int | None:
        return None


@pytest.fixture
def loader() -> Iterator[Loader]:
    made = Loader()
    yield made
    made.may_load.set()


def make_pool(loader: Loader, *names: str, max_batch: int = 4, **config: Any) -> ModelPool:
    models = tuple(LocalModel(name=name, hf_repo="x", max_batch=max_batch) for name in names or ("a",))
    return ModelPool(EngineConfig(models, "unused:here", **config), loader)


@contextmanager
def using(pool: ModelPool, name: str) -> Iterator[Backend]:
    backend = pool.acquire(name, CancellationToken())
    try:
        yield backend
    finally:
        pool.release(name)


def state(pool: ModelPool, name: str = "a") -> str:
    return str(pool.describe(name)["state"])


def test_a_model_whose_process_has_ended_is_loaded_again(loader: Loader) -> None:
    pool = make_pool(loader)
    with using(pool, "a") as first:
        loader.loaded[0].is_running = False
        with using(pool, "a") as second:
            assert (first, second) == tuple(loader.loaded)
    assert [backend.is_closed for backend in loader.loaded] == [True, False]


def test_concurrent_callers_load_a_model_once_and_share_it(loader: Loader) -> None:
    loader.may_load.clear()
    pool = make_pool(loader, max_batch=20)
    assert state(pool) == "absent"
    with ThreadPoolExecutor(20) as threads:
        acquired = [threads.submit(pool.acquire, "a", CancellationToken()) for _ in range(20)]
        wait_until(lambda: state(pool) == "loading" and pool.describe("a").get("progress") == "half way")
        loader.may_load.set()
        assert {future.result(TIMEOUT) for future in acquired} == {loader.loaded[0]}
    assert loader.attempts == ["a"]
    assert (state(pool), pool.describe("a")["callers"]) == ("ready", 20)


def test_models_are_loaded_one_by_one_and_downloaded_concurrently(loader: Loader) -> None:
    """Loading changes global state of libraries. Downloading takes long and changes none."""
    loader.may_load.clear()
    pool = make_pool(loader, "a", "b", preload=("a", "b"))
    wait_until(lambda: len(loader.fetched) == 2 and len(loader.attempts) == 1)
    assert [state(pool, name) for name in "ab"] == ["loading", "loading"]
    loader.may_load.set()
    wait_until(lambda: [state(pool, name) for name in "ab"] == ["ready", "ready"])


def test_an_unknown_model_is_not_found(loader: Loader) -> None:
    with pytest.raises(ModelNotFoundError):
        make_pool(loader).acquire("b", CancellationToken())


def test_preloaded_models_are_loaded_without_a_call(loader: Loader) -> None:
    pool = make_pool(loader, preload=("a",))
    wait_until(lambda: state(pool) == "ready")


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        (ModelUnavailableError("It has no weights."), "It has no weights."),
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("no", name="transformers.models"), "'transformers', which is not installed"),
        (RuntimeError("/a/secret/path"), "(RuntimeError)"),
    ],
)
def test_a_failed_load_is_reported_with_its_cause_and_not_repeated(
    loader: Loader, cause: Exception, shown: str
) -> None:
    loader.errors["a"] = cause
    pool = make_pool(loader)
    for _ in range(3):
        with pytest.raises(ModelUnavailableError) as caught:
            pool.acquire("a", CancellationToken())
        assert shown in caught.value.message
        assert "secret" not in caught.value.message
    assert loader.attempts == ["a"]
    description = pool.describe("a")
    assert (description["state"], description["error"]) == ("failed", caught.value.message)
    assert "callers" not in description


def test_a_failed_load_is_tried_again_after_its_ttl(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    loader.errors["a"] = RuntimeError()
    pool = make_pool(loader)
    with pytest.raises(ModelUnavailableError):
        pool.acquire("a", CancellationToken())
    del loader.errors["a"]
    monkeypatch.setattr(model_pool, "FAILURE_TTL", 0.0)
    with using(pool, "a") as backend:
        assert backend is loader.loaded[0]


def test_callers_stop_waiting_at_the_timeout_and_loading_continues(loader: Loader) -> None:
    loader.may_load.clear()
    pool = make_pool(loader, load_timeout=0.05)
    with pytest.raises(ModelBusyError) as caught:
        pool.acquire("a", CancellationToken())
    assert caught.value.code == "model_loading"
    assert caught.value.retry_after > 0
    loader.may_load.set()
    wait_until(lambda: state(pool) == "ready")
    with using(pool, "a"):
        assert loader.attempts == ["a"]


def test_a_cancelled_caller_releases_its_slot_while_the_model_loads(loader: Loader) -> None:
    loader.may_load.clear()
    pool = make_pool(loader)
    cancellation = CancellationToken()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.acquire, "a", cancellation)
        wait_until(lambda: pool.describe("a").get("callers") == 1)
        cancellation.cancel()
        with pytest.raises(CallCancelledError):
            waiting.result(TIMEOUT)
    assert "callers" not in pool.describe("a")
    assert state(pool) == "loading"


def test_calls_beyond_the_capacity_are_refused(loader: Loader) -> None:
    pool = make_pool(loader, max_batch=2, queue_limit=1)
    for _ in range(3):
        pool.acquire("a", CancellationToken())
    with pytest.raises(ModelBusyError) as caught:
        pool.acquire("a", CancellationToken())
    assert caught.value.retry_after > 0
    pool.release("a")
    pool.acquire("a", CancellationToken())


class TestMemory:
    def test_the_least_recently_used_model_is_evicted(self, loader: Loader) -> None:
        loader.sizes = {"a": 4_000_000, "b": 4_000_000, "c": 4_000_000}
        pool = make_pool(loader, "a", "b", "c", memory_bytes=9_000_000)
        for name in ("a", "b", "a"):
            with using(pool, name):
                pass
        with using(pool, "c"):
            assert [state(pool, name) for name in "abc"] == ["ready", "absent", "ready"]
        wait_until(lambda: loader.loaded[1].is_closed)
        assert [(model.name, model.is_closed) for model in loader.loaded] == [("a", False), ("b", True), ("c", False)]

    def test_an_evicted_model_is_loaded_again(self, loader: Loader) -> None:
        loader.sizes = {"a": 6_000_000, "b": 6_000_000}
        pool = make_pool(loader, "a", "b", memory_bytes=9_000_000)
        for name in ("a", "b", "a"):
            with using(pool, name) as backend:
                assert backend.name == name
        assert loader.attempts == ["a", "b", "a"]

    def test_a_busy_model_is_not_evicted_but_waited_for(self, loader: Loader) -> None:
        loader.sizes = {"a": 6_000_000, "b": 6_000_000}
        loader.estimate = lambda model: 6_000_000  # type: ignore[method-assign]
        pool = make_pool(loader, "a", "b", memory_bytes=9_000_000)
        with ThreadPoolExecutor(1) as threads:
            with using(pool, "a"):
                waiting = threads.submit(pool.acquire, "b", CancellationToken())
                wait_until(lambda: "memory" in pool.describe("b").get("progress", ""))
                assert not loader.loaded[0].is_closed
            assert waiting.result(TIMEOUT).name == "b"
        assert loader.loaded[0].is_closed

    def test_no_memory_while_others_are_busy_is_not_remembered_as_a_failure(self, loader: Loader) -> None:
        loader.sizes = {"a": 6_000_000, "b": 6_000_000}
        loader.estimate = lambda model: 6_000_000  # type: ignore[method-assign]
        pool = make_pool(loader, "a", "b", memory_bytes=9_000_000, load_timeout=0.05)
        with using(pool, "a"):
            with pytest.raises(ModelBusyError):
                pool.acquire("b", CancellationToken())
            wait_until(lambda: state(pool, "b") == "absent")
        with using(pool, "b") as backend:
            assert backend.name == "b"

    @pytest.mark.parametrize("is_known", [True, False])
    def test_a_model_larger_than_the_budget_is_refused(self, loader: Loader, is_known: bool) -> None:
        loader.sizes = {"a": 20_000_000}
        if is_known:
            loader.estimate = lambda model: 20_000_000  # type: ignore[method-assign]
        pool = make_pool(loader, memory_bytes=9_000_000)
        with pytest.raises(ModelUnavailableError, match="needs 20 MB"):
            pool.acquire("a", CancellationToken())
        assert [model.is_closed for model in loader.loaded] == ([] if is_known else [True])

    def test_an_error_in_closing_a_model_does_not_keep_others_open(self, loader: Loader, monkeypatch: Any) -> None:
        pool = make_pool(loader, "a", "b")
        for name in "ab":
            with using(pool, name):
                pass

        def fail() -> None:
            raise OSError

        monkeypatch.setattr(loader.loaded[0], "close", fail)
        pool.close()
        assert loader.loaded[1].is_closed
        assert (state(pool, "a"), state(pool, "b")) == ("absent", "absent")


def test_each_caller_gets_its_own_error_object(loader: Loader) -> None:
    """A shared one would collect the tracebacks of all callers."""
    loader.errors["a"] = ModelUnavailableError("no")
    pool = make_pool(loader)
    caught: list[OpenAICompatError] = []
    for _ in range(2):
        with pytest.raises(ModelUnavailableError) as raised:
            pool.acquire("a", CancellationToken())
        caught.append(raised.value)
    assert caught[0] is not caught[1]
