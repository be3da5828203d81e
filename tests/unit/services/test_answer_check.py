"""The check that a complete body is an answer to the call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import Usage
from openai_compat.services import answer_check
from openai_compat.services.answer_check import check_answer
from openai_compat.services.inference_call import CHAT_PATH, EMBEDDINGS_PATH

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
LENGTHS = pytest.mark.parametrize("length", [10, 200_000, 2_500_000], ids=["short", "long", "several slices"])


def answer(length: int, **more: Any) -> bytes:
    text = 'a "quoted" text, [with] {brackets} and \\ ' * (length // 40) + "é"
    choice = {"message": {"content": text}, "n": [1, -2.5e3, True, None]}
    return json.dumps({"choices": [choice], "usage": USAGE, **more}).encode()


@LENGTHS
@pytest.mark.parametrize("around", [b"", b"\n\n\n \n"], ids=["bare", "kept alive with white space"])
def test_the_usage_is_read_and_the_bytes_stay(length: int, around: bytes) -> None:
    body = around + answer(length) + around
    _, checked, usage = check_answer(CHAT_PATH, body)
    assert checked is body
    assert usage == Usage(3, 2)


@LENGTHS
def test_an_answer_without_its_end_is_refused(length: int) -> None:
    body = answer(length)
    for end in (-1, -2, -30, len(body) // 2):
        with pytest.raises(UpstreamInvalidResponseError):
            check_answer(CHAT_PATH, body[:end])


@LENGTHS
@pytest.mark.parametrize(
    "damage", [b"", b'"', b",,", b"x", b"}", b"]"], ids=["cut out", "quote", "commas", "x", "}", "]"]
)
def test_a_body_that_is_broken_in_the_middle_is_refused(length: int, damage: bytes) -> None:
    body = answer(length)
    at = body.rindex(b'"n":')
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, body[:at] + damage + body[at + (6 if not damage else 0) :])


@pytest.mark.parametrize("body", [b"", b"  ", b"[]", b"3", b"<html>", b"x" * 200_000, b'{"ok": true}', b"{} {}"])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, body)


@LENGTHS
def test_log_probabilities_that_are_not_finite_become_the_lowest(length: int) -> None:
    body = answer(length).replace(b"-2500.0", b"-Infinity").replace(b"true", b"NaN")
    _, checked, _ = check_answer(CHAT_PATH, body)
    numbers = json.loads(checked, parse_constant=pytest.fail)["choices"][0]["n"]
    assert numbers == [1, -9999.0, -9999.0, None]


@LENGTHS
def test_an_answer_that_is_cut_after_a_number_that_is_not_finite_is_refused(length: int) -> None:
    body = answer(length).replace(b"true", b"NaN")
    for end in (body.index(b"NaN") + 3, len(body) - 1):
        with pytest.raises(UpstreamInvalidResponseError):
            check_answer(CHAT_PATH, body[:end])


@pytest.mark.parametrize("end", [b"]]}", b"}" + b" " * 70_000 + b"}", b"," * 70_000 + b"}"])
def test_a_broken_answer_with_a_number_that_is_not_finite_is_refused(end: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, b'{"choices": [NaN, ' + end)


def test_the_words_nan_and_infinity_in_a_text_change_nothing() -> None:
    for length in (10, 200_000):
        body = answer(length, note="NaN, Infinity")
        assert check_answer(CHAT_PATH, body)[1] == body


@pytest.mark.parametrize("length", [1, 30_000])
def test_embeddings_that_are_not_finite_are_refused(length: int) -> None:
    body = json.dumps({"data": [{"embedding": [0.5] * length + [float("nan")]}]}).encode()
    with pytest.raises(UpstreamInvalidResponseError, match="NaN"):
        check_answer(EMBEDDINGS_PATH, body)


def test_a_long_answer_without_usage_has_none() -> None:
    assert check_answer(EMBEDDINGS_PATH, json.dumps({"data": ["x" * 200_000]}).encode())[2] is None


LARGE = "x" * 70_000


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": LARGE, "code": 429}},
        {"error": {"message": 'it has no "choices"', "code": 429, "input": LARGE}},
        {"errors": [{"message": LARGE, "code": 429}], "object": "list"},
        {"id": "c", "choices": [], "error": {"message": LARGE, "code": 429}},
        {"choices": [{"message": {"content": "a"}}], "error": {"message": LARGE, "code": 502}},
    ],
)
def test_a_large_error_is_parsed(error: dict[str, Any]) -> None:
    value, _, _ = check_answer(CHAT_PATH, json.dumps(error).encode())
    assert value == error


@pytest.mark.parametrize(
    "value",
    [
        {"text": f'"choices" {LARGE}'},
        {"text": LARGE, "nested": {"choices": [{"text": "a"}]}},
        {"text": LARGE, "choices": "many"},
        {"text": "x" * 2_000_000, "nested": [{"choices": [1]}]},
    ],
)
def test_only_the_top_level_of_a_large_answer_counts(value: dict[str, Any]) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, json.dumps(value).encode())


@pytest.mark.parametrize("error", [None, "", {}, []])
def test_a_large_answer_is_not_parsed(error: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_check, "parse_strict", pytest.fail)
    body = json.dumps({"error": error, "prompt": [{"a": [1]}], "choices": [{"text": LARGE}], "usage": USAGE}, indent=1)
    assert check_answer(CHAT_PATH, body.encode()) == ({}, body.encode(), Usage(3, 2))


@LENGTHS
def test_a_byte_order_mark_is_no_part_of_an_answer(length: int) -> None:
    assert check_answer(CHAT_PATH, b"\xef\xbb\xbf" + answer(length))[2] == Usage(3, 2)


@LENGTHS
@pytest.mark.parametrize("damage", [b"\xe9", b"\\d", b"\x01"], ids=["not UTF-8", "wrong escape", "control character"])
def test_a_text_that_clients_cannot_decode_is_refused(length: int, damage: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, answer(length).replace(b'"content": "', b'"content": "' + damage, 1))


@LENGTHS
@pytest.mark.parametrize("rest", [b' 5 "x" {"n": true}', b" {}", b"[]}"])
def test_what_follows_an_answer_is_refused(length: int, rest: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, answer(length) + rest)


@pytest.mark.parametrize("choice", [{}, {"message": None}, {"message": "hi"}, {"text": "hi"}])
def test_a_choice_without_a_message_is_no_answer(choice: dict[str, Any]) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        check_answer(CHAT_PATH, json.dumps({"choices": [choice]}).encode())


def test_stop_after_tool_calls_becomes_tool_calls() -> None:
    """`stop` ends an agent's loop before the tools have run (opencode#14972)."""
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {}}]}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}]
    value, body, _ = check_answer(CHAT_PATH, json.dumps({"choices": choices}).encode())
    assert [choice["finish_reason"] for choice in value["choices"]] == ["tool_calls", "stop"]
    assert json.loads(body) == value


def test_an_empty_finish_reason_becomes_one_that_clients_know() -> None:
    calls = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {}}]}
    messages = [{"role": "assistant", "content": "Hello"}, calls]
    choices = [{"index": i, "message": message, "finish_reason": ""} for i, message in enumerate(messages)]
    _, body, _ = check_answer(CHAT_PATH, json.dumps({"choices": choices}).encode())
    assert [choice["finish_reason"] for choice in json.loads(body)["choices"]] == ["stop", "tool_calls"]


@pytest.mark.parametrize("body", [{"error_code": "BAD_REQUEST", "message": "no"}, {"detail": "no"}])
def test_an_error_without_an_envelope_is_left_to_the_caller(body: Any) -> None:
    assert check_answer(CHAT_PATH, json.dumps(body).encode())[0] == body
