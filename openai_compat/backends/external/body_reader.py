"""Body reader of external replies, which detects the format of the bytes and converts them to deltas.

The formats are a JSON document, lines of JSON, server-sent events with JSON or text, and plain text. The first bytes
count more than the `Content-Type`.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Final, Literal, Protocol

from openai_compat.backends.http.messages import UpstreamResponse, limit_size
from openai_compat.backends.parsing.answer_format import CARRIES_CONTENT, MAX_WHITE_SPACE_BYTES
from openai_compat.backends.parsing.openai_chat import END_OF_STREAM
from openai_compat.backends.parsing.sse import (
    BYTE_ORDER_MARK,
    Blocks,
    SSEEvent,
    iterate_events,
    iterate_lines,
    iterate_text,
    primed,
)
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.large_json import parse_json
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.tokens import split_tokens
from openai_compat.core.types import ChatDelta

from .heuristic_reader import is_reply

Deltas = Generator[ChatDelta | Heartbeat, None, None]
BodyFormat = Literal["events", "lines", "document", "text", "json"]
"""`document` is detected JSON that may turn out to be lines of JSON. `json` is declared and always one document."""


class ReplyReader(Protocol):
    """Reader of the values and texts of one reply, either a `HeuristicReader` or a `DeclaredReader`."""

    @property
    def has_answer(self) -> bool: ...

    def read_value(self, value: Any) -> Iterator[ChatDelta]: ...

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]: ...

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]: ...

    def read_complete(self, value: Any) -> Iterator[ChatDelta]: ...

    def read_text(self, text: str) -> Iterator[ChatDelta]: ...

    def read_end(self, *, is_complete: bool) -> Iterator[ChatDelta]: ...


EVENT_PREFIXES: Final = (b"data:", b"event:", b"error:", b"retry:", b"id:", b":")
SSE_PREFIXES: Final = (b"data:", b"event:")
"""Prefixes that mean server-sent events under any `Content-Type`. Few plain text answers begin like this."""
HTML_PREFIXES: Final = (b"<!doctype", b"<html")
LINE_TYPES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
     "application/jsonlines", "application/stream+json", "application/json-seq"}
)  # fmt: skip

_KNOWN_PREFIXES: Final = (*EVENT_PREFIXES, *HTML_PREFIXES)
_MAX_PREFIX_BYTES: Final = max(map(len, _KNOWN_PREFIXES))
_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_JSON_PREFIXES: Final = ("{", "[", '"')
_LINE_PADDING: Final = " \t\x1e"
"""White space and the record separator of RFC 7464."""


@primed
def read_body(
    reply: UpstreamResponse, reader: ReplyReader, body_format: BodyFormat | None, *, simulate_stream: bool
) -> Deltas:
    """Yield the deltas of a reply of status 200 and close the reply, also when closed early.

    `body_format` is the declared format. Without one, it is detected. A complete answer is one delta, or one for each
    token with `simulate_stream`.

    Raises:
        UpstreamInvalidResponseError: no text was found, or the body does not have the format that its beginning has.
        UpstreamTruncatedError: the stream ended without the end mark that its format has.
        UpstreamAuthenticationError, UpstreamStatusError, UpstreamError: the body reports an error.

    Errors from reading the reply are passed on.
    """
    try:
        yield HEARTBEAT
        yield from _BodyReader(reply, reader, simulate_stream).deltas(body_format)
    finally:
        reply.close()


class _BodyReader:
    def __init__(self, reply: UpstreamResponse, reader: ReplyReader, simulate_stream: bool) -> None:
        self._reply = reply
        self._reader = reader
        self._simulate_stream = simulate_stream
        self._media_type, self._encoding = _parse_content_type(reply.headers.get("content-type", ""))
        self._is_text_type = self._media_type.startswith("text/")
        self._has_json_events: dict[str, bool] = {}

    def deltas(self, body_format: BodyFormat | None) -> Deltas:
        blocks: Blocks = self._reply.blocks()
        if body_format is None:
            beginning = yield from _peek(blocks)
            body_format = _detect_format(self._media_type, _to_prefix(beginning))
            blocks = chain([beginning], blocks)
        if body_format in {"json", "document"}:
            blocks = limit_size(blocks, self._reply.max_bytes, self._reply.close)
        if body_format == "json":
            yield from self._read_json(iterate_lines(blocks))
        elif body_format == "events":
            yield from self._read_events(blocks)
        elif body_format == "lines":
            yield from self._read_lines(iterate_lines(blocks))
        elif body_format == "document":
            yield from self._read_document(iterate_lines(blocks))
        else:
            yield from self._read_text(blocks)

    def _read_events(self, blocks: Blocks) -> Deltas:
        for event in iterate_events(blocks):
            if event is HEARTBEAT:
                yield event
                continue
            name, data, strays, _ = event if isinstance(event, SSEEvent) else ("", event, "", False)
            if strays:
                raise UpstreamInvalidResponseError(_BROKEN_EVENT)
            if data == END_OF_STREAM:
                yield from self._reader.read_end(is_complete=True)
                self._reply.release()
                return
            yield from self._read_event(name, data)
        yield from self._reader.read_end(is_complete=False)

    def _read_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        """Return the deltas of one event.

        The first event of each name decides whether events that look like JSON are parsed: a chunk of plain text may
        be a bracket.
        """
        looks_like_json = data.lstrip("\n").startswith(_JSON_PREFIXES)
        has_json = self._has_json_events.get(name)
        if has_json is None:
            has_json = self._has_json_events[name] = looks_like_json and _parse_json(data) is not _INVALID
            if looks_like_json and not has_json and CARRIES_CONTENT.search(data.encode("utf-8", "replace")):
                raise UpstreamInvalidResponseError(_BROKEN_EVENT)
        if not (looks_like_json and has_json):
            return self._reader.read_text_event(name, data)
        value = _parse_event(data)
        if not name and type(value) is dict:
            return self._reader.read_value(value)
        return self._reader.read_event(name, value)

    def _read_lines(self, lines: Iterable[str | Heartbeat]) -> Deltas:
        for line in lines:
            if line is HEARTBEAT:
                yield line
            elif text := line.strip(_LINE_PADDING):
                yield from self._reader.read_value(_parse_event(text))
        yield from self._reader.read_end(is_complete=False)

    def _read_document(self, lines: Iterator[str | Heartbeat]) -> Deltas:
        """Yield the deltas of a JSON document, or of lines of JSON if the first line is JSON and another follows."""
        first = yield from _next_line(lines)
        value = _parse_json(first)
        if value is not _INVALID and (is_reply(value) or not self._is_text_type):
            second = yield from _next_line(lines)
            if second:
                yield from self._read_lines(chain([first, second], lines))
                return
            lines = iter(())
        document = [first]
        for line in lines:
            if line is HEARTBEAT:
                yield line
            else:
                document.append(line)
        yield from self._read_detected("\n".join(document))

    def _read_json(self, lines: Iterator[str | Heartbeat]) -> Deltas:
        """Yield the deltas of a reply that is declared as one JSON document."""
        document = []
        for line in lines:
            if line is HEARTBEAT:
                yield line
            else:
                document.append(line)
        value = _parse_json("\n".join(document))
        if value is _INVALID:
            raise UpstreamInvalidResponseError("The external API's reply is not valid JSON.")
        yield from self._split([*self._reader.read_complete(value), *self._reader.read_end(is_complete=True)])

    def _read_detected(self, document: str) -> Iterator[ChatDelta]:
        """Return the deltas of a document that begins like JSON.

        Plain text that is JSON without the shape of a reply is itself the answer: the model was asked for JSON.
        """
        value = _parse_json(document)
        if value is not _INVALID:
            deltas = list(self._reader.read_complete(value))
            if not self._is_text_type or self._reader.has_answer:
                return self._split([*deltas, *self._reader.read_end(is_complete=True)])
        elif not self._is_text_type and document.startswith(_JSON_PREFIXES):
            raise UpstreamInvalidResponseError("The external API's reply is not valid JSON.")
        return self._split([*self._reader.read_text(document), *self._reader.read_end(is_complete=True)])

    def _read_text(self, blocks: Blocks) -> Deltas:
        """Yield the deltas of plain text. Without a `Content-Length` the API streams, and its chunks are kept."""
        is_complete = "content-length" in self._reply.headers
        for chunk in iterate_text(blocks, self._encoding):
            if chunk is HEARTBEAT:
                yield chunk
            else:
                deltas = self._reader.read_text(chunk)
                yield from self._split(deltas) if is_complete else deltas
        yield from self._reader.read_end(is_complete=True)

    def _split(self, deltas: Iterable[ChatDelta]) -> Iterator[ChatDelta]:
        """Yield one delta for each token if a stream is to be simulated, else the deltas as they are."""
        for delta in deltas:
            if not self._simulate_stream or not delta.content:
                yield delta
                continue
            *tokens, last = split_tokens(delta.content)
            if delta.reasoning:
                yield ChatDelta(reasoning=delta.reasoning)
            for token in tokens:
                yield ChatDelta(token)
            yield replace(delta, content=last, reasoning=None)


_INVALID: Final = object()
_BROKEN_EVENT: Final = "The external API sent an event or a line that is not valid JSON."


def _parse_json(text: str) -> Any:
    """Return the value, or `_INVALID`."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return _INVALID


def _parse_event(text: str) -> Any:
    value = _parse_json(text)
    if value is _INVALID:
        raise UpstreamInvalidResponseError(_BROKEN_EVENT)
    return value


def _peek(blocks: Blocks) -> Generator[Heartbeat, None, bytes]:
    """Return as many bytes as are needed to detect the format, or all there are. Yield heartbeats meanwhile.

    Raises:
        UpstreamInvalidResponseError: The body begins with more than `MAX_WHITE_SPACE_BYTES` of white space.
    """
    beginning = b""
    for block in blocks:
        if block is HEARTBEAT:
            yield block
            continue
        beginning += block
        prefix = _to_prefix(beginning)
        if len(prefix) >= _MAX_PREFIX_BYTES or (
            prefix and not any(known.startswith(prefix) for known in _KNOWN_PREFIXES)
        ):
            break
        if len(beginning) > MAX_WHITE_SPACE_BYTES:
            raise UpstreamInvalidResponseError("The external API's reply begins with too much white space.")
    return beginning


def _to_prefix(beginning: bytes) -> bytes:
    return beginning.removeprefix(BYTE_ORDER_MARK).lstrip()[:_MAX_PREFIX_BYTES].lower()


def _next_line(lines: Iterator[str | Heartbeat]) -> Generator[Heartbeat, None, str]:
    """Return the next line that is not empty, or "" at the end. Yield heartbeats meanwhile."""
    for line in lines:
        if line is HEARTBEAT:
            yield line
        elif text := line.strip(_LINE_PADDING):
            return text
    return ""


def _detect_format(media_type: str, prefix: bytes) -> BodyFormat:
    """Return the format of a body by its media type and its first bytes.

    Raises:
        UpstreamInvalidResponseError: the body is empty, or a web page that is not declared as plain text, in which a
            model may have been asked for one.
    """
    if not prefix:
        raise UpstreamInvalidResponseError("The external API's reply is empty.")
    if media_type != "text/plain" and prefix.startswith(HTML_PREFIXES):
        raise UpstreamInvalidResponseError("The external API's reply is an HTML page, not an answer. Check its URL.")
    if prefix.startswith(EVENT_PREFIXES if media_type == "text/event-stream" else SSE_PREFIXES):
        return "events"
    if media_type in LINE_TYPES:
        return "lines"
    is_json_type = media_type.endswith(("/json", "+json"))
    is_quoted = prefix.startswith(b'"') and not media_type.startswith("text/")
    return "document" if is_json_type or is_quoted or prefix.startswith((b"{", b"[")) else "text"


def _parse_content_type(value: str) -> tuple[str, str]:
    """Return media type and charset in lower case. The charset is UTF-8 if none or an unknown one is named."""
    media_type, _, parameters = value.partition(";")
    found = _CHARSET.search(parameters)
    encoding = found[1].lower() if found else "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        encoding = "utf-8"
    return media_type.strip().lower(), "utf-8" if encoding in {"utf8", "us-ascii", "ascii"} else encoding
