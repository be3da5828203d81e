"""Requests that the schemas accept, and the errors for all others, with parameter, code and OpenAI's message."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from openai_compat.core.errors import InvalidRequestError
from openai_compat.web.body import validate
from openai_compat.web.schemas.ask import ASK_REQUEST
from openai_compat.web.schemas.base import FieldError, RequestSchema
from openai_compat.web.schemas.chat import CHAT_REQUEST, MessageSchema
from openai_compat.web.schemas.completions import COMPLETION_REQUEST
from openai_compat.web.schemas.embeddings import EMBEDDINGS_REQUEST
from openai_compat.web.schemas.fields import List, Messages, Nested

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello!"}]
FUNCTION = {"name": "get_weather", "description": None, "parameters": {"type": "object"}, "strict": True}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}


def chat(**parameters: Any) -> dict[str, Any]:
    return {"messages": HELLO, **parameters}


def message(**keys: Any) -> dict[str, Any]:
    return {"messages": [*HELLO, keys]}


CHAT_ACCEPTED = {
    "messages alone, as the Databricks clients send them": chat(),
    "a model": chat(model="gpt-4o"),
    "every sampling parameter": chat(
        temperature=0, top_p=1, n=2, seed=-1, frequency_penalty=-0.5, presence_penalty=2, logit_bias={"50256": -100}
    ),
    "values that only an upstream can validate": chat(
        max_tokens=0, temperature=9.9, top_logprobs=-3, reasoning_effort="galactic", service_tier="unheard-of"
    ),
    "an unknown parameter": chat(an_unknown_parameter={"deeply": ["nested", None]}),
    "one stop text": chat(stop="\n"),
    "several stop texts": chat(stop=["a", "b"]),
    "tools": chat(tools=[{"type": "function", "function": FUNCTION}], tool_choice="auto", parallel_tool_calls=False),
    "a chosen tool": chat(tool_choice={"type": "function", "function": {"name": "get_weather"}}),
    "a custom tool": chat(tools=[{"type": "custom", "custom": {"name": "run"}}]),
    "an unknown tool type": chat(tools=[{"type": "telepathy", "range": 3}]),
    "deprecated functions": chat(functions=[FUNCTION], function_call={"name": "get_weather"}),
    "a JSON object": chat(response_format={"type": "json_object"}),
    "a JSON schema": chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
    "audio": chat(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}),
    "a stream": chat(stream=True, stream_options={"include_usage": True}),
    "a stream's options without a stream, which the model judges": chat(stream_options={"include_usage": True}),
    "a stream's options that are null": chat(stream=False, stream_options=None),
    "metadata": chat(metadata={"user": "1"}, store=True, user="u", safety_identifier="s"),
    "an unknown role": message(role="oracle", content="42"),
    "an empty text": message(role="user", content=""),
    "text parts": message(role="user", content=[{"type": "text", "text": "Hello!"}]),
    "an image": message(role="user", content=[{"type": "image_url", "image_url": {"url": "data:", "detail": "low"}}]),
    "an image as a bare URL": message(role="user", content=[{"type": "image_url", "image_url": "https://a.b"}]),
    "audio and files": message(
        role="user",
        content=[{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, {"type": "file", "file": {}}],
    ),
    "an unknown part type": message(role="user", content=[{"type": "hologram", "hologram": 7}]),
    "a named speaker": message(role="user", content="Hi", name="ada"),
    "a speaker whose name is null": message(role="user", content="Hi", name=None),
    "an assistant that calls tools": message(role="assistant", content=None, tool_calls=[CALL]),
    "an assistant without content": message(role="assistant", tool_calls=[CALL], refusal=None, audio={"id": "a"}),
    "a tool's answer": message(role="tool", content="sunny", tool_call_id="call_1"),
    "a function's answer": message(role="function", name="f", content=None),
    "an assistant with a deprecated function call": message(
        role="assistant", content=None, function_call={"name": "f", "arguments": "{}"}
    ),
    "an answer of a reasoning model": message(role="assistant", content="42", reasoning_content="hm"),
}

PARTS_OR_TEXT = "expected one of a string or array of objects"
CHAT_REJECTED = {
    "no messages": ({}, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."),
    "messages that are null": (
        {"messages": None},
        "messages",
        "invalid_type",
        "Invalid type for 'messages': expected an array of objects, but got null instead.",
    ),
    "messages that are a text": (
        {"messages": "Hello!"},
        "messages",
        "invalid_type",
        "Invalid type for 'messages': expected an array of objects, but got a string instead.",
    ),
    "an empty conversation": (
        {"messages": []},
        "messages",
        "empty_array",
        "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    ),
    "a message that is a text": (
        {"messages": [*HELLO, "Hello!"]},
        "messages[1]",
        "invalid_type",
        "Invalid type for 'messages[1]': expected an object, but got a string instead.",
    ),
    "a message without a role": (
        message(content="Hello!"),
        "messages[1].role",
        "missing_required_parameter",
        "Missing required parameter: 'messages[1].role'.",
    ),
    "a role that is a number": (
        message(role=1, content="Hello!"),
        "messages[1].role",
        "invalid_type",
        "Invalid type for 'messages[1].role': expected a string, but got an integer instead.",
    ),
    "a message without content": (
        message(role="user"),
        "messages[1].content",
        "missing_required_parameter",
        "Missing required parameter: 'messages[1].content'.",
    ),
    "content that is null": (
        message(role="user", content=None),
        "messages[1].content",
        "invalid_type",
        f"Invalid type for 'messages[1].content': {PARTS_OR_TEXT}, but got null instead.",
    ),
    "content that is an object": (
        message(role="assistant", content={}),
        "messages[1].content",
        "invalid_type",
        f"Invalid type for 'messages[1].content': {PARTS_OR_TEXT}, but got an object instead.",
    ),
    "a part that is a text": (
        message(role="user", content=["Hello!"]),
        "messages[1].content[0]",
        "invalid_type",
        "Invalid type for 'messages[1].content[0]': expected an object, but got a string instead.",
    ),
    "a part without a type": (
        message(role="user", content=[{"text": "Hello!"}]),
        "messages[1].content[0].type",
        "missing_required_parameter",
        "Missing required parameter: 'messages[1].content[0].type'.",
    ),
    "a text part without text": (
        message(role="user", content=[{"type": "text"}]),
        "messages[1].content[0].text",
        "missing_required_parameter",
        "Missing required parameter: 'messages[1].content[0].text'.",
    ),
    "a temperature in quotes": (
        chat(temperature="0.5"),
        "temperature",
        "invalid_type",
        "Invalid type for 'temperature': expected a decimal, but got a string instead.",
    ),
    "a temperature that is true": (
        chat(temperature=True),
        "temperature",
        "invalid_type",
        "Invalid type for 'temperature': expected a decimal, but got a boolean instead.",
    ),
    "a decimal where an integer belongs": (
        chat(seed=1.5),
        "seed",
        "invalid_type",
        "Invalid type for 'seed': expected an integer, but got a decimal number instead.",
    ),
    "true where an integer belongs": (
        chat(n=True),
        "n",
        "invalid_type",
        "Invalid type for 'n': expected an integer, but got a boolean instead.",
    ),
    "a stream in quotes": (
        chat(stream="true"),
        "stream",
        "invalid_type",
        "Invalid type for 'stream': expected a boolean, but got a string instead.",
    ),
    "a model that is a number": (
        chat(model=4),
        "model",
        "invalid_type",
        "Invalid type for 'model': expected a string, but got an integer instead.",
    ),
    "stop texts that are numbers": (
        chat(stop=["a", 1]),
        "stop[1]",
        "invalid_type",
        "Invalid type for 'stop[1]': expected a string, but got an integer instead.",
    ),
    "a stop text that is an object": (
        chat(stop={}),
        "stop",
        "invalid_type",
        "Invalid type for 'stop': expected one of a string or array of strings, but got an object instead.",
    ),
    "a tool without a type": (
        chat(tools=[{"function": FUNCTION}]),
        "tools[0].type",
        "missing_required_parameter",
        "Missing required parameter: 'tools[0].type'.",
    ),
    "a tool without its function": (
        chat(tools=[{"type": "function"}]),
        "tools[0].function",
        "missing_required_parameter",
        "Missing required parameter: 'tools[0].function'.",
    ),
    "a function without a name": (
        chat(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
        "missing_required_parameter",
        "Missing required parameter: 'tools[0].function.name'.",
    ),
    "a schema that is missing": (
        chat(response_format={"type": "json_schema"}),
        "response_format.json_schema",
        "missing_required_parameter",
        "Missing required parameter: 'response_format.json_schema'.",
    ),
    "a format that is a text": (
        chat(response_format="json_object"),
        "response_format",
        "invalid_type",
        "Invalid type for 'response_format': expected an object, but got a string instead.",
    ),
}


@pytest.mark.parametrize("payload", CHAT_ACCEPTED.values(), ids=CHAT_ACCEPTED.keys())
def test_a_valid_chat_request_is_returned_unchanged(payload: dict[str, Any]) -> None:
    before = copy.deepcopy(payload)
    assert validate(CHAT_REQUEST, payload) is payload
    assert json.dumps(payload) == json.dumps(before)


@pytest.mark.parametrize(("payload", "param", "code", "text"), CHAT_REJECTED.values(), ids=CHAT_REJECTED.keys())
def test_an_invalid_chat_request_is_rejected_with_openais_message(
    payload: dict[str, Any], param: str, code: str | None, text: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(CHAT_REQUEST, payload)
    assert caught.value.to_envelope() == {
        "error": {"message": text, "type": "invalid_request_error", "param": param, "code": code}
    }


DOCUMENTED = [
    (CHAT_REQUEST, chat_create_params.CompletionCreateParamsBase, chat()),
    (COMPLETION_REQUEST, completion_create_params.CompletionCreateParamsBase, {"prompt": "a"}),
    (EMBEDDINGS_REQUEST, embedding_create_params.EmbeddingCreateParams, {"input": "a"}),
]


@pytest.mark.parametrize(("schema", "documented", "payload"), DOCUMENTED, ids=["chat", "completions", "embeddings"])
def test_every_parameter_of_the_official_client_is_declared_and_may_be_null(
    schema: RequestSchema, documented: type, payload: dict[str, Any]
) -> None:
    names = set(documented.__annotations__)
    assert names <= set(schema.load_fields)
    nulls = dict.fromkeys(names - set(payload))
    assert validate(schema, {**payload, **nulls, "stream": None}) == {**payload, **nulls, "stream": None}


INPUTS = {
    "a text": "Once",
    "texts": ["Once", "Twice"],
    "token ids": [1, 2, 3],
    "lists of token ids": [[1, 2], [3]],
    "more token ids than OpenAI takes inputs": list(range(2049)),
    "more texts than OpenAI takes": ["a"] * 2049,
    "more lists of token ids than OpenAI takes": [[1]] * 2049,
}
BAD_INPUTS: dict[str, tuple[Any, str, str]] = {
    "null": (None, "", "invalid_type"),
    "a number": (1, "", "invalid_type"),
    "an object": ({}, "", "invalid_type"),
    "nothing": ([], "", "empty_array"),
    "null among texts": (["a", None], "[1]", "invalid_type"),
    "a number among texts": (["a", 1], "[1]", "invalid_type"),
    "a text among token ids": ([1, "a"], "[1]", "invalid_type"),
    "true among token ids": ([1, True], "[1]", "invalid_type"),
    "decimals": ([1.5], "[0]", "invalid_type"),
    "a text among lists": ([[1], "a"], "[1]", "invalid_type"),
    "a text in a list": ([[1], [2, "a"]], "[1][1]", "invalid_type"),
    "an empty list among lists": ([[1], []], "[1]", "empty_array"),
    "objects": ([{}], "[0]", "invalid_type"),
}


@pytest.mark.parametrize("value", INPUTS.values(), ids=INPUTS.keys())
def test_prompts_and_inputs_accept_every_documented_type(value: Any) -> None:
    validate(COMPLETION_REQUEST, {"prompt": value})
    validate(EMBEDDINGS_REQUEST, {"input": value})


@pytest.mark.parametrize(("value", "path", "code"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
@pytest.mark.parametrize(("schema", "name"), [(COMPLETION_REQUEST, "prompt"), (EMBEDDINGS_REQUEST, "input")])
def test_prompts_and_inputs_of_other_types_are_rejected_at_the_first_invalid_item(
    schema: RequestSchema, name: str, value: Any, path: str, code: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(schema, {name: value})
    assert (caught.value.param, caught.value.code) == (f"{name}{path}", code)


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        ("", "input", "empty_string"),
        (["a", ""], "input[1]", "empty_string"),
    ],
)
def test_embeddings_reject_empty_texts(value: Any, param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(EMBEDDINGS_REQUEST, {"input": value})
    assert (caught.value.param, caught.value.code) == (param, code)


def test_an_empty_prompt_is_accepted() -> None:
    assert validate(COMPLETION_REQUEST, {"prompt": ["", "a"]})


USE_CHAT_4 = {
    "id": "chat",
    "messages": [
        {
            "id": "1",
            "role": "user",
            "content": "Hello!",
            "parts": [{"type": "text", "text": "Hello!"}],
            "createdAt": "2025-01-01T00:00:00.000Z",
            "experimental_attachments": [{"name": "a.png", "contentType": "image/png", "url": "data:,"}],
        },
        {
            "id": "2",
            "role": "assistant",
            "content": "",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "reasoning": "hm", "details": []},
                {"type": "tool-invocation", "toolInvocation": {"state": "result", "toolCallId": "c", "args": {}}},
            ],
        },
    ],
    "data": {"anything": True},
}
USE_CHAT_5 = {
    "id": "chat",
    "messages": [
        {
            "id": "1",
            "role": "user",
            "parts": [
                {"type": "text", "text": "Hello!"},
                {"type": "file", "mediaType": "image/png", "url": "data:,", "filename": "a.png"},
            ],
            "metadata": {"at": 1},
        },
        {
            "id": "2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "hm", "state": "done"},
                {"type": "tool-weather", "toolCallId": "c", "state": "output-available", "input": {}, "output": 1},
                {"type": "data-chart", "data": [1, 2]},
            ],
        },
        {"id": "3", "role": "assistant", "parts": []},
    ],
    "trigger": "regenerate-message",
    "messageId": "3",
}


@pytest.mark.parametrize(
    "payload",
    [{"messages": HELLO}, {"messages": HELLO, "model": "m", "temperature": 0.5, "theme": [1]}, USE_CHAT_4, USE_CHAT_5],
    ids=["role and content", "more keys", "useChat of the AI SDK 4", "useChat of the AI SDK 5"],
)
def test_ask_accepts_the_requests_of_front_ends(payload: dict[str, Any]) -> None:
    assert validate(ASK_REQUEST, payload) is payload


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "Hello!"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None, "parts": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": HELLO, "temperature": "any"}, "temperature"),
        ({"messages": [{"role": "user", "parts": "Hello!"}]}, "messages[0].parts"),
        ({"messages": [{"role": "user", "parts": [{"text": "Hello!"}]}]}, "messages[0].parts[0].type"),
        ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "messages[0].parts[0].text"),
        ({"messages": HELLO, "model": 1}, "model"),
    ],
)
def test_ask_rejects_an_invalid_request_with_its_path(payload: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(ASK_REQUEST, payload)
    assert caught.value.param == param


ABSENT = object()
VALUES: list[Any] = [
    ABSENT,
    None,
    "",
    "user",
    "assistant",
    "tool",
    1,
    True,
    0.5,
    [],
    {},
    [{"type": "text", "text": "a"}],
]


def all_messages() -> Iterator[Any]:
    """Yield messages with every combination of values, with one more key, and values that are no messages."""
    for role, content, name in itertools.product(VALUES, repeat=3):
        keys = {"role": role, "content": content, "name": name}
        yield {key: value for key, value in keys.items() if value is not ABSENT}
    for key, value in itertools.product(["tool_calls", "refusal", "unheard_of", "audio"], VALUES[1:]):
        yield {"role": "user", "content": "a", key: value}
    yield from VALUES[1:]


def error_message(field: List, items: list[Any]) -> str | None:
    try:
        field.deserialize(items)
    except FieldError as error:
        return error.sentence
    return None


def test_messages_that_skip_the_schema_get_the_same_result_as_with_it() -> None:
    fast, complete = Messages(Nested(MessageSchema)), List(Nested(MessageSchema))
    results = {(error_message(fast, [item]), error_message(complete, [item])) for item in all_messages()}
    assert len(results) > 10
    assert all(one == other for one, other in results)


def test_plain_messages_skip_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, data: object) -> None:
        raise AssertionError("a plain message was validated by the schema")

    monkeypatch.setattr(MessageSchema, "check", fail)
    named = {"role": "user", "content": "Hello!", "name": "ada"}
    validate(CHAT_REQUEST, {"messages": [*HELLO, named] * 500})
    with pytest.raises(AssertionError):
        validate(CHAT_REQUEST, message(role="user", content=[]))
