"""Input items as chat messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_compat.core.errors import InvalidRequestError
from openai_compat.services.responses.items import MessageBuilder, to_input_items
from openai_compat.services.responses.sealing import Reasoning


def build(*items: Any, instructions: str | None = None) -> list[dict[str, Any]]:
    builder = MessageBuilder(lambda item: Reasoning(str(item.get("encrypted_content") or "")))
    builder.add_all(items)
    return builder.build(instructions)


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
USER = {"role": "user", "content": "Hi"}


def test_a_text_is_a_message_of_the_user() -> None:
    assert build(*to_input_items("Hello")) == [{"role": "user", "content": "Hello"}]


def test_instructions_and_the_first_developer_messages_become_one_system_message() -> None:
    parts = [{"type": "input_text", "text": "B"}, {"type": "input_text", "text": "C"}]
    messages = build(
        {"type": "message", "role": "developer", "content": parts},
        {"role": "system", "content": "D"},
        USER,
        {"role": "developer", "content": "later"},
        instructions="A",
    )
    assert messages[0] == {"role": "system", "content": "A\n\nB\n\nC\n\nD"}
    assert [message["role"] for message in messages] == ["system", "user", "system"]


def test_parts_have_the_form_of_chat() -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "original"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf", "file_id": None},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]
    assert build({"role": "user", "content": content})[0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "high"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]


def test_calls_join_the_assistants_message_before_them() -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add."}]}
    second = {**CALL, "call_id": "call_2"}
    messages = build(USER, message, CALL, second, OUTPUT, {**OUTPUT, "call_id": "call_2"})
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[1]["content"] == "I add."
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["call_1", "call_2"]
    assert messages[2] == {"role": "tool", "tool_call_id": "call_1", "content": "3"}


def test_a_call_without_arguments_has_an_empty_object() -> None:
    """Upstreams refuse arguments that are no JSON."""
    assert build(USER, {**CALL, "arguments": ""}, OUTPUT)[1]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_custom_call_and_a_namespace_have_the_names_of_the_tools() -> None:
    custom = {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": "x"}
    named = {**CALL, "call_id": "call_2", "namespace": "crm"}
    outputs = [
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "ok"},
        {**OUTPUT, "call_id": "call_2"},
    ]
    calls = build(USER, custom, named, *outputs)[1]["tool_calls"]
    assert calls[0]["function"] == {"name": "patch", "arguments": '{"input": "x"}'}
    assert calls[1]["function"]["name"] == "crm__add"


def test_reasoning_precedes_the_calls_that_it_led_to() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "thought"}
    messages = build(USER, thought, CALL, OUTPUT, {**thought, "encrypted_content": None})
    assert messages[1]["reasoning_content"] == "thought"
    assert "reasoning_content" not in messages[2]


def test_images_of_a_tool_follow_all_outputs() -> None:
    picture = [{"type": "input_text", "text": "done"}, {"type": "input_image", "image_url": "data:,"}]
    messages = build(
        USER, CALL, {**CALL, "call_id": "call_2"}, {**OUTPUT, "output": picture}, {**OUTPUT, "call_id": "call_2"}
    )
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[2]["content"] == "done"
    assert messages[4]["content"][1] == {"type": "image_url", "image_url": {"url": "data:,"}}


def test_a_refusal_of_the_assistant_stays_one() -> None:
    message = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert build(USER, message)[1] == {"role": "assistant", "content": None, "refusal": "No."}


def test_items_of_other_tools_are_kept_as_calls_or_told() -> None:
    builder = MessageBuilder(lambda _: "")
    shell = {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}, "status": "completed"}
    shown = {"type": "local_shell_call_output", "call_id": "c", "output": "a.txt"}
    builder.add_all([USER, shell, shown, {"type": "web_search_call", "id": "ws_1"}, {"type": "compaction_trigger"}])
    messages = builder.build(None)
    assert messages[1]["tool_calls"][0]["function"]["name"] == "local_shell"
    assert messages[2]["content"] == "a.txt"
    assert builder.adaptations == {"input.web_search_call": "dropped"}


SHELL = {"type": "shell_call", "call_id": "call_1", "action": {"commands": ["ls"]}}
SHELL_OUTPUT = {"type": "shell_call_output", "call_id": "call_1"}
RESULT = {"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ({**SHELL_OUTPUT, "output": [RESULT]}, json.dumps([RESULT])),
        ({**SHELL_OUTPUT, "output": [{"type": "input_text", "text": "a.txt"}]}, "a.txt"),
        ({"type": "local_shell_call_output", "id": "call_1", "output": "a.txt"}, "a.txt"),
        ({"type": "tool_search_output", "call_id": "call_1", "status": "completed", "tools": []}, '{"tools": []}'),
    ],
)
def test_outputs_of_other_tools_are_kept(output: dict[str, Any], content: str) -> None:
    assert build(USER, SHELL, output)[2] == {"role": "tool", "tool_call_id": "call_1", "content": content}


def test_outputs_of_other_tools_without_a_call_are_left_out() -> None:
    builder = MessageBuilder(lambda _: Reasoning())
    program = {"type": "program", "id": "prog_1", "call_id": "call_1", "code": "x"}
    builder.add_all([USER, program, {"type": "program_output", "call_id": "call_1", "result": "y"}])
    assert builder.build(None) == [USER]
    assert builder.adaptations == {"input.program": "dropped", "input.program_output": "dropped"}


@pytest.mark.parametrize(
    ("items", "param", "code"),
    [
        ([{"role": "robot", "content": "x"}], "input[0].role", "invalid_value"),
        ([{"role": "user"}], "input[0].content", "invalid_type"),
        ([{"role": "user", "content": [{"type": "telepathy"}]}], "input[0].content[0].type", "invalid_value"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], "input[0].content[0].file_id",
         "unsupported_parameter"),
        ([{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}],
         "input[0].content[0].file_url", "unsupported_parameter"),
        ([USER, {"type": "function_call", "name": "x", "arguments": "{}"}], "input[1].call_id",
         "missing_required_parameter"),
        ([USER, {**CALL, "arguments": {}}], "input[1].arguments", "invalid_type"),
        (["text"], "input[0]", "invalid_type"),
        ([USER, CALL], "input", None),
        ([USER, OUTPUT], "input", None),
    ],
)  # fmt: skip
def test_a_malformed_item_is_named(items: list[Any], param: str, code: str | None) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        build(*items)
    assert (raised.value.param, raised.value.code) == (param, code)


def reasoning(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "encrypted_content": text}


SECOND_CALL = {**CALL, "call_id": "call_2"}
SECOND_OUTPUT = {**OUTPUT, "call_id": "call_2"}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("items", "roles", "content", "thought"),
    [
        ([CALL, said("Wait."), OUTPUT], "assistant tool", "Wait.", None),
        ([said("One."), CALL, said(" Two."), SECOND_CALL, OUTPUT, SECOND_OUTPUT], "assistant tool tool", "One. Two.",
         None),
        ([reasoning("A"), CALL, reasoning("B"), SECOND_CALL, OUTPUT, SECOND_OUTPUT], "assistant tool tool", None, "AB"),
        ([CALL, USER, OUTPUT, said("Done.")], "assistant tool user assistant", None, None),
        ([CALL, {**USER, "role": "developer"}, OUTPUT, USER], "assistant tool system user", None, None),
        ([CALL, SECOND_CALL, OUTPUT, said("Half."), SECOND_OUTPUT], "assistant tool tool assistant", None, None),
        ([CALL, USER, SECOND_CALL, SECOND_OUTPUT, OUTPUT], "assistant tool user assistant tool", None, None),
        ([CALL, SECOND_CALL, OUTPUT, {**CALL, "call_id": "call_3"}, SECOND_OUTPUT, {**OUTPUT, "call_id": "call_3"}],
         "assistant tool tool assistant tool", None, None),
    ],
)  # fmt: skip
def test_outputs_directly_follow_their_calls(
    items: list[Any], roles: str, content: str | None, thought: str | None
) -> None:
    """OpenAI, DeepSeek and Mistral refuse a history with other messages between them."""
    messages = build(USER, *items)
    assert [message["role"] for message in messages[1:]] == roles.split()
    assert (messages[1]["content"], messages[1].get("reasoning_content")) == (content, thought)
    assert outputs_follow_their_calls(messages)


def outputs_follow_their_calls(messages: list[dict[str, Any]]) -> bool:
    """Return True if the messages are in the order that OpenAI requires."""
    expected: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in expected:
                return False
            expected.remove(message["tool_call_id"])
        elif expected:
            return False
        else:
            expected = [call["id"] for call in message.get("tool_calls", ())]
    return not expected


def test_signed_reasoning_stays_before_the_call_that_it_led_to() -> None:
    builder = MessageBuilder(lambda item: Reasoning("", [{"signature": item["encrypted_content"]}]))
    builder.add_all([USER, reasoning("A"), CALL, reasoning("B"), SECOND_CALL, OUTPUT, SECOND_OUTPUT])
    messages = builder.build(None)
    assert [message["role"] for message in messages] == ["user", "assistant", "assistant", "tool", "tool"]
    assert [message["reasoning_details"] for message in messages[1:3]] == [[{"signature": "A"}], [{"signature": "B"}]]
