"""From the bytes of a request to a dict that is what the API takes, or a 400 that says what is wrong and where."""

from __future__ import annotations

import codecs
import json
from typing import Any, NoReturn

from marshmallow import Schema, ValidationError

from openai_compat.core.errors import InvalidRequestError
from openai_compat.web.schemas.base import name_of_type, to_field_error

MAXIMUM_DEPTH = 256
"""Objects and lists within each other. What is deeper would exhaust the stack of whoever walks the value later."""

CANNOT_PARSE = "We could not parse the JSON body of your request"
NOT_JSON = "(HINT: The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"


def parse_json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Stricter than `json.loads`: UTF-8 only, every key once, no NaN and no infinity, numbers and nesting within limits,
    and no text that UTF-8 cannot hold (half a surrogate pair), so that whatever is returned can be sent on.

    Raises:
        PayloadError: with the sentence that OpenAI begins this error with, then what is wrong and where.
    """
    if not body:
        _refuse("the body is empty")
    try:
        value = DECODER.decode(body.decode("utf-8"))
        if _may_hold_surrogates(body):
            _check_surrogates(value)
    except UnicodeDecodeError as error:
        _refuse(f"it is not UTF-8, at byte {error.start}", error)
    except json.JSONDecodeError as error:
        _refuse(_syntax_error(error), error)
    except RecursionError as error:
        _refuse_depth(error)
    except ValueError as error:  # the interpreter's own limit on the digits of an integer
        _refuse("a number has too many digits", error)
    if type(value) is not dict:
        raise InvalidRequestError(f"{CANNOT_PARSE}: expected an object, but got {name_of_type(value)} instead.")
    if _holds_many_brackets(body) and _is_deeper_than(MAXIMUM_DEPTH, value):
        _refuse_depth()
    return value


def validate(schema: Schema, payload: dict[str, Any]) -> dict[str, Any]:
    """`payload` itself, exactly as the client sent it, once `schema` has found nothing wrong with it.

    Raises:
        PayloadError: for the first problem; `param` is its dotted path (`messages[0].content`), `code` OpenAI's.
    """
    try:
        schema.load(payload)
    except ValidationError as error:
        problem = to_field_error(error)
        raise InvalidRequestError(problem.sentence, param=problem.path or None, code=problem.code) from None
    return payload


def _refuse(reason: str, cause: Exception | None = None, param: str | None = None) -> NoReturn:
    raise InvalidRequestError(f"{CANNOT_PARSE}: {reason}. {NOT_JSON}", param=param) from cause


def _refuse_depth(cause: Exception | None = None) -> NoReturn:
    raise InvalidRequestError(f"{CANNOT_PARSE}: it is nested more than {MAXIMUM_DEPTH} levels deep.") from cause


def _syntax_error(error: json.JSONDecodeError) -> str:
    if error.doc.startswith(codecs.BOM_UTF8.decode("utf-8")):
        return "it begins with a byte order mark"
    return f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno} (character {error.pos})"


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        key = _first_duplicate([key for key, _ in pairs])
        _refuse(f"the key '{key}' occurs twice in one object", param=key)
    return value


def _first_duplicate(keys: list[str]) -> str:
    """The first key that was there before, short and fit to be sent back."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            break
        seen.add(key)
    return key[:100].encode("utf-8", "replace").decode("utf-8")


def _to_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        _refuse(f"the number {digits[:40]} is too large")
    return number


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not a JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=_to_object, parse_float=_to_float, parse_constant=_refuse_constant)


def _may_hold_surrogates(body: bytes) -> bool:
    """Whether to look closer. The two ends of what is searched are found much faster than the middle is searched."""
    first, last = body.find(b"\\"), body.rfind(b"\\") + 3
    return first >= 0 and (body.find(b"\\ud", first, last) >= 0 or body.find(b"\\uD", first, last) >= 0)


def _check_surrogates(value: Any) -> None:
    """Escaped surrogates are usually emoji; half a pair is text that cannot be written as UTF-8 again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        _refuse(f"\\u{half:04x} is half of a surrogate pair", error)


def _holds_many_brackets(body: bytes) -> bool:
    """Whether there are enough of them, in texts or not, to nest deeply. (`bytes.count` would read every byte.)"""
    remaining = MAXIMUM_DEPTH
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
    for _ in range(limit):
        level = [child for node in level for child in _children(node) if type(child) in (dict, list)]
        if not level:
            return False
    return True


def _children(node: dict[str, Any] | list[Any]) -> Any:
    return node.values() if type(node) is dict else node
