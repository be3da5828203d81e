"""Parsing and validation of JSON request bodies."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any, NoReturn

from marshmallow import Schema, ValidationError

from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.large_json import LARGE_BYTES, MAX_STRUCTURE, has_too_many_values
from openai_compat.core.turns import TimeSlices, give_turn
from openai_compat.web.schemas.base import name_of_type, to_field_error

MAX_DEPTH = 256
"""Maximum nesting of objects and arrays. A deeper value could exhaust the stack of the code that walks it."""

CANNOT_PARSE = "We could not parse the JSON body of your request"
NOT_JSON = "(HINT: The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse the JSON object in `body`.

    Stricter than `json.loads`: only UTF-8, no duplicate keys, no NaN or infinity, limits on numbers and nesting, and no
    text that UTF-8 cannot encode (half a surrogate pair). Any returned value can therefore be sent to an upstream.

    Raises:
        InvalidRequestError: the message starts as OpenAI's does, then names the problem and its position.
    """
    if not body:
        _raise_invalid("the body is empty")
    try:
        value = DECODER.decode(body.decode("utf-8")) if len(body) <= LARGE_BYTES else _decode_large(body)
        if _may_contain_surrogates(body):
            _check_surrogates(value)
    except UnicodeDecodeError as error:
        _raise_invalid(f"it is not UTF-8, at byte {error.start}", error)
    except json.JSONDecodeError as error:
        _raise_invalid(_syntax_error(error), error)
    except RecursionError as error:
        _raise_too_deep(error)
    except ValueError as error:  # the interpreter's limit on the digits of an integer
        _raise_invalid("a number has too many digits", error)
    if type(value) is not dict:
        raise InvalidRequestError(f"{CANNOT_PARSE}: expected an object, but got {name_of_type(value)} instead.")
    if _may_be_too_deep(body) and _is_deeper_than(MAX_DEPTH, value):
        _raise_too_deep()
    return value


def validate(schema: Schema, payload: dict[str, Any]) -> dict[str, Any]:
    """Return `payload` unchanged if it is valid for `schema`.

    Raises:
        InvalidRequestError: the first problem, with its dotted path as `param` (`messages[0].content`) and OpenAI's
            `code`.
    """
    try:
        schema.load(payload)
    except ValidationError as error:
        problem = to_field_error(error)
        raise InvalidRequestError(problem.sentence, param=problem.path or None, code=problem.code) from None
    return payload


def _decode_large(body: bytes) -> Any:
    """Decode JSON with turns for other calls between its objects and its numbers, as C code cannot be interrupted."""
    if has_too_many_values(body):
        raise InvalidRequestError(
            "The JSON body of your request has too many values. This server accepts at most "
            f"{MAX_STRUCTURE} braces, brackets, commas and colons outside of strings."
        )
    text = body.decode("utf-8")
    give_turn()
    checked = TimeSlices().checked
    value = _create_decoder(checked(_build_object), checked(_parse_float), checked(int)).decode(text)
    give_turn()
    return value


def _raise_invalid(reason: str, cause: Exception | None = None, param: str | None = None) -> NoReturn:
    raise InvalidRequestError(f"{CANNOT_PARSE}: {reason}. {NOT_JSON}", param=param) from cause


def _raise_too_deep(cause: Exception | None = None) -> NoReturn:
    raise InvalidRequestError(f"{CANNOT_PARSE}: it is nested more than {MAX_DEPTH} levels deep.") from cause


def _syntax_error(error: json.JSONDecodeError) -> str:
    if error.doc.startswith(codecs.BOM_UTF8.decode("utf-8")):
        return "it begins with a byte order mark"
    return f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno} (character {error.pos})"


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        key = _first_duplicate([key for key, _ in pairs])
        _raise_invalid(f"the key '{key}' occurs twice in one object", param=key)
    return value


def _first_duplicate(keys: list[str]) -> str:
    """Return the first duplicate, shortened and encodable, for the error message."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            break
        seen.add(key)
    return key[:100].encode("utf-8", "replace").decode("utf-8")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        _raise_invalid(f"the number {digits[:40]} is too large")
    return number


def _reject_constant(name: str) -> NoReturn:
    _raise_invalid(f"{name} is not a JSON number")


def _create_decoder(
    build_object: Callable[[list[tuple[str, Any]]], dict[str, Any]],
    parse_float: Callable[[str], float],
    parse_int: Callable[[str], int],
) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=build_object,
        parse_float=parse_float,
        parse_int=parse_int,
        parse_constant=_reject_constant,
    )


DECODER = _create_decoder(_build_object, _parse_float, int)


def _may_contain_surrogates(body: bytes) -> bool:
    """Return True if `body` may contain an escaped surrogate.

    Finding the first and the last backslash is much faster than a search of the whole body.
    """
    first, last = body.find(b"\\"), body.rfind(b"\\") + 3
    return first >= 0 and (body.find(b"\\ud", first, last) >= 0 or body.find(b"\\uD", first, last) >= 0)


def _check_surrogates(value: Any) -> None:
    """Raise an error for half a surrogate pair, which UTF-8 cannot encode. Complete pairs are usually emoji."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        if len(text) > LARGE_BYTES:
            give_turn()
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        _raise_invalid(f"\\u{half:04x} is half of a surrogate pair", error)


def _may_be_too_deep(body: bytes) -> bool:
    """Return True if there are enough brackets for too deep nesting. `bytes.count` would always read every byte."""
    remaining = MAX_DEPTH
    for bracket in (b"[", b"{"):
        position = body.find(bracket)
        while position >= 0:
            remaining -= 1
            if remaining < 0:
                return True
            position = body.find(bracket, position + 1)
    return False


def _is_deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    slices = TimeSlices()
    for _ in range(limit):
        level = [child for node in level for child in _children(node) if type(child) in (dict, list)]
        slices.check()
        if not level:
            return False
    return True


def _children(node: dict[str, Any] | list[Any]) -> Any:
    return node.values() if type(node) is dict else node
