"""Requests of the Messages API as chat payloads."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.backends.echo.backend import EchoBackend
from openai_compat.core.errors import ContextLengthExceededError, InvalidRequestError, UnsupportedParameterError
from openai_compat.core.settings import ModelConfig
from openai_compat.routing.failure_policy import classify
from openai_compat.services.messages.request import translate_request

USER = {"role": "user", "content": "Hi"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ADD = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
ADD_CHAT = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}


def text(value: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **fields}


def use(id: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "add", "input": arguments}


def result(id: str, content: Any = "ok", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **fields}


def chat_of(*messages: Any, **fields: Any) -> dict[str, Any]:
    return dict(translate_request({"model": "m", "messages": list(messages), **fields}).chat)


def messages_of(*messages: Any, **fields: Any) -> list[Any]:
    found: list[Any] = chat_of(*messages, **fields)["messages"]
    return found


def test_all_system_texts_become_the_first_message_without_the_billing_block() -> None:
    system = [
        text("x-anthropic-billing-header: cc_version=2.1; cch=12;"),
        text("Be brief.", cache_control={"type": "ephemeral"}),
    ]
    reminder = {"role": "system", "content": [text("Use ToolSearch.")]}
    directive = {"role": "system", "content": [], "output_config": {"effort": "low"}}
    bare = {"role": "system", "output_config": {"effort": "low"}}
    assert messages_of(USER, reminder, directive, bare, {**bare, "content": None}, system=system) == [
        {"role": "system", "content": "Be brief.\n\nUse ToolSearch."}, USER,
    ]  # fmt: skip
    assert messages_of(USER, system="Be brief.")[0] == {"role": "system", "content": "Be brief."}


def test_texts_become_one_text_and_images_parts() -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert messages_of({"role": "user", "content": [text("a"), text("b")]})[0]["content"] == "a\n\nb"
    assert messages_of({"role": "user", "content": [text("a"), PNG, url]})[0]["content"] == [
        text("a"), PNG_PART, {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    ]  # fmt: skip


def test_documents() -> None:
    pdf = {
        "type": "document",
        "title": "a.pdf",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ"},
    }
    plain = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}
    parts = {"type": "document", "source": {"type": "content", "content": [text("one"), PNG]}}
    search = {"type": "search_result", "title": "T", "source": "https://x", "content": [text("found")]}
    content = messages_of({"role": "user", "content": [pdf, plain, parts, search]})[0]["content"]
    assert content == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ"}},
        text("T"), text("words"), text("one"), PNG_PART, text("T\nhttps://x\nfound"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("image", {"type": "file", "file_id": "file_1"}),
        ("document", {"type": "file", "file_id": "file_1"}),
        ("document", {"type": "url", "url": "https://x/y.pdf"}),
        ("document", {"type": "base64", "media_type": "image/png", "data": "QQ"}),
        ("image", {"type": "new"}),
        ("image", None),
    ],
)
def test_sources_that_no_chat_can_read_are_refused(kind: str, source: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        messages_of({"role": "user", "content": [{"type": kind, "source": source}]})
    assert (caught.value.param or "").startswith("messages[0].content[0].source")


def test_messages_of_the_assistant_in_succession_are_one() -> None:
    """As at Anthropic. Some models' templates allow no other order of roles, and results follow all their calls."""
    assistant = [{"role": "assistant", "content": content} for content in ("One.", [text("Two."), use("c1")])]
    hidden = {"role": "assistant", "content": [{"type": "thinking", "thinking": "why", "signature": ""}, use("c2")]}
    notice = {"role": "system", "content": "Be brief."}
    results = {"role": "user", "content": [result("c2"), result("c1")]}
    sent = messages_of(USER, *assistant, notice, hidden, results)
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "tool"]
    assert (sent[2]["content"], sent[2]["reasoning_content"]) == ("One.Two.", "why")
    assert [call["id"] for call in sent[2]["tool_calls"]] == ["c1", "c2"]


def test_the_messages_of_the_user_around_one_that_says_nothing_are_one() -> None:
    """Claude Code sends such a message after an answer that was interrupted while the model thought."""
    silent = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}]}
    assert messages_of(USER, silent, {"role": "user", "content": "Go on."}) == [
        {"role": "user", "content": f"{USER['content']}\n\nGo on."}
    ]


def test_results_follow_their_calls_in_the_order_of_the_calls() -> None:
    calls = {"role": "assistant", "content": [text("Let me."), use("c1", a=1), use("c2")]}
    results = {"role": "user", "content": [text("And?"), result("c2"), result("c1", [text("x"), text("y")])]}
    assert messages_of(USER, calls, results)[1:] == [
        {
            "role": "assistant", "content": "Let me.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "x\ny"},
        {"role": "tool", "tool_call_id": "c2", "content": "ok"},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip


def test_results_in_two_messages_belong_to_one_turn() -> None:
    calls = {"role": "assistant", "content": [use("c1"), use("c2")]}
    turns = [{"role": "user", "content": [result("c2")]}, {"role": "user", "content": [result("c1"), text("go")]}]
    assert [message["role"] for message in messages_of(USER, calls, *turns)] == [
        "user", "assistant", "tool", "tool", "user",
    ]  # fmt: skip


def test_images_of_results_follow_as_a_message_of_the_user() -> None:
    calls = {"role": "assistant", "content": [use("c1"), use("c2")]}
    results = {"role": "user", "content": [result("c1", [PNG]), result("c2"), text("And?")]}
    assert messages_of(USER, calls, results)[2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "The result follows in the next message of the user."},
        {"role": "tool", "tool_call_id": "c2", "content": "ok"},
        {"role": "user", "content": [text("Result of the tool call c1:"), PNG_PART, text("And?")]},
    ]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result("c", "boom", is_error=True), "Error: boom"),
        ({"type": "tool_result", "tool_use_id": "c"}, ""),
        (result("c", [{"type": "tool_reference", "tool_name": "Grep"}]), "The tool Grep is available."),
    ],
)
def test_results_of_every_form(block: Any, content: str) -> None:
    messages = messages_of(USER, {"role": "assistant", "content": [use("c")]}, {"role": "user", "content": [block]})
    assert messages[-1] == {"role": "tool", "tool_call_id": "c", "content": content}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [result("unknown")]}],
        [USER, {"role": "assistant", "content": [use("c1"), use("c2")]}, {"role": "user", "content": [result("c1")]}],
        [USER, {"role": "assistant", "content": [use("c1")]}],
        [USER, {"role": "assistant", "content": [use("c1")]}, {"role": "assistant", "content": "x"}],
    ],
)
def test_calls_and_results_that_do_not_match_are_refused(messages: list[Any]) -> None:
    with pytest.raises(InvalidRequestError, match="tool_"):
        messages_of(*messages)


def test_thinking_goes_back_within_a_loop_of_calls_only() -> None:
    signed = {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    plain = {"type": "thinking", "thinking": "Oh", "signature": ""}
    redacted = {"type": "redacted_thinking", "data": "secret"}
    thoughts = {"role": "assistant", "content": [plain, signed, redacted, text("x"), use("c")]}
    loop = [thoughts, {"role": "user", "content": [result("c"), text("a reminder")]}]
    assistant = messages_of(USER, *loop)[1]
    assert assistant["reasoning_content"] == "Oh"
    assert assistant["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Hm", "signature": "sig"},
        {"type": "reasoning.encrypted", "data": "secret"},
    ]
    earlier = messages_of(USER, *loop, {"role": "assistant", "content": "Done."}, USER)[1]
    assert earlier.keys() == {"role", "content", "tool_calls"}


def test_a_message_with_nothing_for_a_chat_is_left_out_and_told() -> None:
    searched = {
        "role": "assistant",
        "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}],
    }
    upload = {"role": "user", "content": [{"type": "container_upload", "file_id": "f"}, text("Hi")]}
    request = translate_request({"messages": [USER, searched, upload]})
    assert request.chat["messages"] == [{"role": "user", "content": "Hi\n\nHi"}]
    assert request.adaptations == {"messages.server_tool_use": "dropped", "messages.container_upload": "dropped"}


def test_changes_of_tools_between_messages_are_dropped_and_told() -> None:
    tool = {"type": "tool_reference", "name": "add"}
    blocks = [text("Go."), {"type": "tool_addition", "tool": tool}, {"type": "tool_removal", "tool": tool}]
    request = translate_request({"messages": [USER, {"role": "system", "content": blocks}]})
    assert request.chat["messages"] == [{"role": "system", "content": "Go."}, USER]
    assert request.adaptations == {"messages.tool_addition": "dropped", "messages.tool_removal": "dropped"}


def test_a_block_of_a_result_without_a_form_in_chat_is_dropped_and_told() -> None:
    page = {"role": "user", "content": [result("c", [{"type": "browser_state", "url": "https://x"}, text("page")])]}
    request = translate_request({"messages": [USER, {"role": "assistant", "content": [use("c")]}, page]})
    assert request.chat["messages"][-1] == {"role": "tool", "tool_call_id": "c", "content": "page"}
    assert request.adaptations == {"messages.browser_state": "dropped"}


def test_tools_lose_what_chat_does_not_know() -> None:
    tools = [
        {**ADD, "type": "custom", "cache_control": {"type": "ephemeral"}, "eager_input_streaming": True},
        {"name": "DeferredToolPlaceholder", "defer_loading": True, "input_schema": {"type": "object"}},
        {"type": "web_search_20260318", "name": "web_search", "max_uses": 5},
    ]
    request = translate_request({"messages": [USER], "tools": tools})
    assert request.chat["tools"] == [ADD_CHAT]
    assert request.adaptations == {"tools.web_search_20260318": "dropped"}


def test_a_tool_without_a_schema_takes_no_arguments() -> None:
    (tool,) = chat_of(USER, tools=[{"name": "now"}])["tools"]
    assert tool["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "add"}, {"tool_choice": {"type": "function", "function": {"name": "add"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        (None, {}),
    ],
)
def test_tool_choice(choice: Any, expected: dict[str, Any]) -> None:
    chat = chat_of(USER, tools=[ADD], tool_choice=choice)
    assert {name: chat[name] for name in ("tool_choice", "parallel_tool_calls") if name in chat} == expected


def test_a_choice_of_a_dropped_tool_is_dropped() -> None:
    tools = [ADD, {"type": "web_search_20250305", "name": "web_search"}]
    request = translate_request(
        {"messages": [USER], "tools": tools, "tool_choice": {"type": "tool", "name": "web_search"}}
    )
    assert "tool_choice" not in request.chat
    assert request.adaptations["tool_choice"] == "dropped"
    only = translate_request({"messages": [USER], "tools": tools[1:], "tool_choice": {"type": "any"}})
    assert only.chat.keys() == {"model", "messages", "stream"}


def test_parameters() -> None:
    schema = {"type": "object", "properties": {}}
    request = translate_request(
        {
            "messages": [USER], "stream": True, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stop_sequences": ["END"],
            "metadata": {"user_id": '{"device_id":"d","session_id":"s"}'}, "service_tier": "auto",
            "context_management": {"edits": []},
            "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": schema}}, "brand_new": 1,
        }
    )  # fmt: skip
    assert {name: value for name, value in request.chat.items() if name not in ("model", "messages")} == {
        "stream": True, "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": True}},
        "user": sha256(b"d").hexdigest(),
    }  # fmt: skip
    assert request.adaptations == {"top_k": "dropped", "brand_new": "dropped"}


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, "low"),
        ({"type": "enabled", "budget_tokens": 8000}, "medium"),
        ({"type": "enabled", "budget_tokens": 31_999}, "high"),
        ({"type": "adaptive", "display": "updates"}, None),
        ({"type": "disabled"}, None),
    ],
)
def test_thinking_becomes_an_effort(thinking: dict[str, Any], effort: str | None) -> None:
    assert chat_of(USER, thinking=thinking).get("reasoning_effort") == effort


class Small(EchoBackend):
    """A model that supports the older limit only."""

    supported_chat_parameters = frozenset({"max_tokens"})


class NoLimit(EchoBackend):
    supported_chat_parameters = frozenset()


def backend(kind: type[Backend] = EchoBackend, **fields: Any) -> Backend:
    made = object.__new__(kind)
    made.entry = replace(ModelConfig("m", "echo"), **fields)
    return made


@pytest.mark.parametrize(
    ("model", "expected", "adapted"),
    [
        (backend(), {"max_completion_tokens": 32_000}, {}),
        (backend(max_output_tokens=8192), {"max_completion_tokens": 8192}, {"max_tokens": "8192"}),
        (backend(context_window=10_000), {"max_completion_tokens": 8_834}, {"max_tokens": "8834"}),
        (backend(context_window=1100), {"max_completion_tokens": 50}, {"max_tokens": "50"}),
        (backend(context_window=1001), {"max_completion_tokens": 1}, {"max_tokens": "1"}),
        (backend(Small), {"max_tokens": 32_000}, {}),
        (backend(NoLimit), {}, {"max_tokens": "dropped"}),
    ],
)
def test_the_limit_is_lowered_to_what_the_model_takes(
    model: Backend, expected: dict[str, int], adapted: dict[str, str]
) -> None:
    assert isinstance(model, SupportsChat)
    chat, adaptations = translate_request({"messages": [USER], "max_tokens": 32_000}).for_backend(model, "m", 1000)
    assert {name: value for name, value in chat.items() if "tokens" in name} == expected
    assert adaptations == adapted


def test_a_prompt_without_room_for_an_answer_is_too_long() -> None:
    """An answer of one token would make Claude Code ask for the rest again and again."""
    request = translate_request({"messages": [USER], "max_tokens": 32_000})
    with pytest.raises(ContextLengthExceededError, match="prompt is too long: 1001 tokens > 1000 maximum") as error:
        request.for_backend(backend(context_window=1000), "m", 1000)
    action = classify(error.value)
    assert (action.needs_larger_context, action.try_next, action.is_fault) == (True, True, False)


def test_an_answer_that_has_begun_is_continued_as_the_entry_says() -> None:
    begun = {"role": "assistant", "content": "{"}
    request = translate_request({"messages": [USER, begun]})
    with pytest.raises(UnsupportedParameterError, match="cannot continue"):
        request.for_backend(backend(), "m", 1)
    chat, _ = request.for_backend(backend(assistant_prefill="message"), "m", 1)
    assert chat["messages"] == [USER, begun]
    chat, _ = request.for_backend(backend(assistant_prefill="prefix"), "m", 1)
    assert chat["messages"] == [USER, {**begun, "prefix": True}]
    chat, _ = request.for_backend(backend(assistant_prefill="continue_final_message"), "m", 1)
    assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)
    assert request.chat["messages"] == [USER, begun]


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": 5}, USER]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [USER], "tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"messages": [USER], "tools": [ADD], "tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"messages": [USER], "output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_malformed_requests_name_the_field(payload: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        translate_request(payload)
    assert caught.value.param == param
    assert json.dumps(caught.value.to_envelope())


@pytest.mark.parametrize(
    ("model", "sent", "limit"),
    [
        (backend(), 30, 70),
        (backend(), 100, 1),
        (backend(max_output_tokens=50), 30, 50),
        (backend(max_output_tokens=50), 80, 20),
        (backend(context_window=1100), 0, 50),
        (backend(context_window=1100), 30, 35),
    ],
)
def test_what_the_client_has_of_the_answer_lowers_its_limit(model: Backend, sent: int, limit: int) -> None:
    """It belongs to the prompt, too."""
    request = translate_request({"messages": [USER], "max_tokens": 100})
    chat, _ = request.for_backend(model, "m", 1000, sent)
    assert chat["max_completion_tokens"] == limit
