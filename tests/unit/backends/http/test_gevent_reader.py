"""Waiting under gevent: woken by what arrives, by the time that is up, and by nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import gevent
import pytest

from openai_compat.backends.http.gevent_reader import SocketReader

LONG = 30.0
SHORT = 0.02


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def wait(sockets: tuple[socket.socket, socket.socket]) -> Iterator[SocketReader]:
    wait = SocketReader(sockets[0].fileno())
    yield wait
    wait.close()


@pytest.fixture
def peer(sockets: tuple[socket.socket, socket.socket]) -> socket.socket:
    return sockets[1]


@pytest.mark.parametrize("seconds", [None, LONG])
def test_reads_what_is_there_and_what_comes_later(
    wait: SocketReader, peer: socket.socket, seconds: float | None
) -> None:
    peer.send(b"there")
    assert wait.read(100, seconds) == b"there"
    gevent.spawn_later(SHORT, peer.send, b"later")
    assert wait.read(100, seconds) == b"later"
    gevent.spawn_later(SHORT, peer.close)
    assert wait.read(100, seconds) == b""


def test_time_that_is_up_is_an_error_and_the_next_read_goes_on(wait: SocketReader, peer: socket.socket) -> None:
    for _ in range(2):
        with pytest.raises(TimeoutError):
            wait.read(100, SHORT)
    peer.send(b"after")
    assert wait.read(100, SHORT) == b"after"


def test_a_short_limit_after_a_long_one_is_kept(wait: SocketReader, peer: socket.socket) -> None:
    peer.send(b"at once")
    assert wait.read(100, LONG) == b"at once"
    with gevent.Timeout(LONG / 3), pytest.raises(TimeoutError):
        wait.read(100, SHORT)


def test_a_limit_begins_with_its_own_wait(wait: SocketReader, peer: socket.socket) -> None:
    """The timer that an earlier wait has set rings during a later one, and says nothing."""
    for _ in range(5):
        peer.send(b"soon")
        assert wait.read(100, 5 * SHORT) == b"soon"
        gevent.sleep(2 * SHORT)
    gevent.spawn_later(4 * SHORT, peer.send, b"in time")
    assert wait.read(100, LONG) == b"in time"


def test_without_a_limit_no_earlier_timer_ends_the_wait(wait: SocketReader, peer: socket.socket) -> None:
    peer.send(b"soon")
    assert wait.read(100, SHORT) == b"soon"
    gevent.spawn_later(3 * SHORT, peer.send, b"late")
    assert wait.read(100, None) == b"late"


def test_what_arrives_while_nobody_waits_is_kept_and_wakes_nobody(wait: SocketReader, peer: socket.socket) -> None:
    peer.send(b"first")
    assert wait.read(100, LONG) == b"first"
    peer.send(b"second")
    gevent.sleep(SHORT)
    assert not wait._readable.active  # or the loop would turn without a pause
    assert wait.read(100, LONG) == b"second"


def test_each_of_many_gets_its_own() -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    for ours, _ in pairs:
        ours.setblocking(False)
    waits = [SocketReader(ours.fileno()) for ours, _ in pairs]
    readers = [gevent.spawn(wait.read, 100, LONG) for wait in waits]
    gevent.sleep(0)
    for number, (_, theirs) in reversed(list(enumerate(pairs))):
        theirs.send(b"%d" % number)
    assert [reader.get(timeout=LONG) for reader in readers] == [b"%d" % number for number in range(20)]
    for wait, pair in zip(waits, pairs, strict=True):
        wait.close()
        for sock in pair:
            sock.close()


def test_who_reads_while_it_is_closed_hears_of_it(wait: SocketReader) -> None:
    reader = gevent.spawn(wait.read, 100, None)
    gevent.sleep(0)
    wait.close()
    with pytest.raises(OSError, match="closed"):
        reader.get(timeout=LONG)


def test_one_that_is_killed_waits_no_more(wait: SocketReader, peer: socket.socket) -> None:
    reader = gevent.spawn(wait.read, 100, LONG)
    gevent.sleep(0)
    reader.kill()
    peer.send(b"for the next")
    assert wait.read(100, LONG) == b"for the next"
