"""Parser for OpenAI chat completions and chat completion chunks.

It also accepts the deviations of OpenAI-compatible servers: content as a list of parts, `reasoning` or
`reasoning_content`, tool calls without an index, Azure's first chunk without choices, and other finish reasons.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast, get_args

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.errors import (
    OpenAICompatError,
    UpstreamInvalidResponseError,
    UpstreamTimeoutError,
    UpstreamTruncatedError,
)
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta, FinishReason, JSONObject, TokenLogprob, Usage, to_token_count

from .answer_format import CARRIES_CONTENT, describe_non_json
from .json_check import parse_repaired
from .openai_errors import ToError, find_status, is_error_answer, to_error_chunk, to_status_error
from .sse import ERROR_EVENT, SSEEvent, iterate_events, primed
from .surrogates import HalfJoiner
from .tool_calls import ToolCallParser, non_empty_text

log = logging.getLogger(__name__)

DONE_GRACE: Final = 1.0
"""Seconds to wait for `[DONE]` once the answer is complete. Some servers never send it and keep the connection open."""
END_OF_STREAM: Final = "[DONE]"
STOP_KEYS: Final = ("stop_reason", "matched_stop")
"""Keys of a choice with the stop sequence that ended it, in vLLM and SGLang. Others have a word of their own there."""
_PLAIN_KEYS: Final = frozenset({"role", "content"})

# The finish reasons of Anthropic, Cohere, Gemini, Bedrock, Mistral, vLLM, the AI SDK and llama.cpp, in lower case.
# Unknown reasons are read as "stop".
_LENGTH_WORDS = (
    "max_tokens", "max_length", "max_output_tokens", "model_length", "model_context_window_exceeded", "limit",
    "incomplete",
)  # fmt: skip
_TOOL_WORDS = ("tool_use", "tool_call", "tool-calls")
_FILTER_WORDS = (
    "safety", "recitation", "blocklist", "prohibited_content", "spii", "refusal", "error_toxic", "content_filtered",
    "content-filter", "guardrail_intervened",
)  # fmt: skip
_FAILURE_WORDS = frozenset(
    {"error", "failed", "abort", "aborted", "cancelled", "canceled", "error_limit", "malformed_function_call"}
)
_FINISH_REASONS: Mapping[str, FinishReason] = {
    **{reason: cast(FinishReason, reason) for reason in get_args(FinishReason)},
    **dict.fromkeys(_LENGTH_WORDS, "length"),
    **dict.fromkeys(_TOOL_WORDS, "tool_calls"),
    **dict.fromkeys(_FILTER_WORDS, "content_filter"),
}


def read_chat_completion(body: bytes, to_error: ToError = to_status_error) -> list[ChatDelta]:
    """Parse a chat completion into deltas. The last delta of each choice has its finish reason.

    Raises:
        UpstreamInvalidResponseError: The body is not a chat completion.
        UpstreamError: The body is an error object. `to_error` builds the exception.
    """
    completion = parse_object(body)
    if is_error_answer(completion):
        raise _to_error(completion, to_error)
    if not isinstance(completion.get("choices"), list) or not completion["choices"]:
        raise UpstreamInvalidResponseError("The upstream's response is not a chat completion: it has no choices.")
    return list(read_completion(completion))


def read_completion(completion: JSONObject) -> Iterator[ChatDelta]:
    """Yield the deltas of a complete answer, in which each tool call is one entry.

    Raises:
        UpstreamInvalidResponseError: A choice or its message is not an object, or its index is no number.
    """
    parser = ChatParser()
    choices = [_with_numbered_calls(choice) for choice in completion.get("choices") or ()]
    yield from parser.read({**completion, "choices": choices})
    yield from parser.read_end()


def _with_numbered_calls(choice: Any) -> Any:
    """Return the choice with the position of each tool call as its index. Some servers give all calls the same id."""
    message = as_dict(choice).get("message")
    calls = as_dict(message).get("tool_calls")
    if not isinstance(calls, list) or len(calls) < 2:
        return choice
    numbered = [{**call, "index": number} if isinstance(call, dict) else call for number, call in enumerate(calls)]
    return {**choice, "message": {**as_dict(message), "tool_calls": numbered}}


@primed
def read_chat_stream(
    response: UpstreamResponse, to_error: ToError = to_status_error
) -> Generator[ChatDelta | Heartbeat, None, None]:
    """Yield the deltas of a streamed response up to `[DONE]` or its end. Close the response on every path.

    Errors of reading the response are raised unchanged.

    Raises:
        UpstreamTruncatedError: The stream ended without `[DONE]` and without a finish reason for each choice, or in
            the middle of an event.
        UpstreamInvalidResponseError: An event is JSON but not a chat completion chunk, a broken event may have carried
            content or stands in place of the end, or the stream has no content at all. Other broken events are skipped.
        UpstreamError: The stream contains an error. `to_error` builds the exception.
    """
    parser = ChatParser()
    reader = _EventReader(parser, to_error)
    try:
        yield HEARTBEAT
        for event in iterate_events(_blocks_until_complete(response, parser)):
            if event is HEARTBEAT:
                yield event
                continue
            yield from reader.read(event)
            del event  # it may be large, and the next one may come much later
            if reader.is_done:
                response.release()
                return
            if parser.is_complete:
                response.limit_remaining(DONE_GRACE)
        yield from reader.read_end()
    except (UpstreamTimeoutError, UpstreamTruncatedError):
        yield from parser.read_finish_reasons()
        raise
    finally:
        response.close()


def _blocks_until_complete(response: UpstreamResponse, parser: ChatParser) -> Iterator[bytes | Heartbeat]:
    """Yield the response's blocks. Ignore a missing end once the answer is complete, as some servers never send it."""
    try:
        yield from response.blocks()
    except (UpstreamTimeoutError, UpstreamTruncatedError):
        if not parser.is_complete:
            raise


def _to_error(value: JSONObject, to_error: ToError) -> OpenAICompatError:
    """Return the exception for an error object, with the status that its code or type stands for."""
    return to_error(find_status(value), json.dumps(value).encode())


def _parse_chunk(text: str) -> JSONObject | None:
    """Return the event's JSON object, or None if it is none."""
    try:
        value = parse_repaired(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_object(text: bytes) -> JSONObject:
    """Parse a JSON object, in which `NaN` and `Infinity` count as `LOWEST_LOGPROB`.

    Raises:
        UpstreamInvalidResponseError: The text is not JSON, or not an object.
    """
    try:
        value = parse_repaired(text)
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalidResponseError(describe_non_json(text)) from error
    if not isinstance(value, dict):
        raise UpstreamInvalidResponseError("The upstream's response is not a JSON object.")
    return value


class _EventReader:
    """Reader of the events of a stream."""

    def __init__(self, parser: ChatParser, to_error: ToError) -> None:
        self._parser = parser
        self._to_error = to_error
        self._has_broken = False
        self.is_done = False

    def read(self, event: str | SSEEvent) -> Iterator[ChatDelta]:
        """Return the deltas of an event, of which most are a single chunk. Raise the errors of `read_unusual`."""
        chunk = _parse_chunk(event) if isinstance(event, str) else None
        if chunk is None:
            return self.read_unusual(event)
        if is_error_answer(chunk):
            raise _to_error(chunk, self._to_error)
        return self._parser.read(chunk)

    def read_unusual(self, event: str | SSEEvent) -> Iterator[ChatDelta]:
        """Yield the deltas of an end mark, a named event, several events without an empty line between, or an error.

        Raises:
            UpstreamTruncatedError, UpstreamInvalidResponseError: The event is broken and may have carried content.
            UpstreamError: The event is an error.
        """
        name, data, strays, is_cut = event if isinstance(event, SSEEvent) else ("", event, "", False)
        if name == ERROR_EVENT:
            raise _to_error(to_error_chunk(data), self._to_error)
        if strays:
            self._read_strays(strays, is_cut=is_cut)
        if data == END_OF_STREAM:
            self.is_done = True
            yield from self.read_end()
        elif (chunk := _parse_chunk(data)) is not None:
            if is_error_answer(chunk):
                raise _to_error(chunk, self._to_error)
            yield from self._parser.read(chunk)
        elif "\n" in data:
            for line in data.split("\n"):
                if not self.is_done:
                    yield from self.read_unusual(SSEEvent(data=line, is_cut=is_cut))
        elif data.strip():
            self._skip(data, is_cut=is_cut)

    def read_end(self) -> Iterator[ChatDelta]:
        """Yield what the end of the stream completes.

        Raises:
            UpstreamTruncatedError, UpstreamInvalidResponseError: The answer is not complete.
        """
        if self._has_broken and not self._parser.is_finished:
            raise UpstreamInvalidResponseError("The upstream's stream has a broken event in place of its end.")
        if not self.is_done and not self._parser.is_finished:
            raise UpstreamTruncatedError("The upstream's stream ended before the answer was complete.")
        if not self._parser.has_content:
            raise UpstreamInvalidResponseError("The upstream's stream has no content.")
        yield from self._parser.read_end()

    def _read_strays(self, text: str, *, is_cut: bool) -> None:
        """Raise the error that some servers send as a body of its own. Skip other text that is no event."""
        chunk = _parse_chunk(text)
        if chunk is not None and is_error_answer(chunk):
            raise _to_error(chunk, self._to_error)
        self._skip(text, is_cut=is_cut)

    def _skip(self, text: str, *, is_cut: bool) -> None:
        """Skip a broken event, unless the answer would be altered without it."""
        if is_cut and not self._parser.is_finished:
            raise UpstreamTruncatedError("The upstream's stream broke off in the middle of an event.")
        self._has_broken = True
        if CARRIES_CONTENT.search(text.encode("utf-8", "surrogatepass")) is not None:
            raise UpstreamInvalidResponseError("The upstream sent a broken event that carried content.")
        log.warning("skipped a broken event of the upstream: %.100r", text)


class ChatParser:
    """Parser for the JSON objects of one answer, in their order. It keeps the state of each choice's tool calls."""

    __slots__ = ("_choices", "_has_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._has_usage = False

    def read(self, chunk: JSONObject) -> Iterator[ChatDelta]:
        """Yield the deltas of a chunk or a completion. A chunk without content, such as the first one, has none.

        Raises:
            UpstreamInvalidResponseError: A choice or its message is not an object, or its index is no number.
        """
        usage = read_usage(chunk.get("usage"))
        self._has_usage = self._has_usage or usage is not None
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise UpstreamInvalidResponseError("The upstream's response has a choice that is not an object.")
            index = choice.get("index") or 0
            if not isinstance(index, int):
                raise UpstreamInvalidResponseError("The upstream sent a choice whose index is no number.")
            if index not in self._choices:
                self._choices[index] = _Choice(index)
            if (delta := self._choices[index].read(choice, usage)) is not None:
                usage = None
                yield delta
        if usage is not None:
            yield ChatDelta(usage=usage)

    def read_end(self) -> Iterator[ChatDelta]:
        """Yield the end of each choice. One without a finish reason gets `stop`, because the answer ended properly."""
        for choice in (self._choices or {0: _Choice(0)}).values():
            yield choice.read_end()

    def read_finish_reasons(self) -> Iterator[ChatDelta]:
        """Yield the end of each choice that has a finish reason, because the answer broke off."""
        for choice in self._choices.values():
            if choice.is_finished:
                yield choice.read_end()

    @property
    def has_content(self) -> bool:
        """True if a choice has content or a finish reason."""
        return any(choice.has_content or choice.is_finished for choice in self._choices.values())

    @property
    def is_finished(self) -> bool:
        """True if there is a choice and each choice has its finish reason."""
        return bool(self._choices) and all(choice.is_finished for choice in self._choices.values())

    @property
    def is_complete(self) -> bool:
        """True if the answer is finished and its usage is known, so that only `[DONE]` is missing."""
        return self._has_usage and self.is_finished


class _Choice:
    """The state of one choice.

    Its finish reason is held back until the end of the answer, because some servers send content after it.
    """

    __slots__ = ("_halves", "_reason", "_stop_sequence", "_tool_calls", "has_content", "index", "is_finished")

    def __init__(self, index: int) -> None:
        self.index = index
        self.is_finished = self.has_content = False
        self._reason: FinishReason = "stop"
        self._stop_sequence: str | None = None
        self._tool_calls = ToolCallParser()
        self._halves = HalfJoiner()

    def read(self, choice: JSONObject, usage: Usage | None) -> ChatDelta | None:
        """Return the choice's delta, or None if it has no content.

        Raises:
            UpstreamInvalidResponseError: The message is not an object.
            UpstreamTruncatedError: The finish reason is a failure.
        """
        message = choice.get("delta") or choice.get("message") or {}
        if not isinstance(message, dict):
            raise UpstreamInvalidResponseError("The upstream's response has a message that is not an object.")
        content = message.get("content")
        if (
            isinstance(content, str)
            and content
            and message.keys() <= _PLAIN_KEYS
            and not choice.get("finish_reason")
            and not choice.get("logprobs")
        ):
            self.has_content = True
            content = self._halves.join("content", content)
            return ChatDelta(content, self.index, usage=usage) if content or usage is not None else None
        return self._read_all(choice, message, usage)

    def _read_all(self, choice: JSONObject, message: JSONObject, usage: Usage | None) -> ChatDelta | None:
        text, reasoning = read_content(message.get("content", choice.get("text")))
        reasoning = (
            non_empty_text(message.get("reasoning_content")) or non_empty_text(message.get("reasoning")) or reasoning
        )
        if choice.get("finish_reason"):
            reason = normalise_finish_reason(choice["finish_reason"])
            if not self.is_finished or self._reason == "stop":
                self._reason = reason  # some servers send `stop` with every chunk
            self._stop_sequence = next((choice[key] for key in STOP_KEYS if non_empty_text(choice.get(key))), None)
            self.is_finished = True
        delta = ChatDelta(
            self._halves.join("content", text) or None,
            self.index,
            None,
            self._tool_calls.read(message),
            self._halves.join("refusal", non_empty_text(message.get("refusal")) or "") or None,
            self._halves.join("reasoning", reasoning) or None,
            _read_logprobs(choice.get("logprobs")),
            None,
            _objects(message.get("annotations")),
            message["audio"] if isinstance(message.get("audio"), dict) else None,
            _objects(message.get("reasoning_details")),
        )
        if delta != ChatDelta(index=self.index):
            self.has_content = True
        elif usage is None:
            return None
        return delta if usage is None else replace(delta, usage=usage)

    def read_end(self) -> ChatDelta:
        """Return the choice's last delta."""
        return ChatDelta(
            None,
            self.index,
            self._to_finish_reason(),
            self._tool_calls.read_end(),
            stop_sequence=self._stop_sequence,
        )

    def _to_finish_reason(self) -> FinishReason:
        """Return OpenAI's finish reason. After tool calls it is `tool_calls`, because `stop` ends agent loops.

        The reason `function_call` belongs to the deprecated form, which was read as a tool call.
        """
        return "tool_calls" if self._tool_calls and self._reason in {"stop", "function_call"} else self._reason


def normalise_finish_reason(value: Any) -> FinishReason:
    """Map a finish reason of any provider to OpenAI's.

    Raises:
        UpstreamTruncatedError: The reason is a failure, so that the answer is not complete.
    """
    reason = value.lower() if isinstance(value, str) else ""
    if reason in _FAILURE_WORDS:
        raise UpstreamTruncatedError(f"The upstream ended its answer with the finish reason '{reason}'.")
    return _FINISH_REASONS.get(reason, "stop")


def read_content(content: Any) -> tuple[str, str]:
    """Return the text and the reasoning of a message's content.

    Content is a string, or a list of parts as Mistral and Databricks send it.
    """
    if isinstance(content, str):
        return content, ""
    texts, reasoning = [], []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            nested = part.get("thinking") or part.get("summary") or part.get("text")
            reasoning.append(read_content(nested)[0])
        elif isinstance(part, dict):
            texts.append(non_empty_text(part.get("text")) or "")
    return "".join(texts), "".join(reasoning)


def read_usage(usage: Any) -> Usage | None:
    """Parse the usage object of a chat completion or of the Responses API. Return None if it is missing or invalid.

    xAI and Gemini count the reasoning tokens beside the completion tokens, which only their total tells.
    """
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    if prompt is None:
        return None
    completion = completion or 0
    prompt_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    completion_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    reasoning = _count(completion_details, "reasoning_tokens") or 0
    total = _count(usage, "total_tokens") or 0
    if reasoning and total > prompt + completion:
        completion = min(total - prompt, completion + reasoning)
    return Usage(
        prompt,
        completion,
        _count(prompt_details, "cached_tokens") or 0,
        reasoning,
        _count(prompt_details, "cache_write_tokens") or 0,
    )


def _count(counts: Any, *names: str) -> int | None:
    if isinstance(counts, dict):
        for name in names:
            count = to_token_count(counts.get(name))
            if count is not None:
                return count
    return None


def _objects(values: Any) -> tuple[JSONObject, ...]:
    return tuple(value for value in values if isinstance(value, dict)) if isinstance(values, list) else ()


def _read_logprobs(logprobs: Any) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token, logprob, tuple(other[:2] for other in _read_tokens(entry.get("top_logprobs"))))
        for token, logprob, entry in _read_tokens(as_dict(logprobs).get("content"))
    )


def _read_tokens(tokens: Any) -> Iterator[tuple[str, float, JSONObject]]:
    """Yield the token, its log probability and the complete object of each valid entry."""
    for item in tokens if isinstance(tokens, list) else ():
        entry = as_dict(item)
        token, logprob = entry.get("token"), entry.get("logprob")
        if isinstance(token, str) and isinstance(logprob, int | float):
            yield token, logprob, entry


def as_dict(value: Any) -> JSONObject:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
