"""Which events are known again, and what is left of them."""

from __future__ import annotations

import tracemalloc

import pytest

from openai_compat.services.event_template import MAX_SAMPLES, MAX_TEMPLATE_BYTES, EventTemplate


def event(text: bytes, end: bytes = b"") -> bytes:
    return b'data: {"id":"c","choices":[{"delta":{"content":"' + text + b'"},"finish_reason":null}]' + end + b"}\n\n"


@pytest.fixture
def usual() -> EventTemplate:
    usual = EventTemplate()
    usual.train(event(b"first"), event(b"first"))
    return usual


@pytest.mark.parametrize("text", [b"", b" second", b"\\n", b'a \\"word\\"', b"\\\\", "é 😀".encode(), b"x" * 10_000])
def test_another_text_is_known(usual: EventTemplate, text: bytes) -> None:
    assert usual.match(event(text)) == event(text)


@pytest.mark.parametrize(
    "text", [b'"', b"\\", b"\n\ndata: ", b"\r\r", b"\\\r", b'"},"finish_reason":"stop"}],"a":[{"b":{"c":"']
)
def test_what_leaves_its_quotes_is_not(usual: EventTemplate, text: bytes) -> None:
    assert usual.match(event(text)) is None


def test_anything_else_is_not(usual: EventTemplate) -> None:
    for other in (
        b"",
        b"data: [DONE]\n\n",
        event(b"a", end=b',"usage":{}'),
        event(b"a") + event(b"b"),
        event(b"a")[:-2],
    ):
        assert usual.match(other) is None
    assert EventTemplate().match(event(b"a")) is None


def test_what_was_taken_out_of_the_first_is_taken_out_of_the_others() -> None:
    usual = EventTemplate()
    usual.train(event(b"first", end=b',"usage":null'), event(b"first"))
    assert usual.match(event(b"second", end=b',"usage":null')) == event(b"second")


def test_an_event_that_was_changed_before_its_text_teaches_nothing() -> None:
    usual = EventTemplate()
    usual.train(event(b"first"), event(b"first").replace(b'"id":"c",', b""))
    assert usual.match(event(b"second")) is None


def test_it_learns_a_few_times_only() -> None:
    usual = EventTemplate()
    for number in range(MAX_SAMPLES + 1):
        usual.train(event(b"a", end=b',"n":%d' % number), event(b"a", end=b',"n":%d' % number))
    assert usual.match(event(b"b", end=b',"n":%d' % (MAX_SAMPLES - 1)))
    assert usual.match(event(b"b", end=b',"n":%d' % MAX_SAMPLES)) is None


def test_what_is_around_a_large_text_is_not_kept() -> None:
    usual = EventTemplate()
    large = event(b"x", end=b',"image":"%s"' % (b"i" * MAX_TEMPLATE_BYTES))
    usual.train(large, large)
    assert usual.match(large) is None


@pytest.mark.parametrize("text", [b"x" * 1_000_000, b"\\n" * 500_000])
def test_a_long_text_takes_no_memory_of_its_own(usual: EventTemplate, text: bytes) -> None:
    long = event(text)
    tracemalloc.start()
    assert usual.match(long) == long
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(text) / 10
