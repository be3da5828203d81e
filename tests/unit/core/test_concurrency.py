"""A bounded number of calls at once, and a bounded queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import CallCancelledError, OverloadedError, UpstreamBusyError
from tests.unit.web.test_client_monitor import wait_until


@pytest.fixture
def in_thread() -> Callable[[Callable[[], None]], Future[None]]:
    return ThreadPoolExecutor(8).submit


def queued(gate: ConcurrencyLimiter) -> int:
    return len(gate._queue)


def test_as_many_as_may_are_let_in_and_the_next_is_told_when_to_come_again() -> None:
    gate = ConcurrencyLimiter(2, 0, 7)
    gate.acquire(CancellationToken())
    gate.acquire(CancellationToken())
    with pytest.raises(OverloadedError) as refused:
        gate.acquire(CancellationToken())
    assert refused.value.retry_after == 7
    gate.release()
    gate.acquire(CancellationToken())


def test_an_upstreams_gate_refuses_with_an_error_of_the_upstream() -> None:
    with pytest.raises(UpstreamBusyError):
        ConcurrencyLimiter(0, 5, 0, UpstreamBusyError).acquire(CancellationToken())


def test_who_waits_is_let_in_in_turn(in_thread: Callable[..., Future[None]]) -> None:
    gate, order = ConcurrencyLimiter(1, 3, 10), list[int]()

    def come(number: int) -> None:
        gate.acquire(CancellationToken())
        order.append(number)
        gate.release()

    gate.acquire(CancellationToken())
    waiting = []
    for number in range(3):
        waiting.append(in_thread(come, number))
        assert wait_until(lambda: queued(gate) == len(waiting))
    with pytest.raises(OverloadedError):
        gate.acquire(CancellationToken())
    gate.release()
    for one in waiting:
        one.result(5)
    assert order == [0, 1, 2]
    gate.acquire(CancellationToken())  # the place was given back as often as it was taken


def test_who_waits_too_long_is_refused_and_forgotten() -> None:
    gate = ConcurrencyLimiter(1, 1, 0.05)
    gate.acquire(CancellationToken())
    for _ in range(3):
        with pytest.raises(OverloadedError):
            gate.acquire(CancellationToken())
    gate.release()
    gate.acquire(CancellationToken())
    assert not queued(gate)


def test_who_leaves_while_waiting_frees_its_turn(in_thread: Callable[..., Future[None]]) -> None:
    gate, call = ConcurrencyLimiter(1, 1, 10), CancellationToken()
    gate.acquire(CancellationToken())
    waiting = in_thread(gate.acquire, call)
    assert wait_until(lambda: queued(gate) == 1)
    call.cancel()
    with pytest.raises(CallCancelledError):
        waiting.result(5)
    assert not queued(gate)
    gate.release()
    gate.acquire(CancellationToken())


def test_a_place_given_to_one_that_leaves_at_that_moment_is_passed_on(in_thread: Callable[..., Future[None]]) -> None:
    gate, call = ConcurrencyLimiter(1, 1, 10), CancellationToken()
    gate.acquire(CancellationToken())
    waiting = in_thread(gate.acquire, call)
    assert wait_until(lambda: queued(gate) == 1)
    with gate._lock:  # both happen before the waiting one can look
        place = gate._queue.popleft()
        place.is_given = True
        call.cancel()
    with pytest.raises(CallCancelledError):
        waiting.result(5)
    gate.acquire(CancellationToken())


def test_no_place_is_lost_when_many_come_go_and_leave() -> None:
    gate = ConcurrencyLimiter(3, 20, 0.02)
    inside, most, lock = [0], [0], threading.Lock()

    def come(number: int) -> None:
        call = CancellationToken()
        if not number % 3:
            threading.Timer(0.005, call.cancel).start()
        try:
            gate.acquire(call)
        except (OverloadedError, CallCancelledError):
            return
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.004)
        with lock:
            inside[0] -= 1
        gate.release()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(come, range(200)))
    assert most[0] == 3
    for _ in range(3):
        gate.acquire(CancellationToken())
    with pytest.raises(OverloadedError):
        gate.acquire(CancellationToken())
