"""OpenAI's chat JSON, chunks and whole completions alike, read into the values of `openai_compat.core.types`.

Read are what OpenAI sends and what servers that imitate it send in its place: content as a list of parts, `reasoning`
or `reasoning_content`, tool calls without an index, Azure's chunk without choices, finish reasons by other names.
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
from .tool_calls import ToolCallReader, to_text

log = logging.getLogger(__name__)

DONE_GRACE: Final = 1.0
"""How long an answer that is whole may wait for its end mark: some servers send none, and keep the connection open."""
END_OF_STREAM: Final = "[DONE]"
_PLAIN_KEYS: Final = frozenset({"role", "content"})

# The names that Anthropic, Cohere, Gemini, Bedrock, the AI SDK and llama.cpp have for OpenAI's reasons, in lower case.
# A reason not listed here is a way to end all the same: "stop".
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
    """A whole completion as deltas, the last of each choice with its finish reason.

    Raises:
        UpstreamReplyError: it is not a chat completion.
        UpstreamError: it is an error in place of one; what `to_error` makes of it.
    """
    completion = parse_object(body)
    raise_error_in(completion, to_error)
    if not isinstance(completion.get("choices"), list):
        raise UpstreamInvalidResponseError("The upstream's answer is not a chat completion: it has no choices.")
    reader = ChatParser()
    return [*reader.read(completion), *reader.read_end()]


@primed
def read_chat_stream(
    reply: UpstreamResponse, to_error: ToError = to_status_error
) -> Generator[ChatDelta | Heartbeat, None, None]:
    """The deltas of a streamed reply, up to `[DONE]` or its end; closes the reply, also when closed itself.

    Raises:
        UpstreamCutError: it ended with neither `[DONE]` nor a finish reason for each of its choices.
        UpstreamReplyError: an event that is not a chat completion chunk, or one that is broken in place of the end.
            Other broken ones are left out.
        UpstreamError: an error told within the stream; what `to_error` makes of it.
        whatever reading the reply raises.
    """
    reader = ChatParser()
    has_broken = False
    try:
        yield HEARTBEAT
        for event in iterate_events(_blocks_to_the_end(reply, reader)):
            if isinstance(event, Heartbeat):
                yield event
            elif event == END_OF_STREAM:
                if has_broken and not reader.is_finished:
                    break
                yield from reader.read_end()
                reply.release()
                return
            elif (chunk := _read_event(event)) is None:
                has_broken = True
            else:
                raise_error_in(chunk, to_error)
                yield from reader.read(chunk)
                if reader.is_complete:
                    reply.limit_remaining(DONE_GRACE)
        if has_broken and not reader.is_finished:
            raise UpstreamInvalidResponseError("The upstream's answer has a broken event in place of its end.")
        if not reader.is_finished:
            raise UpstreamTruncatedError("The upstream's stream ended before its answer was complete.")
    finally:
        reply.close()


def _blocks_to_the_end(reply: UpstreamResponse, reader: ChatParser) -> Iterator[bytes | Heartbeat]:
    """The reply's blocks. An answer that is whole may lack its end: some servers send none."""
    try:
        yield from reply.blocks()
    except (UpstreamTimeoutError, UpstreamTruncatedError):
        if not reader.is_complete:
            raise


def _read_event(event: str) -> JSONObject | None:
    """The object in an event; None for a broken one."""
    try:
        return parse_object(event)
    except UpstreamInvalidResponseError:
        log.warning("a broken event of the upstream's is left out: %.100r", event)
        return None


def parse_object(text: str | bytes) -> JSONObject:
    """A JSON object.

    Raises:
        UpstreamReplyError: it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalidResponseError("The upstream's answer is not valid JSON.") from error
    if not isinstance(value, dict):
        raise UpstreamInvalidResponseError("The upstream's answer is not a JSON object.")
    return value


class ChatParser:
    """Reads the objects of one answer in their order; remembers of each choice which tool calls it has made."""

    __slots__ = ("_choices", "_has_usage")

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._has_usage = False

    def read(self, reply: JSONObject) -> Iterator[ChatDelta]:
        """The deltas in a chunk or a completion; none for a chunk that says nothing, as the one with the role alone.

        Raises:
            UpstreamReplyError: a choice is not an object.
        """
        usage = read_usage(reply.get("usage"))
        self._has_usage = self._has_usage or usage is not None
        choices = reply.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise UpstreamInvalidResponseError("The upstream's answer has a choice that is not an object.")
            index = choice["index"] if isinstance(choice.get("index"), int) else 0
            if index not in self._choices:
                self._choices[index] = _Choice(index)
            if delta := self._choices[index].read(choice, usage):
                usage = None
                yield delta
        if usage is not None:
            yield ChatDelta(usage=usage)

    def read_end(self) -> Iterator[ChatDelta]:
        """What a proper end implies: a finish reason for each choice that was given none."""
        for choice in (self._choices or {0: _Choice(0)}).values():
            if not choice.is_finished:
                yield ChatDelta(index=choice.index, finish_reason=choice.to_finish_reason("stop"))

    @property
    def is_finished(self) -> bool:
        """Whether the answer has begun and each of its choices has had its finish reason."""
        return bool(self._choices) and all(choice.is_finished for choice in self._choices.values())

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end mark is worth waiting for."""
        return self._has_usage and self.is_finished


class _Choice:
    __slots__ = ("_tool_calls", "index", "is_finished")

    def __init__(self, index: int) -> None:
        self.index = index
        self.is_finished = False
        self._tool_calls = ToolCallReader()

    def read(self, choice: JSONObject, usage: Usage | None) -> ChatDelta | None:
        piece = as_dict(choice.get("delta") or choice.get("message"))
        content = piece.get("content")
        is_plain = isinstance(content, str) and content and piece.keys() <= _PLAIN_KEYS
        if is_plain and not choice.get("finish_reason") and not choice.get("logprobs"):
            return ChatDelta(content, self.index, usage=usage)
        return self._read_all(choice, piece, usage)

    def _read_all(self, choice: JSONObject, piece: JSONObject, usage: Usage | None) -> ChatDelta | None:
        text, reasoning = read_content(piece.get("content", choice.get("text")))
        tool_calls = self._tool_calls.read(piece)
        finish_reason = self._read_finish_reason(choice.get("finish_reason"))
        delta = ChatDelta(
            text or None,
            self.index,
            finish_reason,
            tool_calls,
            to_text(piece.get("refusal")),
            to_text(piece.get("reasoning_content")) or to_text(piece.get("reasoning")) or reasoning or None,
            _read_logprobs(choice.get("logprobs")),
            usage,
        )
        return None if delta == ChatDelta(index=self.index) else delta

    def _read_finish_reason(self, value: Any) -> FinishReason | None:
        if not value or self.is_finished:
            return None
        self.is_finished = True
        return self.to_finish_reason(value)

    def to_finish_reason(self, value: Any) -> FinishReason:
        """`stop` after tool calls means that they are to be made: agents' loops end at anything but `tool_calls`."""
        reason = normalise_finish_reason(value)
        return "tool_calls" if reason == "stop" and self._tool_calls else reason


def normalise_finish_reason(value: Any) -> FinishReason:
    """OpenAI's word for a finish reason, whosever word it is."""
    return _FINISH_REASONS.get(value.lower(), "stop") if isinstance(value, str) else "stop"


def read_content(content: Any) -> tuple[str, str]:
    """The text and the reasoning of a message's content: a text, or a list of parts as Mistral and Databricks send."""
    if isinstance(content, str):
        return content, ""
    texts, reasons = [], []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            nested = part.get("thinking") or part.get("summary") or part.get("text")
            reasons.append(read_content(nested)[0])
        elif isinstance(part, dict):
            texts.append(to_text(part.get("text")) or "")
    return "".join(texts), "".join(reasons)


def read_usage(usage: Any) -> Usage | None:
    """Usage in the terms of chat or of the Responses API; None where it is missing or makes no sense."""
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
    """Token, log probability and the whole object of each entry that has both."""
    for entry in tokens if isinstance(tokens, list) else ():
        found = as_dict(entry)
        token, logprob = found.get("token"), found.get("logprob")
        if isinstance(token, str) and isinstance(logprob, int | float):
            yield token, logprob, found


def as_dict(value: Any) -> JSONObject:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
