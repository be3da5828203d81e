"""Socket reads under gevent, which end with data or a timeout and nothing else."""

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
def reader(sockets: tuple[socket.socket, socket.socket]) -> Iterator[SocketReader]:
    reader = SocketReader(sockets[0].fileno())
    yield reader
    reader.close()


@pytest.fixture
def upstream(sockets: tuple[socket.socket, socket.socket]) -> socket.socket:
    return sockets[1]


@pytest.mark.parametrize("seconds", [None, LONG])
def test_reads_data_that_is_present_and_data_that_arrives_later(
    reader: SocketReader, upstream: socket.socket, seconds: float | None
) -> None:
    upstream.send(b"there")
    assert reader.read(100, seconds) == b"there"
    gevent.spawn_later(SHORT, upstream.send, b"later")
    assert reader.read(100, seconds) == b"later"
    gevent.spawn_later(SHORT, upstream.close)
    assert reader.read(100, seconds) == b""


def test_a_timeout_is_an_error_and_the_next_read_works(reader: SocketReader, upstream: socket.socket) -> None:
    for _ in range(2):
        with pytest.raises(TimeoutError):
            reader.read(100, SHORT)
    upstream.send(b"after")
    assert reader.read(100, SHORT) == b"after"


def test_a_short_timeout_after_a_long_one(reader: SocketReader, upstream: socket.socket) -> None:
    upstream.send(b"at once")
    assert reader.read(100, LONG) == b"at once"
    with gevent.Timeout(LONG / 3), pytest.raises(TimeoutError):
        reader.read(100, SHORT)


def test_a_timeout_starts_with_its_own_read(reader: SocketReader, upstream: socket.socket) -> None:
    """Ignore the timer of an earlier read that fires during a later one."""
    for _ in range(5):
        upstream.send(b"soon")
        assert reader.read(100, 5 * SHORT) == b"soon"
        gevent.sleep(2 * SHORT)
    gevent.spawn_later(4 * SHORT, upstream.send, b"in time")
    assert reader.read(100, LONG) == b"in time"


def test_an_earlier_timer_does_not_end_a_read_without_a_timeout(reader: SocketReader, upstream: socket.socket) -> None:
    upstream.send(b"soon")
    assert reader.read(100, SHORT) == b"soon"
    gevent.spawn_later(3 * SHORT, upstream.send, b"late")
    assert reader.read(100, None) == b"late"


def test_data_without_a_waiting_greenlet_stops_the_watcher_and_is_kept(
    reader: SocketReader, upstream: socket.socket
) -> None:
    upstream.send(b"first")
    assert reader.read(100, LONG) == b"first"
    upstream.send(b"second")
    gevent.sleep(SHORT)
    assert not reader._watcher.active  # or the event loop would spin
    assert reader.read(100, LONG) == b"second"


def test_many_readers_receive_their_own_data() -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    for ours, _ in pairs:
        ours.setblocking(False)
    readers = [SocketReader(ours.fileno()) for ours, _ in pairs]
    reads = [gevent.spawn(reader.read, 100, LONG) for reader in readers]
    gevent.sleep(0)
    for number, (_, theirs) in reversed(list(enumerate(pairs))):
        theirs.send(b"%d" % number)
    assert [read.get(timeout=LONG) for read in reads] == [b"%d" % number for number in range(20)]
    for reader, pair in zip(readers, pairs, strict=True):
        reader.close()
        for sock in pair:
            sock.close()


def test_closing_raises_an_error_in_the_waiting_greenlet(reader: SocketReader) -> None:
    read = gevent.spawn(reader.read, 100, None)
    gevent.sleep(0)
    reader.close()
    with pytest.raises(OSError, match="closed"):
        read.get(timeout=LONG)


def test_a_killed_greenlet_waits_no_longer(reader: SocketReader, upstream: socket.socket) -> None:
    read = gevent.spawn(reader.read, 100, LONG)
    gevent.sleep(0)
    read.kill()
    upstream.send(b"for the next")
    assert reader.read(100, LONG) == b"for the next"
