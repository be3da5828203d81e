"""Rewriting of a request body, which changes only the model's name and the request for usage."""

from __future__ import annotations

import json

import pytest

from openai_compat.services.body_rewrite import to_upstream_body

BODY = b'{ "messages" : [{"content":"say \\"model\\": \\"alias\\" \xc3\xa9"}] ,\n "model" : "alias", "x": 1.50 }'


def edited(body: bytes, model: str = "alias", *, asks_for_usage: bool = False) -> bytes:
    return to_upstream_body(body, json.loads(body), model=model, asks_for_usage=asks_for_usage)


def test_a_body_without_changes_is_the_same_object() -> None:
    assert edited(BODY) is BODY


def test_only_the_name_of_the_model_changes() -> None:
    assert edited(BODY, "real/name") == BODY.replace(b' "model" : "alias"', b' "model" : "real/name"')


def test_a_missing_model_name_is_inserted() -> None:
    body = b'{"messages":[]}'
    assert edited(body, "m") == b'{"model":"m","messages":[]}'


def test_the_request_for_usage_is_appended() -> None:
    assert edited(b'{"model":"alias","stream":true}\n', asks_for_usage=True) == (
        b'{"model":"alias","stream":true,"stream_options":{"include_usage":true}}\n'
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata":{"model":"alias"},"model":"alias"}',
        b'{"mod\\u0065l":"alias","metadata":{"model":"alias"}}',
        b'{"model":"al\\u0069as","stream_options":null}',
        b'{"model":"alias","stream_options":{"include_usage":false,"include_obfuscation":false}}',
        b'{"model":null,"messages":[]}',
    ],
)
def test_an_ambiguous_body_is_serialized_again_with_the_same_meaning(body: bytes) -> None:
    before, after = json.loads(body), json.loads(edited(body, "real", asks_for_usage=True))
    assert after.pop("model") == "real"
    assert after.pop("stream_options")["include_usage"] is True
    before.pop("model")
    before.pop("stream_options", None)
    assert after == before


def test_both_edits_work_together_in_either_order_of_keys() -> None:
    for body in (b'{"model":"alias","stream":true}', b'{"stream":true,"model":"alias"}'):
        after = json.loads(edited(body, "real", asks_for_usage=True))
        assert after == {"model": "real", "stream": True, "stream_options": {"include_usage": True}}
