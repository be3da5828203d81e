"""Passthrough to an upstream that answers in the other format, as an event stream or as complete JSON."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from openai_compat.backends.openai.backend import OpenAIBackend, OpenAIOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import UpstreamInvalidResponseError
from openai_compat.core.settings import ModelConfig, RoutePolicy, Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import CallContext
from openai_compat.routing.circuit_breaker import CircuitBreaker
from openai_compat.routing.load_balancer import WeightedRandom
from openai_compat.routing.route import RoutePlan, Target
from openai_compat.routing.router import Route
from openai_compat.services.event_stream import CompleteAnswer, EventStream
from openai_compat.services.forwarding import UpstreamRefusalError, forward
from openai_compat.services.inference import GenerationEndpoint, answer_call
from openai_compat.services.inference_call import CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH, InferenceCall
from openai_compat.state.memory import MemoryStore
from tests.support.fake_http_client import EVENTS, ScriptedClient, ScriptedResponse, make

USAGE = {"prompt_tokens": 1, "completion_tokens": 2}
DONE = b"data: [DONE]\n\n"


def event(*choices: Any, **more: Any) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": list(choices), **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def text(content: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}


def backend_of(response: ScriptedResponse, name: str = "m") -> OpenAIBackend:
    resources = BackendResources(Settings(), ScriptedClient(response))  # type: ignore[arg-type]
    return OpenAIBackend(ModelConfig(name, "openai", base_url="http://up.test/v1"), OpenAIOptions(), resources)


def call_of(path: str = CHAT_PATH, *, is_streamed: bool = False) -> InferenceCall:
    payload = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": is_streamed}
    return InferenceCall(path, json.dumps(payload).encode(), payload, "m")


def answer_to(
    response: ScriptedResponse, path: str = CHAT_PATH, *, is_streamed: bool = False
) -> CompleteAnswer | EventStream:
    return forward(backend_of(response), call_of(path, is_streamed=is_streamed), CallContext("req"))


def events_of(response: ScriptedResponse, path: str = CHAT_PATH) -> list[dict[str, Any]]:
    """Return the chunks of a streamed call, which must have an end mark."""
    answer = answer_to(response, path, is_streamed=True)
    assert isinstance(answer, EventStream)
    data = b"".join(block for block in answer if isinstance(block, bytes)).split(b"\n\n")
    assert data[-2:] == [b"data: [DONE]", b""]
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in data[:-2]]


WITHOUT_CONTENT = [
    {"choices": [], "usage": USAGE},
    {"choices": ["x"]},
    {"choices": [{}]},
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "message": "x"}]},
    {"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": ["x"]}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": {"a": 1}}}]},
    {"choices": [{"index": 0, "text": ""}]},
]


@pytest.mark.parametrize("completion", WITHOUT_CONTENT)
def test_a_complete_answer_without_content_is_an_error_before_the_stream_exists(completion: dict[str, Any]) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        answer_to(make(completion), is_streamed=True)


@pytest.mark.parametrize(
    "message", [{"content": "a"}, {"refusal": "a"}, {"reasoning_content": "a"}, {"function_call": {"name": "f"}}]
)
def test_a_complete_answer_with_any_content_becomes_chunks(message: dict[str, Any]) -> None:
    first, last = events_of(make({"object": "chat.completion", "choices": [{"message": message}]}))
    assert first["choices"] == [{"index": 0, "delta": {"role": "assistant", **message}, "finish_reason": None}]
    assert last["choices"][0]["finish_reason"] == ("function_call" if "function_call" in message else "stop")


def test_a_finish_reason_that_is_missing_is_added_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tools = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    chunks = events_of(make({"choices": [{"index": 0, "message": {"content": None, "tool_calls": tools}}]}))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert "had no finish reason" in caplog.text
    (chunk,) = events_of(make({"object": "text_completion", "choices": [{"text": "a"}]}), COMPLETIONS_PATH)
    assert chunk["choices"] == [{"index": 0, "text": "a", "finish_reason": "stop"}]


@pytest.mark.parametrize("completion", [{"choices": []}, {"choices": [], "usage": USAGE}, {"choices": ["x"]}])
def test_a_complete_answer_without_choices_is_no_answer(completion: dict[str, Any]) -> None:
    with pytest.raises(UpstreamInvalidResponseError, match="choices"):
        answer_to(make(completion))


def test_a_large_error_keeps_its_status() -> None:
    with pytest.raises(UpstreamRefusalError) as raised:
        answer_to(make({"error": {"message": "x" * 70_000, "code": 429}}))
    assert raised.value.upstream_status == 429


def test_an_event_stream_becomes_a_completion() -> None:
    stream = event(text("a")) + event(text("b", "length")) + event(usage=USAGE) + DONE
    answer = answer_to(make(stream, EVENTS))
    assert isinstance(answer, CompleteAnswer)
    completion = json.loads(answer.body)
    message = {"role": "assistant", "content": "ab"}
    assert completion["choices"] == [{"index": 0, "message": message, "finish_reason": "length", "logprobs": None}]
    assert (completion["object"], completion["usage"]) == ("chat.completion", USAGE)
    assert answer.usage is not None


@pytest.mark.parametrize(
    "stream",
    [
        DONE,
        event() + DONE,
        event(usage=USAGE) + DONE,
        event({"index": 0, "delta": {"role": "assistant"}}) + DONE,
        event({"index": 0, "delta": {"content": 3}}) + DONE,
        event({"index": 0, "delta": {"tool_calls": ["x"]}}) + DONE,
        event("x") + DONE,
    ],
)
def test_an_event_stream_that_is_no_answer_is_an_error_of_the_upstream(stream: bytes) -> None:
    response = make(stream, EVENTS)
    with pytest.raises(UpstreamInvalidResponseError):
        answer_to(response)
    assert response.ending


def test_an_event_stream_is_no_answer_to_embeddings() -> None:
    response = make([event(text("a", "stop")), pytest.fail.Exception("read on")], EVENTS)
    with pytest.raises(UpstreamInvalidResponseError, match="embeddings"):
        answer_to(response, EMBEDDINGS_PATH)
    assert response.ending == "closed"


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("first", [make({"choices": ["x"]}), make({"choices": []}), make(event("x") + DONE, EVENTS)])
def test_a_fallback_answers_in_place_of_an_upstream_without_an_answer(
    first: ScriptedResponse, is_streamed: bool
) -> None:
    good = event(text("a", "stop")) + DONE
    targets = [Target(name, backend_of(response, name)) for name, response in (("m", first), ("s", make(good, EVENTS)))]
    policy = RoutePolicy(retries=0)
    breaker = CircuitBreaker(MemoryStore(), ["m", "s"])
    plan = RoutePlan(policy, {"m": targets[0]}, targets[1:], WeightedRandom({"m": 1}), breaker)
    route = Route("m", targets[0].backend, plan)
    asked: list[str | None] = []
    endpoint = GenerationEndpoint(CHAT_PATH, pytest.fail, TokenCounter())
    answer = answer_call(
        endpoint,
        route,
        call_of(is_streamed=is_streamed),
        CallContext("req"),
        lambda failover: asked.append(failover.target and failover.target.model),
    )
    body = answer.body if isinstance(answer, CompleteAnswer) else b"".join(map(bytes, answer))  # type: ignore[arg-type]
    assert b'"a"' in body
    assert asked == ["s"]


@pytest.mark.parametrize("vector", ["[0.5, -1e-3]", "[ 0.5,\n-0.001 ]"])
def test_lists_of_numbers_become_base64_if_the_client_asked_for_it(vector: str) -> None:
    item = f'{{"object": "embedding", "index": 0, "embedding": {vector}}}'
    answer = embeddings_of(f'{{"object": "list", "data": [{item}, {item}], "model": "m"}}', "base64")
    vectors = [base64.b64decode(item["embedding"]) for item in json.loads(answer)["data"]]
    assert vectors == [struct.pack("<2f", 0.5, -0.001)] * 2


def test_embeddings_in_the_format_that_was_asked_for_pass_byte_for_byte() -> None:
    for value, encoding_format in (('"AAAA"', "base64"), ("[0.5]", "float"), ("[0.5]", None)):
        body = f'{{"data": [{{"object": "embedding", "embedding": {value}}}]}}'
        assert embeddings_of(body, encoding_format) == body.encode()


@pytest.mark.parametrize("vector", ['["x"]', "[null]", "[]", "[1e999999, ]"])
def test_a_vector_of_something_else_is_no_answer(vector: str) -> None:
    with pytest.raises(UpstreamInvalidResponseError):
        embeddings_of(f'{{"data": [{{"embedding": {vector}}}]}}', "base64")


def embeddings_of(body: str, encoding_format: str | None) -> bytes:
    payload = {"model": "m", "input": "x", "encoding_format": encoding_format}
    call = InferenceCall(EMBEDDINGS_PATH, json.dumps(payload).encode(), payload, "m")
    answer = forward(backend_of(make(body.encode())), call, CallContext("req"))
    assert isinstance(answer, CompleteAnswer)
    return answer.body
