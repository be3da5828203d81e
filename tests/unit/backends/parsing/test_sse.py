"""Parsers of events, lines and text, with all divisions of the bytes into blocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from openai_compat.backends.parsing import sse
from openai_compat.backends.parsing.sse import (
    SSEEvent,
    iterate_events,
    iterate_lines,
    iterate_text,
)
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat

SMILE = "naïve 😀 漢字"

EVENTS = {
    "one": (b"data: a\n\n", ["a"]),
    "several in a block": (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    "no space after the colon": (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "CR": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "mixed line ends": (b"data: a\n\r\ndata: b\r\n\ndata: c\r\r\ndata: d\n\r", ["a", "b", "c", "d"]),
    "data of several lines": (b"data: a\ndata: b\r\ndata:\ndata: c\n\n", ["a\nb\n\nc"]),
    "comments": (b": ping\n\n:\n: x\ndata: a\n: y\n\n", ["a"]),
    "other fields": (b"id: 1\nevent: message\nretry: 9\ndata: a\nunknown: x\n\n", ["a"]),
    "fields with similar names": (b"database: x\ndata : y\n data: z\n\n", []),
    "data without a colon": (b"data\n\ndata\ndata\n\n", ["\n"]),
    "empty data": (b"data:\n\ndata: \n\ndata: a\n\n", ["a"]),
    "blank lines": (b"\n\n\n\ndata: a\n\n\ndata: b\n\n\n\n\n", ["a", "b"]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["a", "b"]),
    "a second byte order mark is part of the field name": (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"]),
    "colons in the data": (b'data: {"a": ": b"}\n\n', ['{"a": ": b"}']),
    "UTF-8": (f"data: {SMILE}\n\n".encode(), [SMILE]),
    "other line ends of Unicode": ("data: a\u2028b\x0bc\x85d\n\n".encode(), ["a\u2028b\x0bc\x85d"]),
    "no blank line at the end": (b"data: a\n\ndata: [DONE]\n", ["a", "[DONE]"]),
    "no line end at the end": (b"data: a\r\n\r\ndata: [DONE]", ["a", "[DONE]"]),
    "only a byte order mark": (b"\xef\xbb\xbf", []),
    "byte order mark and unfinished event": (b"\xef\xbb\xbfdata: a", ["a"]),
    "empty": (b"", []),
}

LINES = {
    "LF": (b"a\nb\n", ["a", "b"]),
    "no line end at the end": (b"a\nb", ["a", "b"]),
    "CRLF and CR": (b"a\r\nb\rc\r\n", ["a", "b", "c"]),
    "empty lines": (b"\na\n\n\r\nb\n", ["", "a", "", "", "b"]),
    "byte order mark": (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
    "UTF-8": (f"{SMILE}\n{SMILE}".encode(), [SMILE, SMILE]),
}


def split(content: bytes, *positions: int) -> Iterator[bytes | Heartbeat]:
    """Return `content` in non-empty blocks that end at `positions`."""
    borders = sorted({0, *positions, len(content)})
    return iter([content[start:end] for start, end in pairwise(borders)])


class Blocks:
    """An iterator of blocks that counts the calls of `close`, and may end with an error."""

    def __init__(self, *blocks: bytes | Heartbeat, error: Exception | None = None) -> None:
        self.blocks = list(blocks)
        self.error = error
        self.close_calls = 0

    def __iter__(self) -> Blocks:
        return self

    def __next__(self) -> bytes | Heartbeat:
        if self.blocks:
            return self.blocks.pop(0)
        if self.error:
            raise self.error
        raise StopIteration

    def close(self) -> None:
        self.close_calls += 1


def data_of(events: Iterator[str | SSEEvent | Heartbeat]) -> list[str]:
    """Return the data of the events that have some."""
    texts = [event.data if isinstance(event, SSEEvent) else event for event in events]
    return [text for text in texts if isinstance(text, str) and text]


@pytest.mark.parametrize(("content", "expected"), EVENTS.values(), ids=EVENTS)
def test_events_do_not_depend_on_the_blocks(content: bytes, expected: list[str]) -> None:
    assert data_of(iterate_events(split(content))) == expected
    assert data_of(iterate_events(split(content, *range(len(content))))) == expected
    for position in range(len(content)):
        assert data_of(iterate_events(split(content, position))) == expected


@pytest.mark.parametrize(("content", "expected"), LINES.values(), ids=LINES)
def test_lines_do_not_depend_on_the_blocks(content: bytes, expected: list[str]) -> None:
    assert list(iterate_lines(split(content))) == expected
    assert list(iterate_lines(split(content, *range(len(content))))) == expected
    for position in range(len(content)):
        assert list(iterate_lines(split(content, position))) == expected


def reference_events(content: bytes) -> list[str]:
    """Parse events with the WHATWG's algorithm as written, line by line, and add the unfinished event."""
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    events, data = [], list[str]()
    for line in [*text.split("\n"), ""]:
        if not line:
            if "\n".join(data):
                events.append("\n".join(data))
            data = []
        elif line == "data":
            data.append("")
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    return events


@pytest.mark.parametrize("seed", range(200))
def test_random_fields_and_line_ends_match_the_reference_parser(seed: int) -> None:
    chance = random.Random(seed)
    parts = ["data: ", "data:", "data", "event: x", "id:", ": c", SMILE, "{}"]
    parts += ["\n", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r"]
    content = "".join(chance.choices(parts, k=60)).encode()
    expected = reference_events(content)
    for _ in range(20):
        positions = chance.sample(range(len(content)), chance.randint(0, min(40, len(content))))
        assert data_of(iterate_events(split(content, *positions))) == expected


def test_named_events() -> None:
    content = b": c\n\nevent: a\ndata: 1\n\ndata: 2\nevent:b\n\nevent: c\n\ndata: 3\n\nid: 4\n\n"
    expected = [SSEEvent("a", "1"), SSEEvent("b", "2"), SSEEvent("c", ""), "3"]
    for position in range(len(content)):
        assert list(iterate_events(split(content, position))) == expected


def test_an_error_field_is_an_event_that_is_named_an_error() -> None:
    """Some servers write `error:` in place of `data:`."""
    assert list(iterate_events(split(b"error: out of memory\n\nerror\n\n"))) == [
        SSEEvent("error", "out of memory"),
        SSEEvent(strays="error"),
    ]


def test_lines_that_belong_to_no_field_are_reported() -> None:
    content = b'data:\n{"a": 1}\n\ndata: Hello\nwide world\n\nretry\nid\nx-field: y\n\n'
    assert list(iterate_events(split(content))) == [
        SSEEvent(strays='{"a": 1}'),
        SSEEvent(data="Hello", strays="wide world"),
    ]


def test_an_event_without_its_end_is_marked() -> None:
    assert list(iterate_events(split(b"data: a\n\ndata: b"))) == ["a", SSEEvent(data="b", is_cut=True)]
    assert list(iterate_events(split(b"event: x\ndata: b\n"))) == [SSEEvent("x", "b", is_cut=True)]


@pytest.mark.parametrize("seed", range(20))
def test_text_contains_only_complete_characters(seed: int) -> None:
    chance = random.Random(seed)
    content = b"\xef\xbb\xbf" + (SMILE * 20).encode()
    texts = list(iterate_text(split(content, *chance.sample(range(len(content)), 50))))
    assert "" not in texts
    assert "".join(map(str, texts)) == SMILE * 20


def test_text_in_another_encoding() -> None:
    assert list(iterate_text(split("né".encode("latin-1")), "iso-8859-1")) == ["né"]


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
def test_heartbeats_keep_their_position(parser: Callable[[Blocks], Iterator[str | Heartbeat]]) -> None:
    blocks = Blocks(HEARTBEAT, b"data: a\n", HEARTBEAT, b"\ndata: b\n\n", HEARTBEAT)
    found = [HEARTBEAT if isinstance(value, Heartbeat) else "x" for value in parser(blocks)]
    assert found[0] is found[-1] is HEARTBEAT
    assert found.count(HEARTBEAT) == 3


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
@pytest.mark.parametrize("content", [b"data: \xff\n\n", b"data: \xf0\x9f\x98", b"data: caf\xe9\ndata: x\n\n"])
def test_bytes_that_are_invalid_in_the_encoding_are_an_error(
    parser: Callable[[Blocks], Iterator[str | Heartbeat]], content: bytes
) -> None:
    with pytest.raises(UpstreamInvalidResponseError, match=r"not valid utf-8|not valid UTF-8"):
        list(parser(Blocks(content)))


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
def test_closing_a_parser_closes_its_blocks_even_before_the_first_value(
    parser: Callable[[Blocks], Iterator[str | Heartbeat]],
) -> None:
    unread, started, finished = (Blocks(b"data: a\n\n", b"data: b\n\n") for _ in range(3))
    parser(unread).close()  # type: ignore[attr-defined]
    stream = parser(started)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    list(parser(finished))
    assert (unread.close_calls, started.close_calls, finished.close_calls) == (1, 1, 1)


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
def test_an_error_of_the_blocks_is_raised_unchanged(parser: Callable[[Blocks], Iterator[str | Heartbeat]]) -> None:
    blocks = Blocks(b"data: a\n\ndata: b", error=UpstreamTruncatedError("cut"))
    with pytest.raises(UpstreamTruncatedError):
        list(parser(blocks))
    assert blocks.close_calls == 1


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines])
def test_a_record_above_the_size_limit_is_an_error(
    parser: Callable[[Iterator[bytes]], Iterator[str | Heartbeat]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_RECORD_BYTES", 1000)
    with pytest.raises(UpstreamInvalidResponseError, match="longer than 1000 bytes"):
        list(parser(b"data:" + b"x" * 95 for _ in range(11)))


def test_the_running_time_is_linear_in_the_length_of_an_event() -> None:
    """Parse 16 MB in blocks of 1,000 bytes. A buffer that is copied for each block would move 128 GB."""
    blocks = [b"data: ", *[b"x" * 1000] * 16_000, b"\n\n"]
    (event,) = iterate_events(iter(blocks))
    assert event == "x" * 16_000_000
