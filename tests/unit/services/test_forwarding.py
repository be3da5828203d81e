"""What forwarding makes of an upstream's whole answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.types import Usage
from openai_compat.services.forwarding import validate_json_body
from openai_compat.services.inference_call import InferenceCall

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def answer(length: int) -> bytes:
    return json.dumps({"choices": ["x" * length], "usage": USAGE}).encode()


@pytest.mark.parametrize("length", [10, 200_000], ids=["short", "long"])
@pytest.mark.parametrize("around", [b"", b"\n\n\n \n"], ids=["bare", "kept alive with white space"])
def test_usage_is_read_from_whole_answers(length: int, around: bytes) -> None:
    assert validate_json_body(around + answer(length) + around) == Usage(3, 2)


@pytest.mark.parametrize("length", [10, 200_000], ids=["short", "long"])
def test_an_answer_without_its_end_is_refused(length: int) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        validate_json_body(answer(length)[:-30])


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"<html>", b"x" * 200_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        validate_json_body(body)


def test_a_long_answer_without_usage_has_none() -> None:
    assert validate_json_body(json.dumps({"data": ["x" * 200_000]}).encode()) is None


@pytest.mark.parametrize(
    ("payload", "choices"),
    [
        ({}, 1),
        ({"n": None}, 1),
        ({"n": 3}, 3),
        ({"prompt": "a", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1], [2, 3]]}, 2),
    ],
)
def test_how_many_choices_a_call_has(payload: dict[str, Any], choices: int) -> None:
    assert InferenceCall("completions", b"", payload, "m").choices == choices
