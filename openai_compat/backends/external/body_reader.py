"""From the bytes of an external API's reply to deltas: finds out what the bytes are, and reads them as that.

The `Content-Type` says what they should be, their beginning what they are. Known are a JSON document, lines of JSON,
server-sent events with JSON or text in them, and text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Final, Literal, Protocol

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.backends.parsing.openai_chat import END_OF_STREAM
from openai_compat.backends.parsing.sse import (
    BYTE_ORDER_MARK,
    Blocks,
    SSEEvent,
    iterate_lines,
    iterate_named_events,
    iterate_text,
    primed,
)
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.tokens import split_tokens
from openai_compat.core.types import ChatDelta

from .heuristic_reader import is_reply

Deltas = Generator[ChatDelta | Heartbeat, None, None]
BodyFormat = Literal["events", "lines", "document", "text", "json"]
"""`document` is JSON that may turn out to be lines of it, `json` is what its row declares."""


class Reader(Protocol):
    """What reads the values and texts of one answer: `HeuristicReader`, or `DeclaredReader`."""

    @property
    def has_answer(self) -> bool: ...

    def read_value(self, value: Any) -> Iterator[ChatDelta]: ...

    def read_event(self, name: str, value: Any) -> Iterator[ChatDelta]: ...

    def read_text_event(self, name: str, data: str) -> Iterator[ChatDelta]: ...

    def read_whole(self, value: Any) -> Iterator[ChatDelta]: ...

    def read_text(self, text: str) -> Iterator[ChatDelta]: ...

    def read_end(self, *, is_proper: bool) -> Iterator[ChatDelta]: ...


EVENT_MARKS: Final = (b"data:", b"event:", b"retry:", b"id:", b":")
SSE_PREFIXES: Final = (b"data:", b"event:")
"""What makes events of a reply whose type says otherwise: few answers in plain text begin so."""
PAGE_MARKS: Final = (b"<!doctype", b"<html")
LINE_TYPES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
     "application/jsonlines", "application/stream+json", "application/json-seq"}
)  # fmt: skip

_MARKS: Final = (*EVENT_MARKS, *PAGE_MARKS)
_MAX_PREFIX_BYTES: Final = max(map(len, _MARKS))
_CHARSET: Final = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_JSON_BEGINNINGS: Final = ("{", "[", '"')
_LINE_PADDING: Final = " \t\x1e"
"""RFC 7464's record separator included."""


@primed
def read_external_reply(
    reply: UpstreamResponse, reader: Reader, form: BodyFormat | None, *, splits_whole: bool
) -> Deltas:
    """The answer in a reply of status 200; closes the reply, also when closed itself. `form` is what it is declared to
    be; without one, its bytes tell.

    An answer that comes as a whole is one delta, or with `splits_whole` one for each of its tokens.

    Raises:
        UpstreamReplyError: no text is found, or the bytes are not what they begin like.
        UpstreamCutError: a stream of the kind that says its end did not.
        UpstreamAuthenticationError, UpstreamStatusError, UpstreamError: the reply is an error in spite of its status.
        whatever reading the reply raises.
    """
    try:
        yield HEARTBEAT
        yield from _ExternalReply(reply, reader, splits_whole).deltas(form)
    finally:
        reply.close()


class _ExternalReply:
    def __init__(self, reply: UpstreamResponse, reader: Reader, splits_whole: bool) -> None:
        self._reply = reply
        self._reader = reader
        self._splits_whole = splits_whole
        self._media_type, self._encoding = _parse_content_type(reply.headers.get("content-type", ""))
        self._is_text_type = self._media_type.startswith("text/")
        self._has_json_events: dict[str, bool] = {}

    def deltas(self, form: BodyFormat | None) -> Deltas:
        whole: Blocks = self._reply.blocks()
        if form is None:
            head = yield from _peek(whole)
            form = _to_form(self._media_type, _beginning(head))
            whole = chain([head], whole)
        if form == "json":
            yield from self._read_json(iterate_lines(whole))
        elif form == "events":
            yield from self._read_events(whole)
        elif form == "lines":
            yield from self._read_lines(iterate_lines(whole))
        elif form == "document":
            yield from self._read_document(iterate_lines(whole))
        else:
            yield from self._read_text(whole)

    def _read_events(self, blocks: Blocks) -> Deltas:
        for event in iterate_named_events(blocks):
            if isinstance(event, Heartbeat):
                yield event
                continue
            name, data = event if isinstance(event, SSEEvent) else ("", event)
            if data == END_OF_STREAM:
                yield from self._reader.read_end(is_proper=True)
                self._reply.release()
                return
            yield from self._read_event(name, data)
        yield from self._reader.read_end(is_proper=False)

    def _read_event(self, name: str, data: str) -> Iterator[ChatDelta]:
        """The first event of each name decides whether those that look like JSON are: a text's piece may well be a
        bracket.
        """
        looks_like_json = data.startswith(_JSON_BEGINNINGS)
        has_json = self._has_json_events.get(name)
        if has_json is None:
            has_json = self._has_json_events[name] = looks_like_json and _parse_json(data) is not _NO_JSON
        if not (looks_like_json and has_json):
            return self._reader.read_text_event(name, data)
        value = _to_value(data)
        if not name and type(value) is dict:
            return self._reader.read_value(value)
        return self._reader.read_event(name, value)

    def _read_lines(self, lines: Iterable[str | Heartbeat]) -> Deltas:
        for line in lines:
            if isinstance(line, Heartbeat):
                yield line
            elif text := line.strip(_LINE_PADDING):
                yield from self._reader.read_value(_to_value(text))
        yield from self._reader.read_end(is_proper=False)

    def _read_document(self, lines: Iterator[str | Heartbeat]) -> Deltas:
        """One JSON document; or lines of JSON, if a line that is JSON in itself has another after it."""
        first = yield from _read_line(lines)
        value = _parse_json(first)
        if value is not _NO_JSON and (is_reply(value) or not self._is_text_type):
            second = yield from _read_line(lines)
            if second:
                yield from self._read_lines(chain([first, second], lines))
                return
            lines = iter(())
        document = [first]
        for line in lines:
            if isinstance(line, Heartbeat):
                yield line
            else:
                document.append(line)
        yield from self._read_whole("\n".join(document))

    def _read_json(self, lines: Iterator[str | Heartbeat]) -> Deltas:
        """One JSON document, whatever it looks like."""
        document = []
        for line in lines:
            if isinstance(line, Heartbeat):
                yield line
            else:
                document.append(line)
        value = _parse_json("\n".join(document))
        if value is _NO_JSON:
            raise UpstreamInvalidResponseError("The external API's reply is not valid JSON.")
        yield from self._split([*self._reader.read_whole(value), *self._reader.read_end(is_proper=True)])

    def _read_whole(self, document: str) -> Iterator[ChatDelta]:
        """A plain text may be JSON without being a reply in JSON, for that was asked of the model: it is the answer."""
        value = _parse_json(document)
        if value is not _NO_JSON:
            deltas = list(self._reader.read_whole(value))
            if not self._is_text_type or self._reader.has_answer:
                return self._split([*deltas, *self._reader.read_end(is_proper=True)])
        elif not self._is_text_type and document.startswith(_JSON_BEGINNINGS):
            raise UpstreamInvalidResponseError("The external API's reply is not valid JSON.")
        return self._split([*self._reader.read_text(document), *self._reader.read_end(is_proper=True)])

    def _read_text(self, blocks: Blocks) -> Deltas:
        """Without a length the text comes as it is written, and its pieces are the API's own."""
        is_whole = "content-length" in self._reply.headers
        for piece in iterate_text(blocks, self._encoding):
            if isinstance(piece, Heartbeat):
                yield piece
            else:
                deltas = self._reader.read_text(piece)
                yield from self._split(deltas) if is_whole else deltas
        yield from self._reader.read_end(is_proper=True)

    def _split(self, deltas: Iterable[ChatDelta]) -> Iterator[ChatDelta]:
        """Simulates a stream, token by token, where one is asked for."""
        for delta in deltas:
            if not self._splits_whole or not delta.content:
                yield delta
                continue
            *tokens, last = split_tokens(delta.content)
            if delta.reasoning:
                yield ChatDelta(reasoning=delta.reasoning)
            for token in tokens:
                yield ChatDelta(token)
            yield replace(delta, content=last, reasoning=None)


_NO_JSON: Final = object()


def _parse_json(text: str) -> Any:
    """The value, or `_NO_JSON`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def _to_value(text: str) -> Any:
    value = _parse_json(text)
    if value is _NO_JSON:
        raise UpstreamInvalidResponseError("The external API sent a piece of its stream that is not valid JSON.")
    return value


def _peek(blocks: Blocks) -> Generator[Heartbeat, None, bytes]:
    """As many bytes as it takes to tell what they are the beginning of; fewer only where there are no more."""
    head = b""
    for block in blocks:
        if isinstance(block, Heartbeat):
            yield block
            continue
        head += block
        beginning = _beginning(head)
        if len(beginning) >= _MAX_PREFIX_BYTES or (
            beginning and not any(mark.startswith(beginning) for mark in _MARKS)
        ):
            break
    return head


def _beginning(head: bytes) -> bytes:
    return head.removeprefix(BYTE_ORDER_MARK).lstrip()[:_MAX_PREFIX_BYTES].lower()


def _read_line(lines: Iterator[str | Heartbeat]) -> Generator[Heartbeat, None, str]:
    """The next line that is not empty, '' at the end."""
    for line in lines:
        if isinstance(line, Heartbeat):
            yield line
        elif text := line.strip(_LINE_PADDING):
            return text
    return ""


def _to_form(media_type: str, beginning: bytes) -> BodyFormat:
    """What the reply is, by its type and its first bytes.

    Raises:
        UpstreamReplyError: it is nothing, or a page for a browser.
    """
    if not beginning:
        raise UpstreamInvalidResponseError("The external API's reply is empty.")
    if media_type in {"text/html", "application/xhtml+xml"} and beginning.startswith(PAGE_MARKS):
        raise UpstreamInvalidResponseError(
            "The external API's reply is a page of HTML, not an answer: is its URL right?"
        )
    if beginning.startswith(EVENT_MARKS if media_type == "text/event-stream" else SSE_PREFIXES):
        return "events"
    if media_type in LINE_TYPES:
        return "lines"
    is_json_type = media_type.endswith(("/json", "+json"))
    is_quoted = beginning.startswith(b'"') and not media_type.startswith("text/")
    return "document" if is_json_type or is_quoted or beginning.startswith((b"{", b"[")) else "text"


def _parse_content_type(value: str) -> tuple[str, str]:
    """Media type and charset, in lower case; UTF-8 where none is named that is known."""
    media_type, _, parameters = value.partition(";")
    found = _CHARSET.search(parameters)
    encoding = found[1].lower() if found else "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        encoding = "utf-8"
    return media_type.strip().lower(), "utf-8" if encoding in {"utf8", "us-ascii", "ascii"} else encoding
