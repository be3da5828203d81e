"""Questions about chat completions that are not streamed."""

from __future__ import annotations

from .client import STORY, CheckSkipped, ConformanceClient, error_of, expect, to_object
from .registry import Section

CHAT = Section("chat")
FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}
OPTIONAL = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "reasoning_effort", "response_format", "seed", "service_tier", "stop", "store", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
)  # fmt: skip


@CHAT.question("it is a `chat.completion` with id, created, model and choices", why="typed clients look for each")
def completion_object(interview: ConformanceClient) -> None:
    chat = interview.chat
    expect(chat["object"] == "chat.completion", f"object {chat['object']!r}")
    expect(isinstance(chat["id"], str) and chat["id"], f"id {chat['id']!r}")
    expect(isinstance(chat["created"], int), f"created {chat['created']!r}")
    expect(isinstance(chat["model"], str) and chat["model"], f"model {chat['model']!r}")
    expect(chat["choices"], "no choices")


@CHAT.question("the message is the assistant's, with its content", why="it is appended to the conversation as it is")
def message(interview: ConformanceClient) -> None:
    message = interview.chat["choices"][0]["message"]
    expect(message["role"] == "assistant", f"role {message['role']!r}")
    expect(isinstance(message["content"], str), f"content {message['content']!r}")


@CHAT.question("nulls are sent: `refusal` and `logprobs`", why="schema checks and compiled clients miss absent keys")
def nulls(interview: ConformanceClient) -> None:
    choice = interview.chat["choices"][0]
    expect("refusal" in choice["message"], "the message has no refusal")
    expect("logprobs" in choice, "the choice has no logprobs")


@CHAT.question("each choice has a `finish_reason` that OpenAI knows", why="agents decide by it what comes next")
def finish_reason(interview: ConformanceClient) -> None:
    reason = interview.chat["choices"][0]["finish_reason"]
    expect(reason in FINISH_REASONS, f"finish_reason {reason!r}")


@CHAT.question("usage is there and adds up", why="bills and budgets are made of it")
def usage(interview: ConformanceClient) -> None:
    usage = interview.chat["usage"]
    counts = [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]]
    expect(all(isinstance(count, int) and count > 0 for count in counts), f"usage {usage}")
    expect(counts[0] + counts[1] == counts[2], f"usage {usage}")


@CHAT.question("every optional parameter may be null", why="clients of typed languages send all of them")
def optional_nulls(interview: ConformanceClient) -> None:
    to_object(interview.ask_chat(**dict.fromkeys(OPTIONAL)))


@CHAT.question("the usual parameters are taken together", why="each has been refused by some server")
def usual_parameters(interview: ConformanceClient) -> None:
    parameters = {"temperature": 1, "top_p": 1, "n": 1, "stop": ["\n\n\n"], "seed": 7, "user": "somebody"}
    to_object(interview.ask_chat(**parameters, presence_penalty=0, frequency_penalty=0, logit_bias={}))


@CHAT.question("`stop` may be one string", why="OpenAI's own examples have it so")
def stop_as_text(interview: ConformanceClient) -> None:
    to_object(interview.ask_chat(stop="###"))


@CHAT.question("an unknown parameter does no harm", why="tomorrow's parameter comes with today's server")
def unknown_parameter(interview: ConformanceClient) -> None:
    to_object(interview.ask_chat(parameter_of_tomorrow={"a": 1}))


@CHAT.question("content may be a list of parts", why="most clients send it so as soon as there is an image")
def content_parts(interview: ConformanceClient) -> None:
    to_object(interview.ask_chat([{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]))


@CHAT.question("the roles system, developer, assistant and tool are taken", why="a conversation of an agent has all")
def roles(interview: ConformanceClient) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be polite."},
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."},
    ]
    to_object(interview.post("chat/completions", {"model": interview.subject.model, "messages": messages}))


@CHAT.question("`max_tokens` cuts, and `finish_reason` says so", why="a cut answer must not look like a whole one")
def max_tokens(interview: ConformanceClient) -> None:
    choice = to_object(interview.ask_chat(STORY, max_tokens=2))["choices"][0]
    expect(choice["finish_reason"] == "length", f"finish_reason {choice['finish_reason']!r}")


@CHAT.question("`max_completion_tokens` cuts too", why="newer clients send no other")
def max_completion_tokens(interview: ConformanceClient) -> None:
    choice = to_object(interview.ask_chat(STORY, max_completion_tokens=2))["choices"][0]
    expect(choice["finish_reason"] == "length", f"finish_reason {choice['finish_reason']!r}")


@CHAT.question("`n` answers are numbered from 0", why="a server that gives one for two is found out by an IndexError")
def several_choices(interview: ConformanceClient) -> None:
    answer = interview.ask_chat(n=2)
    if answer.status in {400, 501}:
        error_of(answer, 400, 501)
        raise CheckSkipped("the model gives one answer at a time, and says so")
    indexes = [choice["index"] for choice in to_object(answer)["choices"]]
    expect(indexes == [0, 1], f"indexes {indexes}")


@CHAT.question("`stream_options` without `stream` is a 400", why="it is OpenAI's way to tell a forgotten `stream`")
def stream_options_alone(interview: ConformanceClient) -> None:
    error_of(interview.ask_chat(stream_options={"include_usage": True}), 400)
