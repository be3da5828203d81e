"""The limit on the values of a JSON body, and the turns of other calls while a large one is read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest

from openai_compat.core import large_json, turns
from openai_compat.core.errors import InvalidRequestError
from openai_compat.core.large_json import LARGE_BYTES, MAX_STRUCTURE, has_too_many_values
from openai_compat.web import body as body_module
from openai_compat.web import content_encoding
from openai_compat.web.body import parse_json_object, validate
from openai_compat.web.content_encoding import MAX_MEMBERS, decode_body
from openai_compat.web.schemas.chat import CHAT_REQUEST
from openai_compat.web.schemas.embeddings import EMBEDDINGS_REQUEST

MANY_VALUES = {
    "objects": b"{},",
    "lists": b"[],",
    "keys": b'{"a":1},',
    "numbers": b"1,",
    "texts": b'"",',
    "texts of quotes": rb'"\"\\",',
}


@pytest.fixture
def count_turns(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that returns the number of turns so far. Every time slice ends at once."""
    taken: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", taken.append)
    for module in (body_module, content_encoding):
        monkeypatch.setattr(module, "TimeSlices", lambda: turns.TimeSlices(0.0))
    return lambda: len(taken)


@pytest.mark.parametrize("item", MANY_VALUES.values(), ids=MANY_VALUES)
def test_a_body_of_too_many_values_is_refused(item: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=f"at most {MAX_STRUCTURE} braces, brackets, commas and colons"):
        parse_json_object(b'{"x":[' + item * MAX_STRUCTURE + b"1]}")


def test_a_body_of_as_many_values_as_allowed_is_accepted() -> None:
    values = MAX_STRUCTURE - len("{:[")
    assert len(parse_json_object(b'{"x":[' + b"1," * values + b"1]}")["x"]) == values + 1
    with pytest.raises(InvalidRequestError, match="too many values"):
        parse_json_object(b'{"x":[' + b"1," * (values + 1) + b"1]}")


@pytest.mark.parametrize("text", ["[{,:", '{"', "\\[", '[{"a": "\\"}, ', "\\\\\\,", 'é"{'])
@pytest.mark.parametrize("slice_bytes", [1, 2, 3, 7, 1_048_576])
def test_texts_may_contain_any_number_of_structural_characters(
    text: str, slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_json, "MAX_STRUCTURE", 10)
    monkeypatch.setattr(large_json, "SLICE_BYTES", slice_bytes)
    assert not has_too_many_values(json.dumps({text * 20: [text * 20, 1, text]}).encode())
    assert has_too_many_values(json.dumps({text * 20: [text * 20, *range(7), text]}).encode())


def test_other_calls_get_turns_while_a_large_body_is_decoded(count_turns: Callable[[], int]) -> None:
    """Turns come between objects and between numbers, which both take long."""
    for item in (b"{},", b"1,", b"1.5,"):
        before = count_turns()
        parse_json_object(b'{"x":[' + item * LARGE_BYTES + b"1]}")
        assert count_turns() - before >= LARGE_BYTES


def test_a_small_body_is_decoded_at_once(count_turns: Callable[[], int]) -> None:
    parse_json_object(b'{"x":[' + b"{}," * 100 + b"1]}")
    assert count_turns() == 0


def test_other_calls_get_turns_while_a_large_body_is_validated(count_turns: Callable[[], int]) -> None:
    """Arrays within arrays count together."""
    parts = [{"type": "text", "text": "x"}] * 100
    validate(CHAT_REQUEST, {"messages": [{"role": "user", "content": parts}] * 100})
    assert count_turns() >= 10_000 // 256
    before = count_turns()
    validate(EMBEDDINGS_REQUEST, {"input": [[1]] * 10_000})
    assert count_turns() - before >= 10_000 // 256


def test_other_calls_get_turns_while_a_body_is_decompressed(count_turns: Callable[[], int]) -> None:
    """A slice of compressed bytes becomes 4 MB at most."""
    body = b"x" * 20_000_000
    assert decode_body(gzip.compress(body), "gzip", len(body)) == body
    assert count_turns() >= len(body) // 5_000_000


def test_a_body_of_too_many_compressed_members_is_refused() -> None:
    member = gzip.compress(b"")
    assert decode_body(member * MAX_MEMBERS, "gzip", 10) == b""
    with pytest.raises(InvalidRequestError, match="could not be decompressed"):
        decode_body(member * (MAX_MEMBERS + 500), "gzip", 10)
