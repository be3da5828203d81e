"""Concurrency limiter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import CallCancelledError, OverloadedError, UpstreamBusyError
from tests.support.waiting import wait_until


@pytest.fixture
def in_thread() -> Callable[[Callable[[], None]], Future[None]]:
    return ThreadPoolExecutor(8).submit


def queued(limiter: ConcurrencyLimiter) -> int:
    return len(limiter._queue)


def test_calls_beyond_the_limit_fail_with_a_retry_after() -> None:
    limiter = ConcurrencyLimiter(2, 0, 7)
    limiter.acquire(CancellationToken())
    limiter.acquire(CancellationToken())
    with pytest.raises(OverloadedError) as refused:
        limiter.acquire(CancellationToken())
    assert refused.value.retry_after == 7
    limiter.release()
    limiter.acquire(CancellationToken())


def test_the_check_fails_when_a_call_would_and_takes_no_slot() -> None:
    limiter = ConcurrencyLimiter(1, 0, 7)
    for _ in range(2):
        limiter.check()
    limiter.acquire(CancellationToken())
    with pytest.raises(OverloadedError):
        limiter.check()
    limiter.release()
    limiter.check()


def test_the_error_class_can_be_chosen() -> None:
    with pytest.raises(UpstreamBusyError):
        ConcurrencyLimiter(0, 5, 0, UpstreamBusyError).acquire(CancellationToken())


def test_waiters_get_slots_in_first_in_first_out_order(in_thread: Callable[..., Future[None]]) -> None:
    limiter, order = ConcurrencyLimiter(1, 3, 10), list[int]()

    def call(number: int) -> None:
        limiter.acquire(CancellationToken())
        order.append(number)
        limiter.release()

    limiter.acquire(CancellationToken())
    waiting = []
    for number in range(3):
        waiting.append(in_thread(call, number))
        wait_until(lambda: queued(limiter) == len(waiting))
    with pytest.raises(OverloadedError):
        limiter.acquire(CancellationToken())
    limiter.release()
    for future in waiting:
        future.result(5)
    assert order == [0, 1, 2]
    limiter.acquire(CancellationToken())  # every slot was released


def test_a_wait_that_times_out_fails_and_leaves_the_queue() -> None:
    limiter = ConcurrencyLimiter(1, 1, 0.05)
    limiter.acquire(CancellationToken())
    for _ in range(3):
        with pytest.raises(OverloadedError):
            limiter.acquire(CancellationToken())
    limiter.release()
    limiter.acquire(CancellationToken())
    assert not queued(limiter)


def test_a_cancelled_waiter_leaves_the_queue(in_thread: Callable[..., Future[None]]) -> None:
    limiter, call = ConcurrencyLimiter(1, 1, 10), CancellationToken()
    limiter.acquire(CancellationToken())
    waiting = in_thread(limiter.acquire, call)
    wait_until(lambda: queued(limiter) == 1)
    call.cancel()
    with pytest.raises(CallCancelledError):
        waiting.result(5)
    assert not queued(limiter)
    limiter.release()
    limiter.acquire(CancellationToken())


def test_a_slot_granted_to_a_waiter_that_is_cancelled_at_that_moment_is_released(
    in_thread: Callable[..., Future[None]],
) -> None:
    limiter, call = ConcurrencyLimiter(1, 1, 10), CancellationToken()
    limiter.acquire(CancellationToken())
    waiting = in_thread(limiter.acquire, call)
    wait_until(lambda: queued(limiter) == 1)
    with limiter._lock:  # both happen before the waiter runs
        waiter = limiter._queue.popleft()
        waiter.is_granted = True
        call.cancel()
    with pytest.raises(CallCancelledError):
        waiting.result(5)
    limiter.acquire(CancellationToken())


def test_no_slot_is_lost_among_many_calls_some_of_them_cancelled() -> None:
    limiter = ConcurrencyLimiter(3, 20, 0.02)
    active, peak, lock = [0], [0], threading.Lock()

    def run(number: int) -> None:
        call = CancellationToken()
        if not number % 3:
            threading.Timer(0.005, call.cancel).start()
        try:
            limiter.acquire(call)
        except (OverloadedError, CallCancelledError):
            return
        with lock:
            active[0] += 1
            peak[0] = max(peak[0], active[0])
        threading.Event().wait(0.004)
        with lock:
            active[0] -= 1
        limiter.release()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(run, range(200)))
    assert peak[0] == 3
    for _ in range(3):
        limiter.acquire(CancellationToken())
    with pytest.raises(OverloadedError):
        limiter.acquire(CancellationToken())
