"""Decoding of large JSON texts in turns with other greenlets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from openai_compat.backends.parsing import json_check
from openai_compat.backends.parsing.json_check import check_large_object, iterate_keys, parse_repaired, parse_strict
from openai_compat.backends.parsing.openai_chat import parse_object
from openai_compat.core import large_json, turns
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.large_json import LARGE_BYTES, MAX_STRUCTURE, TooManyValuesError, parse_json

VALUES = {"x": [1, 2.5, None, True, "é\n😀", {"a": []}, -1e300], "y": "z" * LARGE_BYTES}


@pytest.fixture
def count_turns(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that returns the number of turns so far. Every time slice ends at once."""
    taken: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", taken.append)
    monkeypatch.setattr(large_json, "TimeSlices", lambda: turns.TimeSlices(0.0))
    return lambda: len(taken)


def test_a_large_text_has_the_same_value_as_a_small_one() -> None:
    text = json.dumps(VALUES, ensure_ascii=False)
    for parse in (parse_json, parse_strict, parse_repaired, parse_object):
        assert parse(text.encode()) == VALUES
    assert parse_json(text) == VALUES
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == VALUES
    assert parse_repaired('{"x":[NaN,' + "1," * LARGE_BYTES + "1]}")["x"][0] == json_check.LOWEST_LOGPROB


def test_other_calls_get_turns_while_a_large_text_is_decoded(count_turns: Callable[[], int]) -> None:
    for item in ("{},", "1,", "1.5,"):
        before = count_turns()
        parse_repaired('{"x":[' + item * LARGE_BYTES + "1]}")
        assert count_turns() - before >= LARGE_BYTES


def test_an_answer_of_too_many_values_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"choices":[' + b"{}," * MAX_STRUCTURE + b"{}]}"
    monkeypatch.setattr(large_json.json, "loads", pytest.fail)
    with pytest.raises(TooManyValuesError):
        parse_json(body)
    with pytest.raises(UpstreamInvalidResponseError):
        parse_object(body)


@pytest.mark.parametrize("piece", [b"x", rb"\n", rb"\"", "é".encode()], ids=["plain", "escapes", "quotes", "UTF-8"])
@pytest.mark.parametrize("closed", [True, False])
def test_other_calls_get_turns_within_one_long_string(
    count_turns: Callable[[], int], piece: bytes, closed: bool
) -> None:
    text = piece * (20_000_000 // len(piece))
    body = b'{"choices":[{"text":"' + text + (b'"}],"n":1}' if closed else b"}")
    if not closed:
        with pytest.raises(UpstreamInvalidResponseError):
            check_large_object(body)
        assert count_turns() >= 18
        return
    check_large_object(body)
    assert count_turns() >= 18
    assert [key for key, _ in iterate_keys(body)] == [b"choices", b"n"]
    assert count_turns() >= 36


@pytest.mark.parametrize("slice_bytes", [16, 17, 23, 64])
def test_keys_and_their_positions_do_not_depend_on_the_slices(
    slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"error": None, "a\\": [{"b": 1}], "long": '[{\\"' * 100, "c": {"d": ["x", "y" * 50]}, "choices": [12345]}
    for text in (json.dumps(value), json.dumps(value, indent=9), json.dumps(value, separators=(",", ":"))):
        body = text.encode()
        monkeypatch.setattr(json_check, "SLICE_BYTES", slice_bytes)
        check_large_object(body)
        found = dict(iterate_keys(body))
        assert [json.loads(b'"%b"' % key) for key in found] == list(value)
        for key, position in found.items():
            rest = body[position:].decode().lstrip()
            assert json.JSONDecoder().raw_decode(rest)[0] == value[json.loads(b'"%b"' % key)]


@pytest.mark.parametrize("end", [b"\\", b"\\\\", b'\\"', b""])
def test_a_long_string_without_end_is_no_answer(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_check, "SLICE_BYTES", 16)
    with pytest.raises(UpstreamInvalidResponseError):
        check_large_object(b'{"a":"' + b"x" * 100 + end + b"}")
