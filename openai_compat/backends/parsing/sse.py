"""From blocks of bytes, cut anywhere, to server-sent events, lines or text, as each of them becomes whole.

Every parser takes `blocks` as `UpstreamResponse.blocks` yields them, lets `HEARTBEAT` through in its place, costs
time in proportion to the bytes it reads however they are cut, and closes `blocks` when it ends or is closed, even if it
was never asked for anything. Bytes that are not text in the stream's encoding are an error, never a replacement
character: an answer with holes must not look like a whole one.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterator
from functools import wraps
from typing import Final, NamedTuple, ParamSpec, TypeVar

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.streams import HEARTBEAT, Heartbeat, close_stream

MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
"""The longest event or line that is put together in memory."""

BYTE_ORDER_MARK: Final = codecs.BOM_UTF8
Blocks = Iterator[bytes | Heartbeat]
TextStream = Generator[str | Heartbeat, None, None]
P = ParamSpec("P")
T = TypeVar("T")


def primed(generator: Callable[P, Generator[T, None, None]]) -> Callable[P, Generator[T, None, None]]:
    """Runs a generator to its first `yield` when it is made, so that its `close()` reaches its `finally` even if nobody
    ever asks for a value. That first yield, a `HEARTBEAT` as the first line of its `try`, is taken here.
    """

    @wraps(generator)
    def start(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        stream = generator(*args, **kwargs)
        next(stream)
        return stream

    return start


class SSEEvent(NamedTuple):
    """A server-sent event that has a name."""

    name: str
    data: str


def iterate_events(blocks: Blocks) -> TextStream:
    """The `data` of each server-sent event, its lines joined with a line feed; other fields and comments are skipped.

    Follows the WHATWG's parsing rules (line ends LF, CRLF or CR; one space after the colon dropped; an event without
    data is none), with one exception: what the end of the stream leaves unfinished is yielded, because some servers
    leave out the last line ends. The reader of a half event notices that it does not parse; nobody notices a lost one.

    Raises:
        UpstreamReplyError: an event longer than `MAX_RECORD_BYTES`, or not UTF-8.
        whatever `blocks` raises.
    """
    return _iterate_records(blocks, _read_data)


def iterate_named_events(blocks: Blocks) -> Generator[str | SSEEvent | Heartbeat, None, None]:
    """The same, with their names where they have any; one that has a name and no data is an event, too."""
    return _iterate_records(blocks, _read_named_event)


@primed
def _iterate_records(blocks: Blocks, read: Callable[[bytes], T | None]) -> Generator[T | Heartbeat, None, None]:
    """What `read` makes of each record between empty lines, where it is anything."""
    try:
        yield HEARTBEAT
        records = _RecordSplitter(b"\n\n")
        for block in blocks:
            if isinstance(block, Heartbeat):
                yield block
                continue
            for record in records.feed(block):
                if event := read(record):
                    yield event
        if event := read(records.rest()):
            yield event
    finally:
        close_stream(blocks)


@primed
def iterate_lines(blocks: Blocks) -> TextStream:
    """Each line without its end (LF, CRLF or CR), empty ones too; the last needs no end.

    Raises:
        UpstreamReplyError: a line longer than `MAX_RECORD_BYTES`, or not UTF-8.
        whatever `blocks` raises.
    """
    try:
        yield HEARTBEAT
        records = _RecordSplitter(b"\n")
        for block in blocks:
            if isinstance(block, Heartbeat):
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
    """The text as it arrives, in non-empty pieces that end between characters.

    Raises:
        UpstreamReplyError: bytes that are no text in `encoding`.
        whatever `blocks` raises.
    """
    try:
        yield HEARTBEAT
        decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
        for block in blocks:
            if isinstance(block, Heartbeat):
                yield block
            elif text := _decode_part(decoder, block):
                yield text
        if text := _decode_part(decoder, b"", is_last=True):
            yield text
    finally:
        close_stream(blocks)


class _RecordSplitter:
    """Cuts blocks at a separator of one or two line feeds, and keeps what is unfinished.

    Line ends become line feeds first, and a byte order mark before the first record is dropped. Each byte is searched
    and copied a fixed number of times, whatever the blocks.
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
        """The records that `block` completes."""
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
        """What the last separator is still awaited for, once no block follows."""
        rest = bytes(self._pending)
        return rest.removeprefix(BYTE_ORDER_MARK) if self._is_first else rest

    def _unify_line_ends(self, block: bytes) -> bytes:
        """CRLF and CR become LF; the LF of a CRLF that was cut in two is dropped, its CR already counted."""
        if self._ended_with_return and block.startswith(b"\n"):
            block = block[1:]
            self._ended_with_return = False
        if block:
            self._ended_with_return = block.endswith(b"\r")
        return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check_size(self, size: int) -> None:
        if size > MAX_RECORD_BYTES:
            raise UpstreamInvalidResponseError(
                f"The upstream sent an event or a line of more than {MAX_RECORD_BYTES} bytes."
            )


def _read_data(record: bytes) -> str:
    """The data of one event, '' for none."""
    if record.startswith(b"data: ") and b"\n" not in record:
        return _decode(record[6:])
    lines = []
    for line in record.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return _decode(b"\n".join(lines))


def _read_named_event(record: bytes) -> str | SSEEvent:
    """The event, '' for a comment or anything else that is none."""
    if record.startswith(b"data: ") and b"\n" not in record:
        return _decode(record[6:])
    name = b""
    for line in record.split(b"\n"):
        if line.startswith(b"event:"):
            name = line[6:].removeprefix(b" ")
    data = _read_data(record)
    return SSEEvent(_decode(name), data) if name else data


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
    return UpstreamInvalidResponseError(f"The upstream sent bytes that are not {encoding} text.")
