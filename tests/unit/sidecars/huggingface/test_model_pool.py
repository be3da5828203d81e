"""The engine's models: loaded once, waited for, forgotten when they fail, given up when the memory is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from openai_compat.backends.base import Backend
from openai_compat.backends.huggingface.engine_config import EngineConfig
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import (
    CallCancelledError,
    ModelBusyError,
    ModelNotFoundError,
    ModelUnavailableError,
    OpenAICompatError,
)
from openai_compat.core.settings import ModelConfig
from openai_compat.sidecars.huggingface import model_pool as store_module
from openai_compat.sidecars.huggingface.model_pool import ModelPool
from tests.contracts.backend_contract import wait_until

SECONDS = 10.0


class Loaded(Backend):
    """A model that says what it occupies, and whether it was closed."""

    def __init__(self, name: str, memory_bytes: int) -> None:
        super().__init__(ModelConfig(name, "huggingface"), None, None)  # type: ignore[arg-type]
        self.memory_bytes = memory_bytes
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Loader:
    """Loads what it is asked for, `sizes` large, once `may_go` is set; raises the `errors`; counts."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
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
        assert self.may_go.wait(SECONDS)
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
    made.may_go.set()


def make_store(loader: Loader, *names: str, max_batch: int = 4, **plan: Any) -> ModelPool:
    models = tuple(LocalModel(name=name, hf_repo="x", max_batch=max_batch) for name in names or ("a",))
    return ModelPool(EngineConfig(models, "unused:here", **plan), loader)


@contextmanager
def using(store: ModelPool, name: str) -> Iterator[Backend]:
    backend = store.acquire(name, CancellationToken())
    try:
        yield backend
    finally:
        store.release(name)


def state(store: ModelPool, name: str = "a") -> str:
    return str(store.describe(name)["state"])


def test_many_callers_load_it_once_and_share_it(loader: Loader) -> None:
    loader.may_go.clear()
    store = make_store(loader, max_batch=20)
    assert state(store) == "absent"
    with ThreadPoolExecutor(20) as pool:
        entered = [pool.submit(store.acquire, "a", CancellationToken()) for _ in range(20)]
        wait_until(lambda: state(store) == "loading" and store.describe("a").get("progress") == "half way", SECONDS)
        loader.may_go.set()
        assert {future.result(SECONDS) for future in entered} == {loader.loaded[0]}
    assert loader.attempts == ["a"]
    assert (state(store), store.describe("a")["callers"]) == ("ready", 20)


def test_one_model_is_loaded_at_a_time_while_others_are_fetched(loader: Loader) -> None:
    """What reads weights changes libraries' global state; what downloads them takes long, and none of it."""
    loader.may_go.clear()
    store = make_store(loader, "a", "b", preload=("a", "b"))
    wait_until(lambda: len(loader.fetched) == 2 and len(loader.attempts) == 1, SECONDS)
    assert [state(store, name) for name in "ab"] == ["loading", "loading"]
    loader.may_go.set()
    wait_until(lambda: [state(store, name) for name in "ab"] == ["ready", "ready"], SECONDS)


def test_an_unknown_model_is_not_found(loader: Loader) -> None:
    with pytest.raises(ModelNotFoundError):
        make_store(loader).acquire("b", CancellationToken())


def test_what_is_preloaded_is_there_before_anybody_asks(loader: Loader) -> None:
    store = make_store(loader, preload=("a",))
    wait_until(lambda: state(store) == "ready", SECONDS)


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (ModelUnavailableError("It has no weights."), "It has no weights."),
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("no", name="transformers.models"), "'transformers', which is not installed"),
        (RuntimeError("/a/secret/path"), "(RuntimeError)"),
    ],
)
def test_a_failed_load_is_told_with_its_cause_and_not_repeated(loader: Loader, cause: Exception, said: str) -> None:
    loader.errors["a"] = cause
    store = make_store(loader)
    for _ in range(3):
        with pytest.raises(ModelUnavailableError) as caught:
            store.acquire("a", CancellationToken())
        assert said in caught.value.message
        assert "secret" not in caught.value.message
    assert loader.attempts == ["a"]
    facts = store.describe("a")
    assert (facts["state"], facts["error"]) == ("failed", caught.value.message)
    assert "callers" not in facts


def test_after_a_while_a_failed_load_is_tried_again(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    loader.errors["a"] = RuntimeError()
    store = make_store(loader)
    with pytest.raises(ModelUnavailableError):
        store.acquire("a", CancellationToken())
    del loader.errors["a"]
    monkeypatch.setattr(store_module, "FAILURE_TTL", 0.0)
    with using(store, "a") as backend:
        assert backend is loader.loaded[0]


def test_callers_wait_no_longer_than_the_limit_while_it_loads_on(loader: Loader) -> None:
    loader.may_go.clear()
    store = make_store(loader, load_timeout=0.05)
    with pytest.raises(ModelBusyError) as caught:
        store.acquire("a", CancellationToken())
    assert caught.value.code == "model_loading"
    assert caught.value.retry_after > 0
    loader.may_go.set()
    wait_until(lambda: state(store) == "ready", SECONDS)
    with using(store, "a"):
        assert loader.attempts == ["a"]


def test_a_caller_who_leaves_while_it_loads_gives_the_place_back_at_once(loader: Loader) -> None:
    loader.may_go.clear()
    store = make_store(loader)
    cancellation = CancellationToken()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.acquire, "a", cancellation)
        wait_until(lambda: store.describe("a").get("callers") == 1, SECONDS)
        cancellation.cancel()
        with pytest.raises(CallCancelledError):
            waiting.result(SECONDS)
    assert "callers" not in store.describe("a")
    assert state(store) == "loading"


def test_more_callers_than_it_has_places_are_refused(loader: Loader) -> None:
    store = make_store(loader, max_batch=2, queue_limit=1)
    for _ in range(3):
        store.acquire("a", CancellationToken())
    with pytest.raises(ModelBusyError) as caught:
        store.acquire("a", CancellationToken())
    assert caught.value.retry_after > 0
    store.release("a")
    store.acquire("a", CancellationToken())


class TestMemory:
    def test_the_longest_unused_model_makes_room(self, loader: Loader) -> None:
        loader.sizes = {"a": 4_000_000, "b": 4_000_000, "c": 4_000_000}
        store = make_store(loader, "a", "b", "c", memory_bytes=9_000_000)
        for name in ("a", "b", "a"):
            with using(store, name):
                pass
        with using(store, "c"):
            assert [state(store, name) for name in "abc"] == ["ready", "absent", "ready"]
        wait_until(lambda: loader.loaded[1].is_closed, SECONDS)
        assert [(model.name, model.is_closed) for model in loader.loaded] == [("a", False), ("b", True), ("c", False)]

    def test_what_was_given_up_is_loaded_again(self, loader: Loader) -> None:
        loader.sizes = {"a": 6_000_000, "b": 6_000_000}
        store = make_store(loader, "a", "b", memory_bytes=9_000_000)
        for name in ("a", "b", "a"):
            with using(store, name) as backend:
                assert backend.name == name
        assert loader.attempts == ["a", "b", "a"]

    def test_a_busy_model_is_never_given_up_and_waited_for(self, loader: Loader) -> None:
        loader.sizes = {"a": 6_000_000, "b": 6_000_000}
        loader.estimate = lambda model: 6_000_000  # type: ignore[method-assign]
        store = make_store(loader, "a", "b", memory_bytes=9_000_000)
        with ThreadPoolExecutor(1) as pool:
            with using(store, "a"):
                waiting = pool.submit(store.acquire, "b", CancellationToken())
                wait_until(lambda: "memory" in store.describe("b").get("progress", ""), SECONDS)
                assert not loader.loaded[0].is_closed
            assert waiting.result(SECONDS).name == "b"
        assert loader.loaded[0].is_closed

    def test_others_that_stay_busy_are_told_and_not_remembered_as_a_failure(self, loader: Loader) -> None:
        loader.sizes = {"a": 6_000_000, "b": 6_000_000}
        loader.estimate = lambda model: 6_000_000  # type: ignore[method-assign]
        store = make_store(loader, "a", "b", memory_bytes=9_000_000, load_timeout=0.05)
        with using(store, "a"):
            with pytest.raises(ModelBusyError):
                store.acquire("b", CancellationToken())
            wait_until(lambda: state(store, "b") == "absent", SECONDS)
        with using(store, "b") as backend:
            assert backend.name == "b"

    @pytest.mark.parametrize("is_known", [True, False])
    def test_one_that_can_never_fit_is_refused(self, loader: Loader, is_known: bool) -> None:
        loader.sizes = {"a": 20_000_000}
        if is_known:
            loader.estimate = lambda model: 20_000_000  # type: ignore[method-assign]
        store = make_store(loader, memory_bytes=9_000_000)
        with pytest.raises(ModelUnavailableError, match="needs 20 MB"):
            store.acquire("a", CancellationToken())
        assert [model.is_closed for model in loader.loaded] == ([] if is_known else [True])

    def test_one_that_cannot_be_closed_keeps_no_other_open(self, loader: Loader, monkeypatch: Any) -> None:
        store = make_store(loader, "a", "b")
        for name in "ab":
            with using(store, name):
                pass

        def fail() -> None:
            raise OSError

        monkeypatch.setattr(loader.loaded[0], "close", fail)
        store.close()
        assert loader.loaded[1].is_closed
        assert (state(store, "a"), state(store, "b")) == ("absent", "absent")


def test_an_error_of_an_earlier_caller_is_not_shared(loader: Loader) -> None:
    """It carries the traceback of where it was raised, and would grow with each caller."""
    loader.errors["a"] = ModelUnavailableError("no")
    store = make_store(loader)
    caught: list[OpenAICompatError] = []
    for _ in range(2):
        with pytest.raises(ModelUnavailableError) as raised:
            store.acquire("a", CancellationToken())
        caught.append(raised.value)
    assert caught[0] is not caught[1]
