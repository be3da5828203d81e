"""Which events are known again, and what is left of them."""

from __future__ import annotations

import tracemalloc

import pytest

from openai_compat.services.sse_relay import MOST_BYTES, MOST_LESSONS, UsualEvent


def event(text: bytes, end: bytes = b"") -> bytes:
    return b'data: {"id":"c","choices":[{"delta":{"content":"' + text + b'"},"finish_reason":null}]' + end + b"}\n\n"


@pytest.fixture
def usual() -> UsualEvent:
    usual = UsualEvent()
    usual.learn(event(b"first"), event(b"first"))
    return usual


@pytest.mark.parametrize("text", [b"", b" second", b"\\n", b'a \\"word\\"', b"\\\\", "é 😀".encode(), b"x" * 10_000])
def test_another_text_is_known(usual: UsualEvent, text: bytes) -> None:
    assert usual.keep(event(text)) == event(text)


@pytest.mark.parametrize(
    "text", [b'"', b"\\", b"\n\ndata: ", b"\r\r", b"\\\r", b'"},"finish_reason":"stop"}],"a":[{"b":{"c":"']
)
def test_what_leaves_its_quotes_is_not(usual: UsualEvent, text: bytes) -> None:
    assert usual.keep(event(text)) is None


def test_anything_else_is_not(usual: UsualEvent) -> None:
    for other in (
        b"",
        b"data: [DONE]\n\n",
        event(b"a", end=b',"usage":{}'),
        event(b"a") + event(b"b"),
        event(b"a")[:-2],
    ):
        assert usual.keep(other) is None
    assert UsualEvent().keep(event(b"a")) is None


def test_what_was_taken_out_of_the_first_is_taken_out_of_the_others() -> None:
    usual = UsualEvent()
    usual.learn(event(b"first", end=b',"usage":null'), event(b"first"))
    assert usual.keep(event(b"second", end=b',"usage":null')) == event(b"second")


def test_an_event_that_was_changed_before_its_text_teaches_nothing() -> None:
    usual = UsualEvent()
    usual.learn(event(b"first"), event(b"first").replace(b'"id":"c",', b""))
    assert usual.keep(event(b"second")) is None


def test_it_learns_a_few_times_only() -> None:
    usual = UsualEvent()
    for number in range(MOST_LESSONS + 1):
        usual.learn(event(b"a", end=b',"n":%d' % number), event(b"a", end=b',"n":%d' % number))
    assert usual.keep(event(b"b", end=b',"n":%d' % (MOST_LESSONS - 1)))
    assert usual.keep(event(b"b", end=b',"n":%d' % MOST_LESSONS)) is None


def test_what_is_around_a_large_text_is_not_kept() -> None:
    usual = UsualEvent()
    large = event(b"x", end=b',"image":"%s"' % (b"i" * MOST_BYTES))
    usual.learn(large, large)
    assert usual.keep(large) is None


@pytest.mark.parametrize("text", [b"x" * 1_000_000, b"\\n" * 500_000])
def test_a_long_text_takes_no_memory_of_its_own(usual: UsualEvent, text: bytes) -> None:
    long = event(text)
    tracemalloc.start()
    assert usual.keep(long) == long
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(text) / 10
