"""Parser for OpenAI chat completions and chat completion chunks.

It also accepts the deviations of OpenAI-compatible servers: content as a list of parts, `reasoning` or
`reasoning_content`, tool calls without an index, Azure's first chunk without choices, and other finish reasons.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final, cast, get_args

from openai_compat.backends.http.messages import UpstreamResponse
from openai_compat.core.errors import UpstreamInvalidResponseError, UpstreamTimeoutError, UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta, FinishReason, JSONObject, TokenLogprob, Usage

from .openai_errors import ToError, raise_error_in, to_status_error
from .sse import iterate_events, primed
from .tool_calls import ToolCallParser, non_empty_text

log = logging.getLogger(__name__)

DONE_GRACE: Final = 1.0
"""Seconds to wait for `[DONE]` once the answer is complete. Some servers never send it and keep the connection open."""
END_OF_STREAM: Final = "[DONE]"
_PLAIN_KEYS: Final = frozenset({"role", "content"})

# The finish reasons of Anthropic, Cohere, Gemini, Bedrock, the AI SDK and llama.cpp, in lower case. Unknown reasons are
# read as "stop".
_LENGTH_WORDS = ("max_tokens", "max_length", "max_output_tokens", "model_context_window_exceeded", "limit")
_TOOL_WORDS = ("tool_use", "tool_call", "tool-calls")
_FILTER_WORDS = (
    "safety", "recitation", "blocklist", "prohibited_content", "spii", "refusal", "error_toxic", "content_filtered",
    "content-filter", "guardrail_intervened",
)  # fmt: skip
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
    raise_error_in(completion, to_error)
    if not isinstance(completion.get("choices"), list):
        raise UpstreamInvalidResponseError("The upstream's response is not a chat completion: it has no choices.")
    parser = ChatParser()
    return [*parser.read(completion), *parser.read_end()]


@primed
def read_chat_stream(
    response: UpstreamResponse, to_error: ToError = to_status_error
) -> Generator[ChatDelta | Heartbeat, None, None]:
    """Yield the deltas of a streamed response up to `[DONE]` or its end. Close the response on every path.

    Errors of reading the response are raised unchanged.

    Raises:
        UpstreamTruncatedError: The stream ended without `[DONE]` and without a finish reason for each choice.
        UpstreamInvalidResponseError: An event is JSON but not a chat completion chunk, or the stream ended with a
            broken event in place of its end. Other broken events are skipped.
        UpstreamError: The stream contains an error object. `to_error` builds the exception.
    """
    parser = ChatParser()
    has_broken = False
    try:
        yield HEARTBEAT
        for event in iterate_events(_blocks_until_complete(response, parser)):
            if isinstance(event, Heartbeat):
                yield event
            elif event == END_OF_STREAM:
                if has_broken and not parser.is_finished:
                    break
                yield from parser.read_end()
                response.release()
                return
            elif (chunk := _parse_event(event)) is None:
                has_broken = True
            else:
                raise_error_in(chunk, to_error)
                yield from parser.read(chunk)
                if parser.is_complete:
                    response.limit_remaining(DONE_GRACE)
        if has_broken and not parser.is_finished:
            raise UpstreamInvalidResponseError("The upstream's stream has a broken event in place of its end.")
        if not parser.is_finished:
            raise UpstreamTruncatedError("The upstream's stream ended before the answer was complete.")
    finally:
        response.close()


def _blocks_until_complete(response: UpstreamResponse, parser: ChatParser) -> Iterator[bytes | Heartbeat]:
    """Yield the response's blocks. Ignore a missing end once the answer is complete, as some servers never send it."""
    try:
        yield from response.blocks()
    except (UpstreamTimeoutError, UpstreamTruncatedError):
        if not parser.is_complete:
            raise


def _parse_event(event: str) -> JSONObject | None:
    """Return the event's JSON object, or None if it is broken."""
    try:
        return parse_object(event)
    except UpstreamInvalidResponseError:
        log.warning("skipped a broken event of the upstream: %.100r", event)
        return None


def parse_object(text: str | bytes) -> JSONObject:
    """Parse a JSON object.

    Raises:
        UpstreamInvalidResponseError: The text is not JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalidResponseError("The upstream's response is not valid JSON.") from error
    if not isinstance(value, dict):
        raise UpstreamInvalidResponseError("The upstream's response is not a JSON object.")
    return value


class ChatParser:
    """Parser for the JSON objects of one answer, in their order. It keeps the state of each choice's tool calls."""

    __slots__ = ("_choices", "_has_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._has_usage = False

    def read(self, chunk: JSONObject) -> Iterator[ChatDelta]:
        """Yield the deltas of a chunk or a completion. A chunk without content, such as the first one, has none.

        Raises:
            UpstreamInvalidResponseError: A choice is not an object.
        """
        usage = read_usage(chunk.get("usage"))
        self._has_usage = self._has_usage or usage is not None
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise UpstreamInvalidResponseError("The upstream's response has a choice that is not an object.")
            index = choice["index"] if isinstance(choice.get("index"), int) else 0
            if index not in self._choices:
                self._choices[index] = _Choice(index)
            if delta := self._choices[index].read(choice, usage):
                usage = None
                yield delta
        if usage is not None:
            yield ChatDelta(usage=usage)

    def read_end(self) -> Iterator[ChatDelta]:
        """Yield a finish reason for each choice that has none, because the answer ended properly."""
        for choice in (self._choices or {0: _Choice(0)}).values():
            if not choice.is_finished:
                yield ChatDelta(index=choice.index, finish_reason=choice.to_finish_reason("stop"))

    @property
    def is_finished(self) -> bool:
        """True if there is a choice and each choice has its finish reason."""
        return bool(self._choices) and all(choice.is_finished for choice in self._choices.values())

    @property
    def is_complete(self) -> bool:
        """True if the answer is finished and its usage is known, so that only `[DONE]` is missing."""
        return self._has_usage and self.is_finished


class _Choice:
    """The state of one choice."""

    __slots__ = ("_tool_calls", "index", "is_finished")

    def __init__(self, index: int) -> None:
        self.index = index
        self.is_finished = False
        self._tool_calls = ToolCallParser()

    def read(self, choice: JSONObject, usage: Usage | None) -> ChatDelta | None:
        """Return the choice's delta, or None if it has no content."""
        message = as_dict(choice.get("delta") or choice.get("message"))
        content = message.get("content")
        is_plain = isinstance(content, str) and content and message.keys() <= _PLAIN_KEYS
        if is_plain and not choice.get("finish_reason") and not choice.get("logprobs"):
            return ChatDelta(content, self.index, usage=usage)
        return self._read_all(choice, message, usage)

    def _read_all(self, choice: JSONObject, message: JSONObject, usage: Usage | None) -> ChatDelta | None:
        text, reasoning = read_content(message.get("content", choice.get("text")))
        tool_calls = self._tool_calls.read(message)
        finish_reason = self._read_finish_reason(choice.get("finish_reason"))
        delta = ChatDelta(
            text or None,
            self.index,
            finish_reason,
            tool_calls,
            non_empty_text(message.get("refusal")),
            non_empty_text(message.get("reasoning_content"))
            or non_empty_text(message.get("reasoning"))
            or reasoning
            or None,
            _read_logprobs(choice.get("logprobs")),
            usage,
            tuple(note for note in message.get("annotations") or () if isinstance(note, dict)),
        )
        return None if delta == ChatDelta(index=self.index) else delta

    def _read_finish_reason(self, value: Any) -> FinishReason | None:
        if not value or self.is_finished:
            return None
        self.is_finished = True
        return self.to_finish_reason(value)

    def to_finish_reason(self, value: Any) -> FinishReason:
        """Return OpenAI's finish reason. `stop` after tool calls becomes `tool_calls`, as `stop` ends agent loops."""
        reason = normalise_finish_reason(value)
        return "tool_calls" if reason == "stop" and self._tool_calls else reason


def normalise_finish_reason(value: Any) -> FinishReason:
    """Map a finish reason of any provider to OpenAI's."""
    return _FINISH_REASONS.get(value.lower(), "stop") if isinstance(value, str) else "stop"


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
    """Parse the usage object of a chat completion or of the Responses API. Return None if it is missing or invalid."""
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    if prompt is None:
        return None
    prompt_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    completion_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Usage(
        prompt,
        completion or 0,
        _count(prompt_details, "cached_tokens") or 0,
        _count(completion_details, "reasoning_tokens") or 0,
    )


def _count(counts: Any, *names: str) -> int | None:
    if isinstance(counts, dict):
        for name in names:
            count = counts.get(name)
            if isinstance(count, int) and count >= 0:
                return count
    return None


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
