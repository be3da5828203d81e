"""Checks of chat completions that are not streamed."""

from __future__ import annotations

from .client import STORY, CheckSkipped, ConformanceClient, expect, require_error, require_object
from .registry import Section

CHAT = Section("chat")
FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}
OPTIONAL_PARAMETERS = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "reasoning_effort", "response_format", "seed", "service_tier", "stop", "store", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
)  # fmt: skip


@CHAT.check(
    "the response is a `chat.completion` with id, created, model and choices",
    why="typed clients read each of them",
)
def completion_object(client: ConformanceClient) -> None:
    chat = client.chat
    expect(chat["object"] == "chat.completion", f"object {chat['object']!r}")
    expect(isinstance(chat["id"], str) and chat["id"], f"id {chat['id']!r}")
    expect(isinstance(chat["created"], int), f"created {chat['created']!r}")
    expect(isinstance(chat["model"], str) and chat["model"], f"model {chat['model']!r}")
    expect(chat["choices"], "no choices")


@CHAT.check(
    "the message has the role assistant and a content",
    why="clients append it to the conversation unchanged",
)
def message(client: ConformanceClient) -> None:
    message = client.chat["choices"][0]["message"]
    expect(message["role"] == "assistant", f"role {message['role']!r}")
    expect(isinstance(message["content"], str), f"content {message['content']!r}")


@CHAT.check(
    "`refusal` and `logprobs` are present, even if null",
    why="schema validators and compiled clients fail on absent keys",
)
def nulls(client: ConformanceClient) -> None:
    choice = client.chat["choices"][0]
    expect("refusal" in choice["message"], "the message has no refusal")
    expect("logprobs" in choice, "the choice has no logprobs")


@CHAT.check(
    "each choice has a `finish_reason` that OpenAI defines",
    why="agents choose their next step by it",
)
def finish_reason(client: ConformanceClient) -> None:
    reason = client.chat["choices"][0]["finish_reason"]
    expect(reason in FINISH_REASONS, f"finish_reason {reason!r}")


@CHAT.check(
    "usage is present and adds up",
    why="bills and budgets are computed from it",
)
def usage(client: ConformanceClient) -> None:
    usage = client.chat["usage"]
    counts = [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]]
    expect(all(isinstance(count, int) and count > 0 for count in counts), f"usage {usage}")
    expect(counts[0] + counts[1] == counts[2], f"usage {usage}")


@CHAT.check(
    "every optional parameter may be null",
    why="clients in typed languages send all of them",
)
def optional_nulls(client: ConformanceClient) -> None:
    require_object(client.post_chat(**dict.fromkeys(OPTIONAL_PARAMETERS)))


@CHAT.check(
    "the common parameters are accepted together",
    why="each has been rejected by some server",
)
def common_parameters(client: ConformanceClient) -> None:
    parameters = {"temperature": 1, "top_p": 1, "n": 1, "stop": ["\n\n\n"], "seed": 7, "user": "user-1"}
    require_object(client.post_chat(**parameters, presence_penalty=0, frequency_penalty=0, logit_bias={}))


@CHAT.check(
    "`stop` may be a string",
    why="OpenAI's own examples use it",
)
def stop_as_text(client: ConformanceClient) -> None:
    require_object(client.post_chat(stop="###"))


@CHAT.check(
    "an unknown parameter is accepted",
    why="clients may be newer than the server",
)
def unknown_parameter(client: ConformanceClient) -> None:
    require_object(client.post_chat(unknown_parameter={"a": 1}))


@CHAT.check(
    "content may be a list of parts",
    why="most clients send one as soon as a message has an image",
)
def content_parts(client: ConformanceClient) -> None:
    require_object(client.post_chat([{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]))


@CHAT.check(
    "the roles system, developer, assistant and tool are accepted",
    why="the conversation of an agent has all of them",
)
def roles(client: ConformanceClient) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be polite."},
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."},
    ]
    require_object(client.post("chat/completions", {"model": client.target.model, "messages": messages}))


@CHAT.check(
    "`max_tokens` truncates with the `finish_reason` length",
    why="a truncated answer must not look complete",
)
def max_tokens(client: ConformanceClient) -> None:
    choice = require_object(client.post_chat(STORY, max_tokens=2))["choices"][0]
    expect(choice["finish_reason"] == "length", f"finish_reason {choice['finish_reason']!r}")


@CHAT.check(
    "`max_completion_tokens` truncates as well",
    why="newer clients send only this one",
)
def max_completion_tokens(client: ConformanceClient) -> None:
    choice = require_object(client.post_chat(STORY, max_completion_tokens=2))["choices"][0]
    expect(choice["finish_reason"] == "length", f"finish_reason {choice['finish_reason']!r}")


@CHAT.check(
    "`n` choices are numbered from 0",
    why="clients raise IndexError if a choice is missing",
)
def several_choices(client: ConformanceClient) -> None:
    response = client.post_chat(n=2)
    if response.status in {400, 501}:
        require_error(response, 400, 501)
        raise CheckSkipped("the model supports one choice only")
    indexes = [choice["index"] for choice in require_object(response)["choices"]]
    expect(indexes == [0, 1], f"indexes {indexes}")


@CHAT.check(
    "`stream_options` without `stream` returns 400",
    why="OpenAI reports a forgotten `stream` this way",
)
def stream_options_alone(client: ConformanceClient) -> None:
    require_error(client.post_chat(stream_options={"include_usage": True}), 400)
