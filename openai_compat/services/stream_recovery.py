"""Mid-stream recovery, in which another model continues a stream that broke off.

It is switched on by `on_stream_break: continue` in the models file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from openai_compat.core.errors import (
    BackendError,
    CallCancelledError,
    OpenAICompatError,
    UpstreamError,
    UpstreamStatusError,
)
from openai_compat.core.streams import HEARTBEAT, BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.failover import Attempt, FailoverExecutor
from openai_compat.routing.failure_policy import classify
from openai_compat.routing.route import Target

from .event_stream import JSON, ChunkFilter, EventStream
from .inference_call import CHAT_PATH, COMPLETIONS_PATH, InferenceCall
from .sse_events import choices_of

log = logging.getLogger(__name__)

OpenStream = Callable[[InferenceCall, Target, CallContext, ChunkFilter], EventStream]
"""Send a call to one target. Return its stream, primed, with every chunk passed through the filter."""

OnRouted = Callable[[FailoverExecutor[Any]], None]
"""Report the executor's last target and number of attempts."""
CountTokens = Callable[[str, str], int]
"""Return the number of tokens of a text for a model."""

TOKEN_LIMITS: Final = ("max_tokens", "max_completion_tokens")
PLAIN_KEYS: Final = frozenset({"role", "content", "refusal"})
"""Keys of a delta that is plain text."""


def can_continue(call: InferenceCall) -> bool:
    """Return True if the answer is a single run of text, which another model can continue."""
    payload = call.payload
    if call.choices != 1 or payload.get("logprobs") or payload.get("best_of"):
        return False
    if call.path == COMPLETIONS_PATH:
        return isinstance(payload.get("prompt"), str) and not (payload.get("echo") or payload.get("suffix"))
    return call.path == CHAT_PATH


def resume_request(
    call: InferenceCall, text: str, prefill: str | None, count_tokens: Callable[[str], int]
) -> InferenceCall | None:
    """Return the call that asks for the rest of an answer that began with `text`, or None if the model has no such way.

    The limits on the answer's tokens are reduced by those of `text`. `prefix` is the spelling of DeepSeek and Mistral,
    `continue_final_message` that of vLLM. Many other models continue a last message whose role is `assistant`.
    """
    payload = dict(call.payload)
    if call.path == COMPLETIONS_PATH:
        payload["prompt"] += text
    elif prefill is None:
        return None
    else:
        message: JSON = {"role": "assistant", "content": text}
        if prefill == "prefix":
            message["prefix"] = True
        elif prefill == "continue_final_message":
            payload |= {"continue_final_message": True, "add_generation_prompt": False}
        payload["messages"] = [*payload["messages"], message]
    limits = {name: payload[name] for name in TOKEN_LIMITS if isinstance(payload.get(name), int)}
    if limits:
        sent = count_tokens(text)
        payload |= {name: max(limit - sent, 1) for name, limit in limits.items()}
    return replace(call, payload=payload, body=json.dumps(payload).encode())


class RecoveringStream(EventStream):
    """The events of the first target that answers and, after a break, those of the next one, with one id.

    The next target is asked to continue the text that was sent, where its model supports that. Otherwise it is asked
    from the start: the repeated beginning is dropped, and an answer that differs from it is reported as the break that
    it is. A break within a tool call, within reasoning, or after the finish reason is an error at once.

    `on_routed` gets the executor each time that other targets were asked to continue.

    Raises:
        The constructor: what `FailoverExecutor.run` raises.
    """

    def __init__(
        self,
        failover: FailoverExecutor[EventStream],
        call: InferenceCall,
        open_stream: OpenStream,
        context: CallContext,
        *,
        count_tokens: CountTokens,
        on_routed: OnRouted,
    ) -> None:
        self._failover = failover
        self._call = call
        self._open_stream = open_stream
        self._heartbeat_interval = context.heartbeat_interval
        self._resends = context.resends
        self._count_tokens = count_tokens
        self._on_routed = on_routed
        self._is_text = can_continue(call)
        self._is_finished = self._is_resumed = False
        self._sent: list[str] = []
        self._identity: JSON = {}
        self._repeated: str | None = None
        self._breaks: list[UpstreamError] = []
        self._has_diverged = False
        self._pending: BackgroundStart[Attempt[EventStream]] | None = None
        self._use(failover.run(self._start_first))

    def _use(self, attempt: Attempt[EventStream]) -> None:
        self._attempt = attempt
        self._events = iter(attempt.result)
        if not self._is_resumed:
            self.headers = attempt.result.headers

    @property
    def usage(self) -> Usage | None:
        return self._attempt.result.usage

    def __iter__(self) -> Iterator[bytes | Heartbeat]:
        return self

    def __next__(self) -> bytes | Heartbeat:
        while self._pending is None:
            try:
                block = next(self._events)
            except StopIteration:
                self._attempt.record_success()
                raise
            except UpstreamError as error:
                self._start_failover(error)
            except BackendError as error:
                self._attempt.record_failure(error)
                raise
            else:
                if self._has_diverged:
                    raise self._breaks.pop(0)
                return block
        return self._poll_failover(self._pending)

    def close(self) -> None:
        if self._pending is not None:
            self._pending.close()
        self._attempt.close()

    def _start_failover(self, error: UpstreamError) -> None:
        self._attempt.record_failure(error)
        can_follow = self._is_text and not self._is_finished and self._failover.has_more
        if not can_follow or classify(error).is_clients_fault:
            raise error
        log.warning("'%s' broke off mid-stream, the next target continues: %s", self._attempt.target.model, error)
        self._attempt.close()
        self._breaks.append(error.with_traceback(None))  # the traceback refers to this object: a reference cycle
        self._sent = ["".join(self._sent)]
        self._pending = BackgroundStart(lambda: self._failover.run(self._start_next))

    def _poll_failover(self, pending: BackgroundStart[Attempt[EventStream]]) -> bytes | Heartbeat:
        """Return a heartbeat while the next target has not started, and then its first event."""
        if not pending.wait(self._heartbeat_interval or None):
            return HEARTBEAT
        self._pending = None
        try:
            self._use(pending.result())
        except CallCancelledError:
            raise
        except OpenAICompatError as error:  # a RequestError, too: the client asked for another model
            log.warning("no other target continues the answer: %s", error)
            raise self._breaks.pop(0) from error
        finally:
            self._on_routed(self._failover)
        return next(self)

    def _start_first(self, target: Target, context: CallContext) -> EventStream:
        self._identity, self._sent = {}, []
        return self._open_stream(self._call, target, context, self._filter)

    def _start_next(self, target: Target, context: CallContext) -> EventStream:
        text = self._sent[0]
        self._sent, self._is_finished, self._is_resumed = [text], False, True
        call = resume_request(
            self._call,
            text,
            target.backend.entry.assistant_prefill,
            lambda text: self._count_tokens(text, target.model),
        )
        if call is not None:
            self._repeated = None
            try:
                return self._open_stream(call, target, context, self._filter)
            except UpstreamStatusError as error:
                if classify(error).try_next:
                    raise
                log.info("'%s' does not continue a partial answer and is asked from the start", target.model)
                self._resends.append(target.model)
        self._repeated = text or None
        return self._open_stream(self._call, target, context, self._filter)

    def _filter(self, chunk: JSON) -> JSON | None:
        if self._has_diverged:
            return chunk
        changes = self._changes(chunk)
        shown = {**chunk, **changes} if changes else chunk
        choices = choices_of(shown)
        if choices:
            text = self._text_of(choices[0])
            if self._repeated is not None:
                return self._deduplicate(shown, choices[0], text)
            self._record(choices[0], text)
        return shown

    def _changes(self, chunk: Mapping[str, Any]) -> JSON:
        """Return what makes the chunk part of the answer that the client has begun to read.

        That is its id, and no second role: clients join repeated strings to `assistantassistant`.
        """
        if not self._identity:
            self._identity = {name: chunk[name] for name in ("id", "created") if chunk.get(name)}
        changes = {name: value for name, value in self._identity.items() if chunk.get(name) != value}
        choices = choices_of(chunk)
        delta = choices[0].get("delta") if choices and self._is_resumed else None
        if isinstance(delta, dict) and "role" in delta:
            rest = {name: value for name, value in delta.items() if name != "role"}
            changes["choices"] = [{**choices[0], "delta": rest}]
        return changes

    def _deduplicate(self, chunk: JSON, choice: Mapping[str, Any], text: str) -> JSON | None:
        """Return a chunk of an answer that started again, without the text that the client has."""
        known = self._repeated or ""
        if text.startswith(known):
            rest, self._repeated = text[len(known) :], None
        elif known.startswith(text):
            rest, self._repeated = "", known[len(text) :]
        else:
            self._has_diverged = True
        if self._repeated is not None and (choice.get("finish_reason") or not self._is_text):
            self._has_diverged = True  # it ends before the place where the first one broke off
        if self._has_diverged:
            return chunk  # not sent: the error of the break is raised in its place
        if not rest and not choice.get("finish_reason"):
            return None
        shown = {**choice, "text": rest} if "text" in choice else {**choice, "delta": {"content": rest} if rest else {}}
        self._record(shown, rest)
        return {**chunk, "choices": [shown]}

    def _text_of(self, choice: Mapping[str, Any]) -> str:
        """Return the text of a chunk. Record that the answer is no plain text if the chunk has anything else."""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return str(choice.get("text") or "")
        if any(value and name not in PLAIN_KEYS for name, value in delta.items()) or delta.get("refusal"):
            self._is_text = False
        return str(delta.get("content") or "")

    def _record(self, choice: Mapping[str, Any], text: str) -> None:
        if text:
            self._sent.append(text)
        if choice.get("finish_reason"):
            self._is_finished = True
