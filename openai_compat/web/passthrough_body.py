"""Request bodies of the passthrough, read as far as is needed to find the model that they name.

A JSON object is read completely, up to `MAX_REQUEST_BYTES`. Of a form the fields before the first file are read. Any
other body is not read here. It reaches the upstream in blocks, as it arrives.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

from flask import Request
from werkzeug.exceptions import HTTPException
from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData, State

from openai_compat.core.byte_budget import ByteBudget
from openai_compat.core.errors import InvalidRequestError, RequestTooLargeError, UnsupportedMediaTypeError
from openai_compat.services.body_rewrite import to_upstream_body

from .body import parse_json_object
from .body_blocks import READ_BYTES, count_blocks, read_blocks
from .content_encoding import decode_body

FORM: Final = "multipart/form-data"
MAX_MODEL_BYTES: Final = 1024
MAX_HEADERS_BYTES: Final = 4 * READ_BYTES
"""Limit on a part's headers, which are complete before they are parsed."""

CheckModel = Callable[[str], None]


class RequestBody:
    """A body that is passed on unread. `length` is None for chunked transfer encoding."""

    model: str | None = None

    def __init__(self, content: Iterator[bytes] | None, length: int | None, encoding: str = "") -> None:
        self.content = content
        self.length = length
        self.encoding = encoding

    def set_model(self, name: str) -> None:
        """Name the model as the upstream does. Only bodies with a place for it change."""

    def watch(self, check: CheckModel) -> None:
        """Call `check` with a model that the unread rest of the body names. An exception of it ends the request."""


class JSONBody(RequestBody):
    """A JSON object, which may be compressed. It is sent as it came unless the model has another name upstream."""

    def __init__(self, received: bytes, decoded: bytes, encoding: str) -> None:
        super().__init__(iter((received,)), len(received), encoding)
        self._decoded = decoded
        self._payload = parse_json_object(decoded)
        self.model = _check_name(self._payload.get("model"))

    def set_model(self, name: str) -> None:
        if name == self.model:
            return
        changed = to_upstream_body(self._decoded, self._payload, model=name, asks_for_usage=False)
        super().__init__(iter((changed,)), len(changed))


class FormBody(RequestBody):
    """A form whose beginning was read, up to the field `model` or to the first file."""

    def __init__(self, request: Request, blocks: Iterator[bytes], limit: int, *, reads_files: bool) -> None:
        boundary = request.mimetype_params.get("boundary", "")
        if not boundary or not boundary.isascii():
            raise InvalidRequestError("The form has no boundary in its Content-Type.")
        self._delimiter = b"--" + boundary.encode()
        self._decoder = MultipartDecoder(boundary.encode(), MAX_HEADERS_BYTES)
        self._blocks = blocks
        self._value: bytearray | None = None
        self._has_file = False
        self._received = 0
        self._value_start = 0
        self._check: CheckModel | None = None
        self._read_beginning(limit, reads_files=reads_files)
        super().__init__(self._rest(), request.content_length)

    def _read_beginning(self, limit: int, *, reads_files: bool) -> None:
        self._beginning = bytearray()
        for block in self._blocks:
            self._beginning += block
            self._feed(block)
            if self.model is not None or self._is_complete or (self._has_file and not reads_files):
                return
            if self._received > limit:
                raise RequestTooLargeError(
                    "The form's field 'model' was not found in time. Send it before the file.", param="model"
                )

    @property
    def _is_complete(self) -> bool:
        """True after the form's last part."""
        return self._decoder.state is State.EPILOGUE

    def _feed(self, block: bytes) -> None:
        """Parse another block.

        Raises:
            InvalidRequestError: it is not a form, or it has the field `model` twice.
        """
        self._received += len(block)
        try:
            self._decoder.receive_data(block)
            while not isinstance(event := self._decoder.next_event(), NeedData):
                self._handle(event)
        except (ValueError, HTTPException) as error:
            raise InvalidRequestError("The form in the request body could not be read.") from error

    def _handle(self, event: Any) -> None:
        if isinstance(event, Field) and event.name == "model":
            self._value = bytearray()
            self._value_start = self._received - len(self._decoder.buffer) + 2  # after the line break of the headers
        elif isinstance(event, File):
            self._has_file = True
        elif isinstance(event, Data) and self._value is not None:
            self._value += event.data
            if len(self._value) > MAX_MODEL_BYTES:
                raise InvalidRequestError("The form's field 'model' is too long.", param="model")
            if not event.more_data:
                # werkzeug takes the break before a delimiter that arrives in parts for content.
                value, self._value = bytes(self._value).rstrip(b"\r"), None
                self._found(value)

    def _found(self, value: bytes) -> None:
        if self.model is not None:
            raise InvalidRequestError("The form has the field 'model' twice.", param="model")
        name = value.decode("utf-8")
        if self._check is not None:
            self._check(name)
        self.model = name
        self._span = (self._value_start, self._value_start + len(value))

    def set_model(self, name: str) -> None:
        """Replace the field's value, or insert the field before the first one."""
        encoded = name.encode()
        if self.model is None:
            start = end = self._beginning.find(self._delimiter)
            head = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
            encoded = self._delimiter + head + encoded + b"\r\n"
        else:
            start, end = self._span
        if start < 0 or (self.model is not None and self._beginning[start:end] != self.model.encode()):
            raise InvalidRequestError("The form in the request body could not be read.")
        if self._beginning[start:end] == encoded:
            return
        self._beginning[start:end] = encoded
        if self.length is not None:
            self.length += len(encoded) - (end - start)

    def watch(self, check: CheckModel) -> None:
        self._check = check

    def _rest(self) -> Iterator[bytes]:
        beginning, self._beginning = self._beginning, bytearray()
        yield bytes(beginning)
        for block in self._blocks:
            if not self._is_complete:
                self._feed(block)
            yield block


def read_body(request: Request, limit: int, budget: ByteBudget, *, is_judged: bool, reads_files: bool) -> RequestBody:
    """Return the body of the request, and the model that it names.

    Without `is_judged` nothing is read. `limit` is the maximum of what is kept in memory, and `budget` limits that of
    all requests. A form that has a file before its field `model` is read further only with `reads_files`.

    Raises:
        InvalidRequestError, RequestTooLargeError, RequestTimeoutError, OverloadedError, UnsupportedMediaTypeError
    """
    if not request.content_length and not request.headers.get("Transfer-Encoding"):
        return RequestBody(None, None)
    blocks = read_blocks(request.stream)
    encoding = request.headers.get("Content-Encoding", "").strip()
    if not is_judged:
        return RequestBody(blocks, request.content_length, encoding)
    if request.mimetype == "application/x-www-form-urlencoded":
        raise UnsupportedMediaTypeError("Unsupported content type: send JSON, or a form as 'multipart/form-data'.")
    with budget.share() as held:
        blocks = count_blocks(blocks, held)
        if request.mimetype != FORM:
            return _judge_object(request, blocks, limit, encoding)
        if encoding:
            raise UnsupportedMediaTypeError("A form must not have a content encoding.")
        return FormBody(request, blocks, limit, reads_files=reads_files)


def _judge_object(request: Request, blocks: Iterator[bytes], limit: int, encoding: str) -> RequestBody:
    """Return a JSON object, read completely, or the unread body if it cannot be one."""
    first = next(blocks, b"")
    blocks = chain((first,), blocks)
    if not encoding and not _may_be_object(first, is_json=request.is_json):
        return RequestBody(blocks, request.content_length)
    received = _read_bounded(blocks, limit)
    decoded = decode_body(received, encoding, limit)
    if not decoded.strip() or not _may_be_object(decoded, is_json=request.is_json):
        return RequestBody(iter((received,)), len(received), encoding)
    return JSONBody(received, decoded, encoding)


def _may_be_object(beginning: bytes, *, is_json: bool) -> bool:
    """Return True if the bytes may begin a JSON object, of any content type, as some servers ignore the type.

    With the type of JSON they may also be in UTF-16 or UTF-32, which some servers detect.
    """
    text = beginning.removeprefix(codecs.BOM_UTF8).lstrip()
    return not text or text.startswith(b"{") or (is_json and text[0] in {0x00, 0xFE, 0xFF})


def _read_bounded(blocks: Iterator[bytes], limit: int) -> bytes:
    body = bytearray()
    for block in blocks:
        body += block
        if len(body) > limit:
            raise RequestTooLargeError("The request body is larger than this server allows.")
    return bytes(body)


def _check_name(value: Any) -> str | None:
    """Return the model's name. Null counts as absent, as in all requests."""
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError("Invalid type for 'model': expected a string.", param="model", code="invalid_type")
    return value or None
