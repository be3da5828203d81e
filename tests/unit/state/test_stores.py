"""State stores, which one suite covers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from openai_compat.core.errors import ConfigurationError
from openai_compat.state import open_store
from openai_compat.state import redis as redis_store
from openai_compat.state.base import StateStore, StoreError
from openai_compat.state.fallback import RETRY_INTERVAL, FallbackStore
from openai_compat.state.memory import MemoryStore
from openai_compat.state.sqlite import SQLiteStore
from tests.support.redis_server import running_redis
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
BRIEFLY = 0.15


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def two_clients(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[StateStore, StateStore]]:
    """Yield two clients of one store, as two workers have them."""
    stores: tuple[StateStore, StateStore]
    if request.param == "memory":
        stores = (one := MemoryStore(), one)
    elif request.param == "sqlite":
        stores = SQLiteStore(str(tmp_path / "deep" / "state")), SQLiteStore(str(tmp_path / "deep" / "state"))
    else:
        url = request.getfixturevalue("redis_url")
        stores = redis_store.RedisStore(url), redis_store.RedisStore(url)
        stores[0]._redis.flushall()
    yield stores
    for store in stores:
        store.close()


def test_one_client_reads_what_the_other_writes(two_clients: tuple[StateStore, StateStore]) -> None:
    one, other = two_clients
    one.write("a", "1", 60)
    one.write("b", "é", 60)
    one.write("b", "ü", 60)
    assert other.read(["a", "b", "c"]) == {"a": "1", "b": "ü"}
    other.delete("a")
    assert one.read(["a", "b"]) == {"b": "ü"}
    assert one.read([]) == {}


def test_values_counters_and_locks_expire(two_clients: tuple[StateStore, StateStore]) -> None:
    one, other = two_clients
    one.write("a", "1", BRIEFLY)
    one.increment("n", 5, BRIEFLY)
    assert one.set_if_absent("c", BRIEFLY)
    wait_until(lambda: not other.read(["a", "n", "c"]))
    assert other.increment("n", 1, 60) == 1
    assert other.set_if_absent("c", 60)


def test_a_counter_is_shared_and_expires_after_its_first_increment(two_clients: tuple[StateStore, StateStore]) -> None:
    one, other = two_clients
    assert [one.increment("n", 1, 60), other.increment("n", 2, 60), one.increment("n", -1, 60)] == [1, 3, 2]
    one.increment("m", 1, BRIEFLY)
    other.increment("m", 1, 60)
    wait_until(lambda: "m" not in other.read(["m"]))


def test_a_single_one_of_many_concurrent_callers_sets_an_absent_key(two_clients: tuple[StateStore, StateStore]) -> None:
    one, other = two_clients
    won: list[bool] = []

    def claim(store: StateStore) -> None:
        while True:
            with suppress(StoreError):  # a busy store fails after a short wait
                return won.append(store.set_if_absent("c", 60))

    claimants = [threading.Thread(target=claim, args=(store,)) for store in (one, other) * 4]
    for claimant in claimants:
        claimant.start()
    for claimant in claimants:
        claimant.join()
    assert sorted(won) == [False] * 7 + [True]
    one.delete("c")
    assert other.set_if_absent("c", 60)


@pytest.mark.parametrize("count", [3000])
def test_expired_entries_are_deleted(tmp_path: Path, count: int) -> None:
    now = [0.0]
    memory, file = MemoryStore(lambda: now[0]), SQLiteStore(str(tmp_path / "state"), lambda: now[0])
    for number in range(count):
        now[0] += 1
        memory.write(str(number), "x", 10)
        file.write(str(number), "x", 10)
    assert len(memory._entries) <= 1010
    assert file._execute("SELECT COUNT(*) FROM state", ())[0][0] <= 1010
    file.close()


@pytest.mark.parametrize("exists", [False, True], ids=["new", "of an earlier version"])
def test_the_files_are_readable_by_their_user_only(tmp_path: Path, *, exists: bool) -> None:
    path = tmp_path / "state"
    if exists:
        path.touch(mode=0o644)
    with closing(SQLiteStore(str(path))) as store:
        store.write("key", "value", 60)
        files = sorted(tmp_path.iterdir())
        assert [(file.name, file.stat().st_mode & 0o777) for file in files] == [
            ("state", 0o600), ("state-shm", 0o600), ("state-wal", 0o600),
        ]  # fmt: skip


def test_two_processes_count_together(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    script = (
        "import sys; from openai_compat.state.sqlite import SQLiteStore, StoreError\n"
        "store, count = SQLiteStore(sys.argv[1]), 0\n"
        "while count < 200:\n"
        "    try: count += bool(store.increment('n', 1, 60))\n"
        "    except StoreError: pass  # the other process held the lock for too long\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, path], cwd=ROOT) for _ in range(2)]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    assert SQLiteStore(path).read(["n"]) == {"n": "400"}


class BrokenStore(MemoryStore):
    """Store that fails while `is_broken` is True."""

    is_broken = True
    calls = 0

    def increment(self, key: str, amount: int, seconds: float) -> int:
        self.calls += 1
        if self.is_broken:
            raise StoreError("no route")
        return super().increment(key, amount, seconds)


def test_while_the_shared_store_fails_the_local_one_is_used_until_the_retry() -> None:
    now = [0.0]
    broken = BrokenStore()
    store = FallbackStore(broken, lambda: now[0])
    assert [store.increment("n", 1, 60), store.increment("n", 1, 60)] == [1, 2]
    assert broken.calls == 1
    broken.is_broken = False
    now[0] += RETRY_INTERVAL
    assert store.increment("n", 1, 60) == 1


@pytest.mark.parametrize("scheme", ["file", "redis"])
def test_an_unreachable_store_raises_a_store_error(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "no-folder").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    store: StateStore = SQLiteStore(str(tmp_path / "no-folder" / "state"))
    if scheme == "redis":
        store = redis_store.RedisStore(f"redis://127.0.0.1:{port}")
    with pytest.raises(StoreError):
        store.set_if_absent("a", 1)
    with pytest.raises(StoreError):
        store.increment("a", 1, 1)


def test_a_redis_that_does_not_reply_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = open_store(f"redis://127.0.0.1:{server.getsockname()[1]}")
        assert store.set_if_absent("a", 60)
        assert not store.set_if_absent("a", 60)


def test_a_worker_killed_during_a_call_releases_its_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    script = (
        "import sys; from openai_compat.state.sqlite import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1]); store.set_if_absent('a', 60)\n"
        "store._database.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    store = SQLiteStore(path)
    with pytest.raises(StoreError):
        store.write("b", "1", 60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert not store.set_if_absent("a", 60)


def test_the_url_selects_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store(None), MemoryStore)
    assert isinstance(open_store("memory:"), MemoryStore)
    assert open_store(f"sqlite:{tmp_path}/state").set_if_absent("a", 1)
    assert (tmp_path / "state").exists()


def test_a_missing_redis_extra_is_a_problem_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match="extra 'redis'"):
        open_store("redis://localhost")
