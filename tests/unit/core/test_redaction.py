"""Masking of credentials in texts, bytes and headers."""

from __future__ import annotations

import pytest

from openai_compat.core.redaction import Redactor, header_secrets, url_secrets
from openai_compat.core.settings import ModelConfig


@pytest.mark.parametrize(
    ("secret", "text", "masked"),
    [
        ("sk-12345", "the key sk-12345 is wrong", "the key *** is wrong"),
        ("Bearer sk-12345", "Bearer sk-12345 and sk-12345", "Bearer *** and ***"),
        ("a value of words", "it was a value of words", "it was ***"),
        ("with/slash+", r"with/slash+ with\/slash+ with%2Fslash%2B", "*** *** ***"),
        ('a"quote', r"{\"key\": \"a\"quote\"}", r"{\"key\": \"***\"}"),
        ("short", "a short text", "a short text"),
        ("ollama", "the model is unknown to Ollama, ollama pull it", "the model is unknown to Ollama, ollama pull it"),
        ("Bearer not-needed", "a key is not-needed", "a key is not-needed"),
        ("ollama-3f9a", "the key ollama-3f9a is wrong", "the key *** is wrong"),
        ("", "a text", "a text"),
        (None, "a text", "a text"),
    ],
)
def test_a_secret_is_masked_in_each_spelling(secret: str | None, text: str, masked: str) -> None:
    redactor = Redactor([secret])
    assert redactor.mask(text) == masked
    assert redactor.mask_bytes(text.encode()) == masked.encode()


def test_a_secret_within_another_leaves_no_rest() -> None:
    redactor = Redactor(["abcdef"]).including(["abcdef-123456", None])
    assert redactor.mask("abcdef-123456 abcdef") == "*** ***"


def test_headers_without_a_secret_are_returned_as_they_are() -> None:
    headers = {"x-request-id": "req_1", "openai-x": "sk-12345"}
    assert Redactor(["sk-12345"]).mask_headers(headers) == {"x-request-id": "req_1", "openai-x": "***"}
    assert Redactor(["sk-other"]).mask_headers(headers) is headers


def test_the_secrets_of_a_url_are_its_password_and_keys_in_its_query() -> None:
    url = "http://user:p%40ssword@upstream.test/v1?api-version=2024-10-21&code=function-key"
    assert list(url_secrets(url)) == ["p@ssword", "dXNlcjpwQHNzd29yZA==", "function-key"]
    assert list(url_secrets("http://[broken")) == []


def test_a_model_config_names_its_secrets_and_no_version() -> None:
    headers = {"X-Token": "t-123456", "anthropic-version": "2023-06-01", "Content-Type": "application/json"}
    assert list(header_secrets(headers)) == ["t-123456"]
    config = ModelConfig("m", "openai", "http://u:p-123456@x", api_key="sk-1", headers=headers, variables={"A": "v-1"})
    assert config.secrets() == ["sk-1", "t-123456", "v-1", "p-123456", "dTpwLTEyMzQ1Ng=="]
