"""The template of a stream's common event, which lets the relay skip the inspection of similar events."""

from __future__ import annotations

import tracemalloc

import pytest

from openai_compat.services.event_template import MAX_SAMPLES, MAX_TEMPLATE_BYTES, EventTemplate


def event(text: bytes, end: bytes = b"") -> bytes:
    return b'data: {"id":"c","choices":[{"delta":{"content":"' + text + b'"},"finish_reason":null}]' + end + b"}\n\n"


@pytest.fixture
def template() -> EventTemplate:
    template = EventTemplate()
    template.train(event(b"first"), event(b"first"))
    return template


@pytest.mark.parametrize("text", [b"", b" second", b"\\n", b'a \\"word\\"', b"\\\\", "é 😀".encode(), b"x" * 10_000])
def test_an_event_with_another_text_matches(template: EventTemplate, text: bytes) -> None:
    assert template.match(event(text)) == event(text)


@pytest.mark.parametrize(
    "text", [b'"', b"\\", b"\n\ndata: ", b"\r\r", b"\\\r", b'"},"finish_reason":"stop"}],"a":[{"b":{"c":"']
)
def test_a_text_that_leaves_its_quotes_does_not_match(template: EventTemplate, text: bytes) -> None:
    assert template.match(event(text)) is None


def test_other_events_do_not_match(template: EventTemplate) -> None:
    for other in (
        b"",
        b"data: [DONE]\n\n",
        event(b"a", end=b',"usage":{}'),
        event(b"a") + event(b"b"),
        event(b"a")[:-2],
    ):
        assert template.match(other) is None
    assert EventTemplate().match(event(b"a")) is None


def test_a_field_removed_from_the_sample_is_removed_from_matches() -> None:
    template = EventTemplate()
    template.train(event(b"first", end=b',"usage":null'), event(b"first"))
    assert template.match(event(b"second", end=b',"usage":null')) == event(b"second")


def test_a_sample_changed_before_its_text_is_ignored() -> None:
    template = EventTemplate()
    template.train(event(b"first"), event(b"first").replace(b'"id":"c",', b""))
    assert template.match(event(b"second")) is None


def test_the_number_of_samples_is_limited() -> None:
    template = EventTemplate()
    for number in range(MAX_SAMPLES + 1):
        template.train(event(b"a", end=b',"n":%d' % number), event(b"a", end=b',"n":%d' % number))
    assert template.match(event(b"b", end=b',"n":%d' % (MAX_SAMPLES - 1)))
    assert template.match(event(b"b", end=b',"n":%d' % MAX_SAMPLES)) is None


def test_a_large_sample_is_ignored() -> None:
    template = EventTemplate()
    large = event(b"x", end=b',"image":"%s"' % (b"i" * MAX_TEMPLATE_BYTES))
    template.train(large, large)
    assert template.match(large) is None


@pytest.mark.parametrize("text", [b"x" * 1_000_000, b"\\n" * 500_000])
def test_matching_a_long_text_does_not_copy_it(template: EventTemplate, text: bytes) -> None:
    long = event(text)
    tracemalloc.start()
    assert template.match(long) == long
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(text) / 10
