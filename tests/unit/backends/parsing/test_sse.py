"""The parsers of streamed replies: what they find in the bytes, however the network cuts them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from openai_compat.backends.parsing import sse as event_stream
from openai_compat.backends.parsing.sse import (
    SSEEvent,
    iterate_events,
    iterate_lines,
    iterate_named_events,
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
    "line ends mixed": (b"data: a\n\r\ndata: b\r\n\ndata: c\r\r\ndata: d\n\r", ["a", "b", "c", "d"]),
    "data on many lines": (b"data: a\ndata: b\r\ndata:\ndata: c\n\n", ["a\nb\n\nc"]),
    "comments": (b": ping\n\n:\n: x\ndata: a\n: y\n\n", ["a"]),
    "other fields": (b"id: 1\nevent: message\nretry: 9\ndata: a\nunknown: x\n\n", ["a"]),
    "names that only begin like data": (b"database: x\ndata : y\n data: z\n\n", []),
    "data without a colon": (b"data\n\ndata\ndata\n\n", ["\n"]),
    "empty data": (b"data:\n\ndata: \n\ndata: a\n\n", ["a"]),
    "blank lines": (b"\n\n\n\ndata: a\n\n\ndata: b\n\n\n\n\n", ["a", "b"]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["a", "b"]),
    "a second byte order mark is a name": (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"]),
    "colons in the data": (b'data: {"a": ": b"}\n\n', ['{"a": ": b"}']),
    "UTF-8": (f"data: {SMILE}\n\n".encode(), [SMILE]),
    "other line ends of Unicode": ("data: a\u2028b\x0bc\x85d\n\n".encode(), ["a\u2028b\x0bc\x85d"]),
    "the end leaves out a blank line": (b"data: a\n\ndata: [DONE]\n", ["a", "[DONE]"]),
    "the end leaves out all": (b"data: a\r\n\r\ndata: [DONE]", ["a", "[DONE]"]),
    "nothing but a mark": (b"\xef\xbb\xbf", []),
    "a mark and an event without an end": (b"\xef\xbb\xbfdata: a", ["a"]),
    "nothing": (b"", []),
}

LINES = {
    "LF": (b"a\nb\n", ["a", "b"]),
    "no end": (b"a\nb", ["a", "b"]),
    "CRLF and CR": (b"a\r\nb\rc\r\n", ["a", "b", "c"]),
    "empty lines": (b"\na\n\n\r\nb\n", ["", "a", "", "", "b"]),
    "byte order mark": (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
    "UTF-8": (f"{SMILE}\n{SMILE}".encode(), [SMILE, SMILE]),
}


def cut(content: bytes, *places: int) -> Iterator[bytes | Heartbeat]:
    """`content` in blocks that end at `places`; none is empty."""
    borders = sorted({0, *places, len(content)})
    return iter([content[start:end] for start, end in pairwise(borders)])


class Blocks:
    """Blocks that know whether they were closed, and may break off."""

    def __init__(self, *blocks: bytes | Heartbeat, error: Exception | None = None) -> None:
        self.blocks = list(blocks)
        self.error = error
        self.closings = 0

    def __iter__(self) -> Blocks:
        return self

    def __next__(self) -> bytes | Heartbeat:
        if self.blocks:
            return self.blocks.pop(0)
        if self.error:
            raise self.error
        raise StopIteration

    def close(self) -> None:
        self.closings += 1


@pytest.mark.parametrize(("content", "expected"), EVENTS.values(), ids=EVENTS)
def test_events_are_the_same_however_the_bytes_are_cut(content: bytes, expected: list[str]) -> None:
    assert list(iterate_events(cut(content))) == expected
    assert list(iterate_events(cut(content, *range(len(content))))) == expected
    for place in range(len(content)):
        assert list(iterate_events(cut(content, place))) == expected


@pytest.mark.parametrize(("content", "expected"), LINES.values(), ids=LINES)
def test_lines_are_the_same_however_the_bytes_are_cut(content: bytes, expected: list[str]) -> None:
    assert list(iterate_lines(cut(content))) == expected
    assert list(iterate_lines(cut(content, *range(len(content))))) == expected
    for place in range(len(content)):
        assert list(iterate_lines(cut(content, place))) == expected


def by_the_letter(content: bytes) -> list[str]:
    """The WHATWG's algorithm, line by line, as slow and plain as it is written there; plus the unfinished event."""
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
def test_any_soup_of_fields_and_line_ends_in_any_blocks_reads_by_the_letter(seed: int) -> None:
    choice = random.Random(seed)
    words = ["data: ", "data:", "data", "event: x", "id:", ": c", SMILE, "{}"]
    words += ["\n", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r"]
    content = "".join(choice.choices(words, k=60)).encode()
    expected = by_the_letter(content)
    for _ in range(20):
        places = choice.sample(range(len(content)), choice.randint(0, min(40, len(content))))
        assert list(iterate_events(cut(content, *places))) == expected
        named = [event for event in iterate_named_events(cut(content, *places)) if not isinstance(event, Heartbeat)]
        data = [event.data if isinstance(event, SSEEvent) else event for event in named]
        assert [text for text in data if text] == expected


def test_events_have_names() -> None:
    content = b": c\n\nevent: a\ndata: 1\n\ndata: 2\nevent:b\n\nevent: c\n\ndata: 3\n\nid: 4\n\n"
    expected = [("a", "1"), ("b", "2"), ("c", ""), "3"]
    for place in range(len(content)):
        assert list(iterate_named_events(cut(content, place))) == expected


@pytest.mark.parametrize("seed", range(20))
def test_text_comes_whole_characters_at_a_time(seed: int) -> None:
    choice = random.Random(seed)
    content = b"\xef\xbb\xbf" + (SMILE * 20).encode()
    pieces = list(iterate_text(cut(content, *choice.sample(range(len(content)), 50))))
    assert "" not in pieces
    assert "".join(map(str, pieces)) == SMILE * 20


def test_text_in_another_encoding() -> None:
    assert list(iterate_text(cut("né".encode("latin-1")), "iso-8859-1")) == ["né"]


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
def test_silence_passes_in_its_place(parser: Callable[[Blocks], Iterator[str | Heartbeat]]) -> None:
    blocks = Blocks(HEARTBEAT, b"data: a\n", HEARTBEAT, b"\ndata: b\n\n", HEARTBEAT)
    found = [HEARTBEAT if isinstance(piece, Heartbeat) else "x" for piece in parser(blocks)]
    assert found[0] is found[-1] is HEARTBEAT
    assert found.count(HEARTBEAT) == 3


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
@pytest.mark.parametrize("content", [b"data: \xff\n\n", b"data: \xf0\x9f\x98", b"data: caf\xe9\ndata: x\n\n"])
def test_bytes_that_are_no_text_are_an_error(
    parser: Callable[[Blocks], Iterator[str | Heartbeat]], content: bytes
) -> None:
    with pytest.raises(UpstreamInvalidResponseError, match=r"not utf-8 text|not UTF-8 text"):
        list(parser(Blocks(content)))


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
def test_closing_closes_the_blocks_started_or_not(parser: Callable[[Blocks], Iterator[str | Heartbeat]]) -> None:
    untouched, started, finished = (Blocks(b"data: a\n\n", b"data: b\n\n") for _ in range(3))
    parser(untouched).close()  # type: ignore[attr-defined]
    stream = parser(started)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    list(parser(finished))
    assert (untouched.closings, started.closings, finished.closings) == (1, 1, 1)


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines, iterate_text])
def test_a_broken_connection_stays_one(parser: Callable[[Blocks], Iterator[str | Heartbeat]]) -> None:
    blocks = Blocks(b"data: a\n\ndata: b", error=UpstreamTruncatedError("cut"))
    with pytest.raises(UpstreamTruncatedError):
        list(parser(blocks))
    assert blocks.closings == 1


@pytest.mark.parametrize("parser", [iterate_events, iterate_lines])
def test_an_endless_record_is_given_up(
    parser: Callable[[Iterator[bytes]], Iterator[str | Heartbeat]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_RECORD_BYTES", 1000)
    with pytest.raises(UpstreamInvalidResponseError, match="more than 1000 bytes"):
        list(parser(b"data:" + b"x" * 95 for _ in range(11)))


def test_a_long_event_costs_time_in_proportion_to_its_length() -> None:
    """16 MB in blocks of 1,000 bytes: a buffer copied for each block would move 128 GB."""
    blocks = [b"data: ", *[b"x" * 1000] * 16_000, b"\n\n"]
    (event,) = iterate_events(iter(blocks))
    assert event == "x" * 16_000_000
