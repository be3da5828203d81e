"""Masking of secrets in logged request bodies."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from openai_compat.core.secret_masking import MASK, MAX_LOGGED_CHARS, MAX_PARSED_BYTES, redact

SECRET_FIELDS: list[dict[str, Any]] = [
    {"password": "abc"},
    {"my_api-key": "abc"},
    {"hf_token": "abc"},
    {"tokens": ["x", "abc"]},
    {"secret": {"value": "abc", "more": [{"value": "abc"}, "abc"]}},
    {"credentials": [["abc"]]},
    {"passwd": "abc"},
    {"X-Key": "abc"},
    {"apiKey": "abc"},
    {"passphrase": "abc"},
    {"Ocp-Apim-Subscription-Key": "abc"},
    {"deeply": [[{"nested": [{"client_secret": ["abc"]}]}]]},
    {"pwd": 123},
]


@pytest.mark.parametrize("value", SECRET_FIELDS, ids=json.dumps)
def test_the_value_of_a_field_that_names_a_secret_is_masked(value: dict[str, Any]) -> None:
    logged = redact(json.dumps(value).encode())
    assert MASK in logged
    assert "abc" not in logged
    assert "123" not in logged


SECRET_TEXTS = [
    "Bearer abcdefgh1",
    "sk-abcdefgh",
    "ghp_abcdefghijkl",
    "github_pat_abcdefghijkl",
    "AKIAabcDEFGHIJKLMNOP",
    "xoxb-1234-abcdefgh",
    "AIzaSyabcdefghijkl",
    "eyJabcdef.eyJabcdef.abc-abc_",
    "see https://user:abc@example.com/x",
    "see https://abc@example.com/x",
    "postgres://user:x@abc@example.com",
    "api_key=abc&x=y",
    "export OPENAI_API_KEY='x abc'",
    "Authorization: Basic abc",
    "my password: correct abc staple",
    "password:\nabc",
    "access_token=abc",
    "token: 123abc",
    r"{\"auth_token\": \"x abc\"}",
    "-----BEGIN RSA PRIVATE KEY-----\nabc",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: {"content": text},
        lambda text: [text],
        lambda text: {"parts": [["x", text]]},
        lambda text: {text: 1},
        lambda text: {"arguments": json.dumps({"note": text, "after": "abc"})},
    ],
    ids=["field", "list", "nested list", "name", "JSON in a text"],
)
def test_a_text_is_masked_from_the_first_secret_in_it(text: str, wrap: Any) -> None:
    logged = redact(json.dumps(wrap(text)).encode())
    assert MASK in logged
    assert "abc" not in logged


def test_the_text_before_a_secret_stays() -> None:
    assert redact(b'{"content": "Logged, with sk-abcdefgh and more"}') == '{"content": "Logged, with ***"}'


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": 100, "token": 3, "eos_token_id": None, "min_tokens": True},
        {"arguments": '{"max_tokens": 100}'},
        {"content": "max_tokens=100&stop_token=3.5"},
        {"content": "100 tokens, a task-abcdefgh1, at 10:30"},
        {"messages": [{"role": "user", "content": "What is a token? https://example.com/a@b"}], "key": "a"},
        {"content": "Größe 😀"},
    ],
    ids=json.dumps,
)
def test_a_body_without_secrets_is_unchanged(value: dict[str, Any]) -> None:
    assert json.loads(redact(json.dumps(value).encode())) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"password=abc",
        b'{"password": 1abc}',
        b'{"api_key":"abc',
        b"\xff\xfe",
        b'{"a":' + b"[" * 100_000,
        b"9" * 5000,
    ],
    ids=["empty", "form", "syntax error", "truncated", "not UTF-8", "too deep", "too many digits"],
)
def test_of_a_body_that_is_not_json_only_the_size_is_logged(body: bytes) -> None:
    assert redact(body) == f"({len(body)} bytes that are not valid JSON)"


def test_of_a_large_body_only_the_size_is_logged() -> None:
    body = json.dumps({"content": "x" * MAX_PARSED_BYTES}).encode()
    assert redact(body) == f"({len(body)} bytes)"


def test_the_logged_text_has_a_maximum_length() -> None:
    assert len(redact(json.dumps({"content": "x" * 2 * MAX_LOGGED_CHARS}).encode())) == MAX_LOGGED_CHARS


@pytest.mark.parametrize(
    "part", ["token", "api_key", "'", "eyJ-", "://", "://a", "sk-", "Bearer ", "=", "a:", "-", "-----BEGIN "]
)
def test_the_time_grows_in_proportion_to_the_text(part: str) -> None:
    def seconds(length: int) -> float:
        body = json.dumps({"content": part * (length // len(part))}).encode()
        started = time.thread_time()  # CPU time of this thread, independent of other processes
        redact(body)
        return time.thread_time() - started

    # Sixteen times the text would take 256 times as long if the time grew with the square.
    assert min(seconds(80_000) for _ in range(2)) < 80 * max(seconds(5_000) for _ in range(5))
