"""Parsing of request bodies, and the errors for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from marshmallow import Schema, fields
from marshmallow.validate import Range

from openai_compat.core.errors import InvalidRequestError
from openai_compat.web.body import MAX_DEPTH, parse_json_object, validate
from openai_compat.web.schemas.base import RequestSchema
from openai_compat.web.schemas.fields import Nested

BROKEN_BODIES = {
    "empty": (b"", "the body is empty"),
    "blank": (b"  \n", "Expecting value at line 2, column 1 (character 3)"),
    "a word": (b"hello", "Expecting value at line 1, column 1 (character 0)"),
    "a missing comma": (b'{"a": 1\n "b": 2}', "Expecting ',' delimiter at line 2, column 2 (character 9)"),
    "a trailing comma": (b'{"a": 1,}', "at line 1, column"),
    "a comment": (b'{"a": 1} // one', "Extra data at line 1, column 10 (character 9)"),
    "two objects": (b"{}{}", "Extra data at line 1, column 3 (character 2)"),
    "cut off": (b'{"a": "b', "Unterminated string starting at line 1, column 7 (character 6)"),
    "single quotes": (b"{'a': 1}", "Expecting property name enclosed in double quotes at line 1, column 2"),
    "a raw line break in a text": (b'{"a": "b\nc"}', "Invalid control character at line 1, column 9 (character 8)"),
    "a raw NUL": (b'{"a": "\x00"}', "Invalid control character at line 1, column 8 (character 7)"),
    "NaN": (b'{"temperature": NaN}', "NaN is not a JSON number"),
    "infinity": (b'{"temperature": -Infinity}', "-Infinity is not a JSON number"),
    "a number that overflows": (b'{"temperature": -1e999}', "the number -1e999 is too large"),
    "too many digits": (b'{"seed": ' + b"9" * 5000 + b"}", "a number has too many digits"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "it is not UTF-8, at byte 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "it is not UTF-8, at byte 0"),
    "a surrogate in UTF-8": (b'{"a": "\xed\xa0\x80"}', "it is not UTF-8, at byte 7"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
    "half a surrogate pair": (b'{"a": ["\\ud83d"]}', "\\ud83d is half of a surrogate pair"),
    "the other half, in capitals": (b'{"a": "\\uDE00 \\n"}', "\\ude00 is half of a surrogate pair"),
    "half a pair in a key": (b'{"\\ud83d": 1}', "\\ud83d is half of a surrogate pair"),
    "a list": (b"[1]", "expected an object, but got an array instead"),
    "null": (b"null", "expected an object, but got null instead"),
    "a number": (b"3", "expected an object, but got an integer instead"),
    "a decimal": (b"3.5", "expected an object, but got a decimal number instead"),
    "a text": (b'"hi"', "expected an object, but got a string instead"),
    "a boolean": (b"true", "expected an object, but got a boolean instead"),
    "unclosed brackets": (b"[" * 200_000, f"it is nested more than {MAX_DEPTH} levels deep"),
    "deep lists": (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", f"nested more than {MAX_DEPTH} levels"),
    "deep objects": (b'{"a": ' * 300 + b"1" + b"}" * 300, f"nested more than {MAX_DEPTH} levels"),
}


@pytest.mark.parametrize(("body", "reason"), BROKEN_BODIES.values(), ids=BROKEN_BODIES.keys())
def test_an_invalid_body_is_rejected_with_the_reason_and_the_position(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_json_object(body)
    assert caught.value.message.startswith("We could not parse the JSON body of your request")
    assert reason in caught.value.message
    assert caught.value.to_envelope()["error"]["type"] == "invalid_request_error"
    assert caught.value.message.encode("utf-8"), "the message itself must be encodable"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model": "a", "model": "b"}', "model"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "role"),
        (b'{"\\u0061": 1, "a": 2}', "a"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "?"),
        (b'{"' + b"k" * 500 + b'": 1, "' + b"k" * 500 + b'": 2}', "k" * 100),
    ],
)
def test_a_duplicate_key_is_rejected_by_name(body: bytes, key: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_json_object(body)
    assert caught.value.param == key
    assert f"the key '{key}' occurs twice" in caught.value.message


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a" : [1, -0.5, 1e3, true, null]}\r\n', {"a": [1, -0.5, 1000.0, True, None]}),
        ('{"a": "é😀"}'.encode(), {"a": "é😀"}),
        (b'{"a": "\\u00e9\\ud83d\\ude00\\uD83D\\uDE00"}', {"a": "é😀😀"}),
        (b'{"a": "\\\\ud800"}', {"a": "\\ud800"}),
        (b'{"a": "\\u0000"}', {"a": "\x00"}),
        (b'{"seed": 123456789012345678901234567890}', {"seed": 123456789012345678901234567890}),
        (b'{"": 1, " ": 2}', {"": 1, " ": 2}),
        (b'{"a": {"b": 1}, "c": {"b": 1}}', {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)
def test_unusual_but_valid_json_is_parsed(body: bytes, value: dict[str, Any]) -> None:
    assert parse_json_object(body) == value


def test_brackets_in_a_text_do_not_count_as_nesting() -> None:
    body = {"messages": [{"role": "user", "content": "[{" * 1000}, *({"role": "user"} for _ in range(500))]}
    assert parse_json_object(json.dumps(body).encode()) == body


def test_nesting_is_accepted_up_to_the_limit() -> None:
    inner = MAX_DEPTH - 1
    assert parse_json_object(b'{"a": ' + b"[" * inner + b"]" * inner + b"}")
    with pytest.raises(InvalidRequestError):
        parse_json_object(b'{"a": ' + b"[" * (inner + 1) + b"]" * (inner + 1) + b"}")


class InnerSchema(RequestSchema):
    amount = fields.Integer(validate=Range(min=1))


class OuterSchema(RequestSchema):
    inner = Nested(InnerSchema)


class StockSchema(Schema):
    numbers = fields.List(fields.Integer(validate=Range(max=3)))


@pytest.mark.parametrize(
    ("schema", "payload", "param"),
    [
        (OuterSchema(), {"inner": {"amount": 0}}, "inner.amount"),
        (StockSchema(), {"numbers": [1, 2, 9]}, "numbers[2]"),
        (StockSchema(), {"unheard_of": 1}, "unheard_of"),
    ],
)
def test_errors_of_marshmallows_own_validators_have_the_same_format(
    schema: Schema, payload: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(schema, payload)
    assert caught.value.param == param
    assert caught.value.code == "invalid_value"
    assert f"'{param}'" in caught.value.message


def test_a_valid_payload_is_returned_unchanged() -> None:
    payload = {"inner": {"amount": "7"}, "unheard_of": {"a": [None]}}
    before = json.dumps(payload)
    assert validate(OuterSchema(), payload) is payload
    assert json.dumps(payload) == before
