"""Conversion of a chat page's messages, plain ones and those of the AI SDK's versions, to OpenAI's messages."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.core.errors import InvalidRequestError
from openai_compat.services.ai_sdk_messages import to_chat_messages

USER = {"role": "user", "content": "Hello!"}
PNG = "data:image/png;base64,AAAA"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "state": "done"}


def user(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "1", "role": "user", "parts": list(parts), **more}


def assistant(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "2", "role": "assistant", "parts": list(parts), **more}


def tool(state: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool-get-weather", "toolCallId": "call_1", "state": state, "input": {"city": "Köln"}, **more}


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get-weather", "arguments": '{"city": "Köln"}'}}
    ],
}


def test_plain_messages_keep_the_fields_of_openai() -> None:
    messages = [
        {"role": "system", "content": "Be brief.", "id": "0", "createdAt": "2026-01-10"},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}], "parts": None},
        {"role": "assistant", "content": "Hi.", "parts": []},
        {"role": "user", "content": ""},
    ]
    assert to_chat_messages(messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": ""},
    ]


def test_openais_own_tool_calls_and_results_are_kept() -> None:
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    messages = [
        USER,
        CALL,
        {"role": "tool", "tool_call_id": "call_1", "content": "cold"},
        legacy,
        {"role": "function", "name": "f", "content": "3"},
    ]
    assert to_chat_messages([{**message, "id": "0", "createdAt": "2026-01-10"} for message in messages]) == messages
    without_content = {key: value for key, value in CALL.items() if key != "content"}
    assert to_chat_messages([USER, without_content]) == [USER, CALL]


def test_messages_of_role_data_are_not_for_the_model() -> None:
    """The SDK drops them as well."""
    data = {"role": "data", "content": "secret", "data": {"a": 1}}
    assert to_chat_messages([data, USER, data]) == [USER]
    with pytest.raises(InvalidRequestError, match="No message has content"):
        to_chat_messages([data])


def test_text_parts_are_joined() -> None:
    message = user(text("Hello, "), {"type": "data-clock", "data": 12}, text("you!"))
    assert to_chat_messages([message]) == [{"role": "user", "content": "Hello, you!"}]


def test_parts_take_precedence_over_the_content_of_version_4() -> None:
    message = user(text("Hello!"), content="Hello!")
    assert to_chat_messages([message]) == [USER]


def test_content_is_used_if_the_parts_have_no_text() -> None:
    spoken = [user({"type": "source-url", "url": "https://a.example"}, content="Hello!"), assistant(content="Hi.")]
    assert to_chat_messages([*spoken, assistant({"type": "step-start"}, content="Well.")]) == [
        USER,
        {"role": "assistant", "content": "Hi."},
        {"role": "assistant", "content": "Well."},
    ]


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


FILES = [
    ({"mediaType": "image/png", "url": PNG}, picture(PNG)),
    ({"mediaType": "image", "url": "https://a.example/b"}, picture("https://a.example/b")),
    ({"url": PNG}, picture(PNG)),
    ({"mimeType": "image/png", "data": "AAAA"}, picture(PNG)),  # version 4
    (
        {"mediaType": "application/pdf", "url": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ),
    (
        {"url": "data:application/pdf;base64,AAAA"},
        {"type": "file", "file": {"filename": "file", "file_data": "data:application/pdf;base64,AAAA"}},
    ),
    (
        {"mediaType": "audio/mpeg", "url": "data:audio/mpeg;base64,AAAA"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
    ),
]


@pytest.mark.parametrize(("part", "expected"), FILES)
def test_files_become_content_parts(part: dict[str, Any], expected: dict[str, Any]) -> None:
    message = user({"type": "file", **part}, text("What is it?"))
    content = [expected, {"type": "text", "text": "What is it?"}]
    assert to_chat_messages([message]) == [{"role": "user", "content": content}]


def test_attachments_of_version_4_become_content_parts() -> None:
    attachments = [{"name": "a.png", "contentType": "image/png", "url": PNG}]
    message = user(text("What is it?"), content="What is it?", experimental_attachments=attachments)
    content = [{"type": "text", "text": "What is it?"}, picture(PNG)]
    assert to_chat_messages([message]) == [{"role": "user", "content": content}]
    assert to_chat_messages([{**USER, "experimental_attachments": attachments}])[0]["content"][1] == picture(PNG)


def test_parts_that_only_the_page_needs_are_dropped() -> None:
    parts = [
        {"type": "step-start"},
        {"type": "reasoning", "text": "Hm."},
        {"type": "source-url", "sourceId": "1", "url": "https://a.example"},
        {"type": "data-clock", "data": 12},
        {"type": "file", "mediaType": "image/png", "url": PNG},
        text("Hi."),
        {"type": "invented-tomorrow"},
    ]
    assert to_chat_messages([USER, assistant(*parts)]) == [USER, {"role": "assistant", "content": "Hi."}]


def test_an_empty_assistant_message_is_dropped() -> None:
    messages = [USER, assistant({"type": "reasoning", "text": "Hm."}), assistant(), USER]
    assert to_chat_messages(messages) == [USER, USER]


RESULTS = [
    (tool("output-available", output={"degrees": 7}), '{"degrees": 7}'),
    (tool("output-available", output="cold"), "cold"),
    (tool("output-available"), "null"),
    (tool("output-error", errorText="No such city."), "No such city."),
    (tool("output-error"), "The tool failed."),
    (tool("output-denied", approval={"id": "1", "approved": False}), "The tool may not be called."),
    ({**tool("output-available", output="cold"), "type": "dynamic-tool", "toolName": "get-weather"}, "cold"),
    (
        {
            "type": "tool-invocation",  # version 4
            "toolInvocation": {
                "state": "result",
                "toolCallId": "call_1",
                "toolName": "get-weather",
                "args": {"city": "Köln"},
                "result": "cold",
            },
        },
        "cold",
    ),
]


@pytest.mark.parametrize(("part", "result"), RESULTS)
def test_a_tool_part_with_output_becomes_a_call_and_its_result(part: dict[str, Any], result: str) -> None:
    answer = {"role": "tool", "tool_call_id": "call_1", "content": result}
    assert to_chat_messages([USER, assistant(part)]) == [USER, CALL, answer]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"input": None, "rawInput": {"city": "Oslo"}}, '{"city": "Oslo"}'),
        ({"input": None, "rawInput": '{"city": '}, '"{\\"city\\": "'),
        ({"input": {"city": "Rome"}, "rawInput": {"city": "Oslo"}}, '{"city": "Rome"}'),
        ({"input": None}, "{}"),
    ],
)
def test_a_call_with_invalid_arguments_keeps_them(arguments: dict[str, Any], expected: str) -> None:
    message = assistant(tool("output-error", errorText="invalid", **arguments))
    _, call, result = to_chat_messages([USER, message])
    assert call["tool_calls"][0]["function"]["arguments"] == expected
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "invalid"}


def invocation(identifier: str, **more: Any) -> dict[str, Any]:
    return {"state": "result", "toolCallId": identifier, "toolName": "f", "args": {"x": 1}, "result": 7, **more}


def test_tool_calls_of_version_4_without_parts_are_kept_step_by_step() -> None:
    calls = [
        invocation("a", step=0),
        invocation("c", step=1, result="warm"),
        invocation("b", step=0),
        invocation("d", step=1, state="call"),
    ]
    message = {"role": "assistant", "content": "It is warm.", "toolInvocations": calls}
    first, *results, second, warm, said = to_chat_messages([message, USER])[:-1]
    assert [call["id"] for call in first["tool_calls"]] == ["a", "b"]
    assert first["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert [(result["tool_call_id"], result["content"]) for result in results] == [("a", "7"), ("b", "7")]
    assert [call["id"] for call in second["tool_calls"]] == ["c"]
    assert warm == {"role": "tool", "tool_call_id": "c", "content": "warm"}
    assert said == {"role": "assistant", "content": "It is warm."}


@pytest.mark.parametrize("content", ["", None])
def test_tool_calls_of_version_4_need_no_text(content: str | None) -> None:
    message = {"role": "assistant", "content": content, "toolInvocations": [invocation("a")]}
    assert [found["role"] for found in to_chat_messages([USER, message])] == ["user", "assistant", "tool"]


def test_each_step_becomes_a_turn() -> None:
    second = {**tool("output-available", output="warm"), "toolCallId": "call_2", "input": None}
    message = assistant(
        {"type": "step-start"},
        text("Let me see."),
        tool("output-available", output="cold"),
        second,
        {"type": "step-start"},
        text("It is cold."),
    )
    call, cold, warm, last = to_chat_messages([message])
    assert call["content"] == "Let me see."
    assert [found["id"] for found in call["tool_calls"]] == ["call_1", "call_2"]
    assert call["tool_calls"][1]["function"]["arguments"] == "{}"
    assert (cold["content"], warm["content"]) == ("cold", "warm")
    assert last == {"role": "assistant", "content": "It is cold."}


@pytest.mark.parametrize("state", ["input-streaming", "input-available", "approval-requested", "approval-responded"])
def test_a_tool_part_without_output_is_dropped(state: str) -> None:
    messages = [USER, assistant(text("Let me see."), tool(state)), USER]
    assert to_chat_messages(messages) == [USER, {"role": "assistant", "content": "Let me see."}, USER]


FAULTS = [
    ([user()], "messages[0]"),
    ([USER, user({"type": "data-clock", "data": 12})], "messages[1]"),
    ([user(text(""))], "messages[0]"),
    ([assistant()], "messages"),
    ([user({"type": "file", "mediaType": "image/png"})], "messages[0].parts[0].url"),
    (
        [user({"type": "file", "mediaType": "application/pdf", "url": "https://a.example/b.pdf"})],
        "messages[0].parts[0].url",
    ),
    ([user(text("Hello!"), experimental_attachments=[3])], "messages[0].experimental_attachments[0]"),
    ([user(text("Hello!"), experimental_attachments=[{}])], "messages[0].experimental_attachments[0].url"),
    ([USER, assistant({"type": "tool-clock", "state": "output-available"})], "messages[1].parts[0].toolCallId"),
    ([USER, assistant({"type": "tool-clock", "toolCallId": 3})], "messages[1].parts[0].toolCallId"),
    ([USER, assistant({"type": "dynamic-tool", "toolCallId": "1"})], "messages[1].parts[0].toolName"),
    (
        [USER, {"role": "assistant", "content": "", "toolInvocations": [{"state": "result"}]}],
        "messages[1].toolInvocations[0].toolCallId",
    ),
    ([USER, {"role": "assistant", "toolInvocations": [3]}], "messages[1].toolInvocations[0].toolCallId"),
    ([USER, assistant({"type": "tool-invocation"})], "messages[1].parts[0].toolInvocation.toolCallId"),
]


@pytest.mark.parametrize(("messages", "param"), FAULTS)
def test_an_invalid_message_is_rejected_with_its_param(messages: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        to_chat_messages(messages)
    assert caught.value.param == param
