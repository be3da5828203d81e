"""Parsers for server-sent events, lines (NDJSON) and text in a stream of bytes.

Each parser takes `blocks` as `UpstreamResponse.blocks` yields them and passes on `HEARTBEAT` in its position. Its
running time is linear in the bytes, however they are divided into blocks. It closes `blocks` when it ends or is closed,
even before the first value. Bytes that are invalid in the stream's encoding raise an error. They never become
replacement characters, because an altered answer must not look complete.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterator
from functools import wraps
from typing import Final, NamedTuple, ParamSpec, TypeVar

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.streams import HEARTBEAT, Heartbeat, close_stream

MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
"""The size limit of an event or a line."""

BYTE_ORDER_MARK: Final = codecs.BOM_UTF8
ERROR_EVENT: Final = "error"
"""Name of the events that report an error."""
_FIELD: Final = re.compile(rb"[\w-]*:|(?:id|retry)$")
Blocks = Iterator[bytes | Heartbeat]
TextStream = Generator[str | Heartbeat, None, None]
P = ParamSpec("P")
T = TypeVar("T")


def primed(generator: Callable[P, Generator[T, None, None]]) -> Callable[P, Generator[T, None, None]]:
    """Decorate a generator function to run up to its first `yield` when it is called.

    `close()` then reaches the generator's `finally` even before the first value is read. The first yielded value, a
    `HEARTBEAT` at the start of the generator's `try`, is dropped.
    """

    @wraps(generator)
    def start(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        stream = generator(*args, **kwargs)
        next(stream)
        return stream

    return start


class SSEEvent(NamedTuple):
    """A server-sent event that is more than its data.

    `name` is the field `event`, or `error` for a field `error`, which some servers send. `strays` are the lines that
    belong to no field, such as JSON in the line after `data:`. `is_cut` is True for an event without its end, at the
    end of the stream.
    """

    name: str = ""
    data: str = ""
    strays: str = ""
    is_cut: bool = False


@primed
def iterate_events(blocks: Blocks) -> Generator[str | SSEEvent | Heartbeat, None, None]:
    """Yield the data of each server-sent event, its lines joined with a line feed, or an `SSEEvent`.

    The parser follows the WHATWG's rules: lines end with LF, CRLF or CR, one space after the colon is dropped, and
    comments, unknown fields, and events without data and name are ignored. With two exceptions: lines that belong to
    no field are reported, because they may be content. An unfinished event at the end of the stream is yielded,
    because some servers omit the last line ends.

    Raises:
        UpstreamInvalidResponseError: An event is longer than `MAX_RECORD_BYTES` or not UTF-8.
    """
    try:
        yield HEARTBEAT
        records = _RecordSplitter(b"\n\n")
        for block in blocks:
            if block is HEARTBEAT:
                yield block
                continue
            yield from filter(None, map(_parse_event, records.feed(block)))
            del block  # it may be large, and the next one may come much later
        if event := _parse_event(records.rest()):
            yield (SSEEvent(data=event) if isinstance(event, str) else event)._replace(is_cut=True)
    finally:
        close_stream(blocks)


@primed
def iterate_lines(blocks: Blocks) -> TextStream:
    """Yield each line, empty ones included, without its end (LF, CRLF or CR). The last line needs no end.

    Raises:
        UpstreamInvalidResponseError: A line is longer than `MAX_RECORD_BYTES` or not UTF-8.
    """
    try:
        yield HEARTBEAT
        records = _RecordSplitter(b"\n")
        for block in blocks:
            if block is HEARTBEAT:
                yield block
                continue
            for record in records.feed(block):
                yield _decode(record)
        if rest := records.rest():
            yield _decode(rest)
    finally:
        close_stream(blocks)


@primed
def iterate_text(blocks: Blocks, encoding: str = "utf-8") -> TextStream:
    """Yield the text as it arrives, in non-empty strings of complete characters.

    Raises:
        UpstreamInvalidResponseError: The bytes are invalid in `encoding`.
    """
    try:
        yield HEARTBEAT
        decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
        for block in blocks:
            if block is HEARTBEAT:
                yield block
            elif text := _decode_part(decoder, block):
                yield text
        if text := _decode_part(decoder, b"", is_last=True):
            yield text
    finally:
        close_stream(blocks)


class _RecordSplitter:
    """Splitter of blocks into records at a separator of one or two line feeds. It keeps the unfinished record.

    All line ends become line feeds first, and a byte order mark before the first record is dropped. Each byte is
    searched and copied a constant number of times, however the bytes are divided into blocks.
    """

    __slots__ = ("_ended_with_return", "_held", "_is_first", "_is_paired", "_pending", "_separator")

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self._is_paired = len(separator) == 2
        self._is_first = True
        self._pending = bytearray()
        self._held = b""
        self._ended_with_return = False

    def feed(self, block: bytes) -> list[bytes]:
        """Return the records that `block` completes."""
        if self._ended_with_return or b"\r" in block:
            block = self._unify_line_ends(block)
        if self._held:
            block, self._held = self._held + block, b""
        if self._is_paired and block.endswith(b"\n") and not block.endswith(b"\n\n"):
            block, self._held = block[:-1], b"\n"
        records = block.split(self._separator)
        rest = records.pop()
        if self._pending and records:
            self._check_size(len(self._pending) + len(records[0]))
            records[0] = bytes(self._pending + records[0])
            self._pending = bytearray()
        if self._is_first and records:
            records[0] = records[0].removeprefix(BYTE_ORDER_MARK)
            self._is_first = False
        if rest:
            self._check_size(len(self._pending) + len(rest))
            self._pending += rest
        return records

    def rest(self) -> bytes:
        """Return the unfinished record at the end of the stream."""
        rest = bytes(self._pending)
        return rest.removeprefix(BYTE_ORDER_MARK) if self._is_first else rest

    def _unify_line_ends(self, block: bytes) -> bytes:
        """Replace CRLF and CR by LF. Drop an LF whose CR ended the previous block, where it was replaced already."""
        if self._ended_with_return and block.startswith(b"\n"):
            block = block[1:]
            self._ended_with_return = False
        if block:
            self._ended_with_return = block.endswith(b"\r")
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check_size(self, size: int) -> None:
        if size > MAX_RECORD_BYTES:
            raise UpstreamInvalidResponseError(
                f"The upstream sent an event or a line longer than {MAX_RECORD_BYTES} bytes."
            )


def _parse_event(record: bytes) -> str | SSEEvent:
    """Return the event, or '' for a comment or a record without name and data."""
    if record.startswith(b"data: ") and b"\n" not in record:
        return _decode(record[6:])
    name = b""
    lines, strays = [], []
    for line in record.split(b"\n"):
        field, colon, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
        elif field == b"error" and colon:
            return SSEEvent(ERROR_EVENT, _decode(value.removeprefix(b" ")))
        elif line and _FIELD.match(line) is None:
            strays.append(line)
    data = _decode(b"\n".join(lines))
    return SSEEvent(_decode(name), data, _decode(b"\n".join(strays))) if name or strays else data


def _decode(record: bytes) -> str:
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        raise _encoding_error("UTF-8") from error


def _decode_part(decoder: codecs.IncrementalDecoder, block: bytes, *, is_last: bool = False) -> str:
    try:
        return decoder.decode(block, is_last)
    except UnicodeDecodeError as error:
        raise _encoding_error(error.encoding) from error


def _encoding_error(encoding: str) -> UpstreamInvalidResponseError:
    return UpstreamInvalidResponseError(f"The upstream sent bytes that are not valid {encoding}.")
