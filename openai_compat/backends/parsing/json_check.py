"""Validation of JSON bodies, in time slices for large ones."""

from __future__ import annotations

import json
import re
import string
import time
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from openai_compat.core.errors import UpstreamInvalidResponseError

MAX_PARSED_BYTES: Final = 65_536
"""Larger bodies are checked without building their values."""
SLICE_BYTES: Final = 1_048_576
"""Bytes that are checked before other greenlets get a turn, about 5 ms of work."""
TOKENS_PER_TURN: Final = 4096
"""Brackets and strings that are passed over before other greenlets get a turn, about 5 ms of work."""
MAX_TOKEN_BYTES: Final = 4096
"""Bytes by which a slice is made shorter, so that it ends between two tokens."""
LOWEST_LOGPROB: Final = -9999.0
"""OpenAI's value for a log probability that is too low to report (source: its API reference). It replaces NaN."""

_WITHOUT_OPEN_STRING: Final = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_KEY_OR_BRACKET: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(?:\s*(:))?|[\[\]{}]', re.DOTALL)
_LITERAL: Final = re.compile(rb"\b(?:true|false|null|NaN|-?Infinity)\b")
_FORBIDDEN: Final = re.compile(rb"[^\d\s.eE+\-\[\]{},:]|,\s*[,\]}:]|[\[{:]\s*,|:\s*[:\]}]")
_INSIDE_TOKEN: Final = frozenset(string.ascii_letters + string.digits + "+-.")
_NON_FINITE: Final = re.compile(rb"\b(?:NaN|Infinity)\b")


class NonFiniteNumberError(ValueError):
    """A JSON text contains `NaN` or `Infinity`, which are not JSON."""


def _refuse_constant(name: str) -> NoReturn:
    raise NonFiniteNumberError(name)


_STRICT: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_REPAIRING: Final = json.JSONDecoder(parse_constant=lambda name: LOWEST_LOGPROB)


def parse_strict(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        NonFiniteNumberError: It contains `NaN` or `Infinity`.
        ValueError, RecursionError: It is not JSON, or nested too deeply.
    """
    return _STRICT.decode(text if isinstance(text, str) else text.decode())


def parse_repaired(text: str | bytes) -> Any:
    """Parse JSON in which `NaN` and `Infinity` count as `LOWEST_LOGPROB`. Raise ValueError or RecursionError."""
    return _REPAIRING.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))


def has_non_finite(text: bytes) -> bool:
    """Return True if the text may contain `NaN` or `Infinity` as a number. A string with these words counts, too."""
    return text.find(b"NaN") >= 0 or text.find(b"Infinity") >= 0


def check_large_object(body: bytes) -> None:
    """Check that a large body is a complete JSON object of finite numbers, without building its values.

    Strings, literals, brackets and separators are checked at the speed of regular expressions. Other greenlets get a
    turn after each `SLICE_BYTES`.

    Raises:
        NonFiniteNumberError: It contains `NaN` or `Infinity`.
        UpstreamInvalidResponseError: It is not a complete JSON object.
    """
    end_of_object = len(body.rstrip())
    if body.lstrip()[:1] != b"{" or body[end_of_object - 1 : end_of_object] != b"}":
        raise _not_an_object()
    opened = closed = position = 0
    window = SLICE_BYTES
    while position < end_of_object:
        end = _end_of_slice(body, position, min(position + window, end_of_object))
        if end == position:  # a string is longer than the window
            if position + window >= end_of_object:
                raise _not_an_object()
            window *= 2
            continue
        skeleton = _STRING.sub(b"0", body[position:end])
        if _NON_FINITE.search(skeleton):
            raise NonFiniteNumberError
        skeleton = _LITERAL.sub(b"0", skeleton)
        if _FORBIDDEN.search(skeleton):
            raise _not_an_object()
        opened += skeleton.count(b"{") + skeleton.count(b"[")
        closed += skeleton.count(b"}") + skeleton.count(b"]")
        if closed > opened or (closed == opened and end < end_of_object):
            raise _not_an_object()
        position, window = end, SLICE_BYTES
        time.sleep(1e-9)
    if opened != closed:
        raise _not_an_object()


def iterate_keys(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the keys at the top level of a valid JSON object, each with the position behind its colon.

    No values are built. Other greenlets get a turn after every `TOKENS_PER_TURN` tokens.
    """
    depth = 0
    for count, token in enumerate(_KEY_OR_BRACKET.finditer(body), 1):
        if token[1] is None:
            depth += 1 if token[0] in b"{[" else -1
        elif depth == 1 and token[2] is not None:
            yield token[1], token.end()
        if not count % TOKENS_PER_TURN:
            time.sleep(1e-9)


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
