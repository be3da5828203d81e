"""Validation of JSON bodies, in time slices for large ones."""

from __future__ import annotations

import json
import re
import string
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.large_json import LARGE_BYTES, parse_json
from openai_compat.core.turns import give_turn

MAX_PARSED_BYTES: Final = 65_536
"""Larger bodies are checked without building their values."""
SLICE_BYTES: Final = 1_048_576
"""Bytes that are checked before other greenlets get a turn, about 5 ms of work."""
TOKENS_PER_TURN: Final = 4096
"""Brackets and strings that are passed over before other greenlets get a turn, about 5 ms of work."""
MAX_TOKEN_BYTES: Final = 4096
"""Bytes by which a slice is made shorter, so that it ends between two tokens."""
_CHARACTERS: Final = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*+'
STRING: Final = b'"' + _CHARACTERS + b'"'
"""Pattern of a JSON string. It is possessive, so that a long string without an end takes linear time."""
LOWEST_LOGPROB: Final = -9999.0
"""OpenAI's value for a log probability that is too low to report (source: its API reference). It replaces NaN."""

_WITHOUT_OPEN_STRING: Final = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING: Final = re.compile(_CHARACTERS)
_STRING: Final = re.compile(STRING)
_KEY_OR_BRACKET: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)"|[\[\]{}]', re.DOTALL)
_COLON: Final = re.compile(rb"\s*+:")
_LITERAL: Final = re.compile(rb"\b(?:true|false|null|NaN|-?Infinity)\b")
_FORBIDDEN: Final = re.compile(
    rb"[^\d\s.eE+\-\[\]{},:]|,\s*[,\]}:]|[\[{:]\s*,|:\s*[:\]}]|[\]}]\s*[^\s,\]}]|(?<=\d)\s+[\d\[{]"
)
_INSIDE_TOKEN: Final = frozenset(string.ascii_letters + string.digits + "+-.")
_NON_FINITE: Final = re.compile(rb"\b(?:NaN|Infinity)\b")


class NonFiniteNumberError(ValueError):
    """A JSON text contains `NaN` or `Infinity`, which are not JSON."""


def _refuse_constant(name: str) -> NoReturn:
    raise NonFiniteNumberError(name)


def _to_lowest_logprob(name: str) -> float:
    return LOWEST_LOGPROB


_STRICT: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_REPAIRING: Final = json.JSONDecoder(parse_constant=_to_lowest_logprob)


def parse_strict(text: str | bytes) -> Any:
    """Parse JSON. Other greenlets get turns during a large one.

    Raises:
        NonFiniteNumberError: It contains `NaN` or `Infinity`.
        ValueError, RecursionError: It is not JSON, or nested too deeply.
    """
    if len(text) > LARGE_BYTES:
        return parse_json(text, _refuse_constant)
    return _STRICT.decode(text if isinstance(text, str) else text.removeprefix(BOM_UTF8).decode())


def parse_repaired(text: str | bytes) -> Any:
    """Parse JSON in which `NaN` and `Infinity` count as `LOWEST_LOGPROB`. Raise ValueError or RecursionError."""
    if len(text) > LARGE_BYTES:
        return parse_json(text, _to_lowest_logprob)
    return _REPAIRING.decode(text if isinstance(text, str) else text.removeprefix(BOM_UTF8).decode())


def has_non_finite(text: bytes) -> bool:
    """Return True if the text may contain `NaN` or `Infinity` as a number. A string with these words counts, too."""
    return text.find(b"NaN") >= 0 or text.find(b"Infinity") >= 0


def is_utf8(text: bytes) -> bool:
    """Return True if clients can decode the text."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_large_object(body: bytes) -> None:
    """Check that a large body is a complete JSON object of finite numbers, without building its values.

    Strings, literals, brackets and separators are checked at the speed of regular expressions. Other greenlets get a
    turn after each `SLICE_BYTES`.

    Raises:
        NonFiniteNumberError: It contains `NaN` or `Infinity`.
        UpstreamInvalidResponseError: It is not a complete JSON object.
    """
    body = body.removeprefix(BOM_UTF8)
    end_of_object = len(body.rstrip())
    if body.lstrip()[:1] != b"{" or body[end_of_object - 1 : end_of_object] != b"}":
        raise _not_an_object()
    opened = closed = 0
    for start, end in _slices(body, end_of_object):
        skeleton = _to_skeleton(body[start:end])
        opened += skeleton.count(b"{") + skeleton.count(b"[")
        closed += skeleton.count(b"}") + skeleton.count(b"]")
        if closed > opened or (closed == opened and end < end_of_object):
            raise _not_an_object()
    if opened != closed:
        raise _not_an_object()


def _to_skeleton(part: bytes) -> bytes:
    """Return a part with `0` for each string and literal.

    Raises:
        NonFiniteNumberError: It contains `NaN` or `Infinity`.
        UpstreamInvalidResponseError: It is not JSON.
    """
    if not is_utf8(part):
        raise _not_an_object()
    skeleton = _STRING.sub(b"0", part)
    if _NON_FINITE.search(skeleton):
        raise NonFiniteNumberError
    skeleton = _LITERAL.sub(b"0", skeleton)
    if _FORBIDDEN.search(skeleton):
        raise _not_an_object()
    return skeleton


def iterate_keys(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the keys at the top level of a valid JSON object, each with the position behind its colon.

    No values are built, and keys of more than `SLICE_BYTES` are left out. Other greenlets get a turn after every
    `TOKENS_PER_TURN` tokens.
    """
    depth = count = 0
    for start, end in _slices(body, len(body)):
        for token in _KEY_OR_BRACKET.finditer(body, start, end):
            count += 1
            if token[1] is None:
                depth += 1 if token[0] in b"{[" else -1
            elif depth == 1 and (colon := _COLON.match(body, token.end(1) + 1)) is not None:
                yield token[1], colon.end()
            if not count % TOKENS_PER_TURN:
                give_turn()


def _slices(body: bytes, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of parts that divide no token. Other greenlets get a turn after each.

    Strings of more than `SLICE_BYTES` are left out.

    Raises:
        UpstreamInvalidResponseError: A string has no end.
    """
    position = 0
    while position < stop:
        end = _end_of_slice(body, position, min(position + SLICE_BYTES, stop))
        if end > position:
            yield position, end
            position = end
        else:
            position = _end_of_string(body, position, stop)
        give_turn()


def _end_of_string(body: bytes, start: int, stop: int) -> int:
    """Return the end of the string that begins at `start`. Other greenlets get a turn after each `SLICE_BYTES`.

    Raises:
        UpstreamInvalidResponseError: The string has no end, or is no text.
    """
    position = start + 1
    while position < stop:
        found = _IN_STRING.match(body, position, position + SLICE_BYTES)
        end = found.end() if found else position
        while end < stop and body[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        if not is_utf8(body[position:end]):
            break
        if body[end : end + 1] == b'"':
            return end + 1
        if end == position:  # no escape sequence follows
            break
        position = end
        give_turn()
    raise _not_an_object()


def _end_of_slice(body: bytes, start: int, limit: int) -> int:
    """Return the end of the longest part up to `limit` that divides neither a string nor a literal nor a number.

    Only a number of more than `MAX_TOKEN_BYTES` digits may be divided, as its parts pass for numbers, too.
    """
    found = _WITHOUT_OPEN_STRING.match(body, start, limit)
    end = found.end() if found else start
    first = max(start, end - MAX_TOKEN_BYTES)
    while first < end < len(body) and chr(body[end - 1]) in _INSIDE_TOKEN and chr(body[end]) in _INSIDE_TOKEN:
        end -= 1
    return end


def _not_an_object() -> UpstreamInvalidResponseError:
    return UpstreamInvalidResponseError("The upstream's answer is not a complete JSON object.")
