"""Going on with a stream whose upstream broke off in the middle (`midstream: continue`)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from openai_compat.core.errors import BackendError, UpstreamError, UpstreamStatusError, UpstreamTruncatedError
from openai_compat.core.streams import HEARTBEAT, BackgroundStart, Heartbeat
from openai_compat.core.types import CallContext, Usage
from openai_compat.routing.failover import Attempt, FailoverExecutor
from openai_compat.routing.failure_policy import classify
from openai_compat.routing.route import Target

from .failover_streams import EventStream
from .first_content import to_error
from .inference_call import InferenceCall
from .sse_events import choices_of, chunk_of, split_events, to_event

log = logging.getLogger(__name__)

Ask = Callable[[InferenceCall, Target, CallContext], EventStream]
"""Puts a call to one target; returns when its stream says something."""

CHAT: Final = "chat/completions"
COMPLETIONS: Final = "completions"
PLAIN_KEYS: Final = frozenset({"role", "content", "refusal"})
"""What a delta may have that is plain text, or null."""


def can_continue(call: InferenceCall) -> bool:
    """Whether the answer of `call` is one run of text, so that another model can go on where it ends."""
    payload = call.payload
    if call.choices != 1 or payload.get("logprobs") or payload.get("best_of"):
        return False
    if call.path == COMPLETIONS:
        return isinstance(payload.get("prompt"), str) and not (payload.get("echo") or payload.get("suffix"))
    return call.path == CHAT


def resume_request(call: InferenceCall, text: str, prefill: str | None) -> InferenceCall | None:
    """The call that asks for what comes after `text`; None where the model cannot be asked so.

    `prefix` is what DeepSeek and Mistral call it, `continue_final_message` is vLLM's; many other models go on from a
    last message that is the assistant's.
    """
    payload = dict(call.payload)
    if call.path == COMPLETIONS:
        payload["prompt"] += text
    elif prefill is None:
        return None
    else:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if prefill == "prefix":
            message["prefix"] = True
        elif prefill == "continue_final_message":
            payload |= {"continue_final_message": True, "add_generation_prompt": False}
        payload["messages"] = [*payload["messages"], message]
    return replace(call, payload=payload, body=json.dumps(payload).encode())


class RecoveringStream(Iterator["bytes | Heartbeat"]):
    """The events of the target that answers, and after a break those of the next one, as one answer with one id.

    The next one is asked to go on from the text that was sent, where it can be asked so, and else from the start: as
    long as it says the same, that is dropped, and at the first difference the break is told after all. A break in a
    tool call, in reasoning or after the finish is told at once.
    """

    def __init__(
        self,
        failover: FailoverExecutor[EventStream],
        begun: Attempt[EventStream],
        call: InferenceCall,
        ask: Ask,
        silence: float,
    ) -> None:
        self._failover = failover
        self._begun = begun
        self._call = call
        self._ask = ask
        self._silence_seconds = silence
        self._is_text = can_continue(call)
        self._is_finished = False
        self._is_resumed = False
        self._sent: list[str] = []
        self._identity: dict[str, Any] = {}
        self._repeated: str | None = None
        self._break: UpstreamError | None = None
        self._pending: BackgroundStart[Attempt[EventStream]] | None = None
        self.headers = begun.result.headers

    @property
    def usage(self) -> Usage | None:
        return self._begun.result.usage

    def __next__(self) -> bytes | Heartbeat:
        while True:
            if self._break is not None and self._pending is None:
                self._start_failover(self._break)
            if self._pending is not None and not self._poll_failover(self._pending):
                return HEARTBEAT
            block = self._next_block()
            if isinstance(block, Heartbeat):
                return block
            passed = b"".join(self._inspected(block)) if block else b""
            if passed:
                return passed

    def close(self) -> None:
        if self._pending is not None:
            self._pending.close()
        self._begun.close()

    def _next_block(self) -> bytes | Heartbeat:
        """What the target sends; nothing where it broke off."""
        try:
            return next(self._begun.result.events)
        except StopIteration:
            self._begun.ended()
            raise
        except UpstreamError as error:
            self._break = error
            return b""
        except BackendError as error:
            self._begun.failed(error)
            raise

    def _start_failover(self, error: UpstreamError) -> None:
        self._break = None
        self._begun.failed(error)
        if self._is_finished or not self._is_text or not self._failover.has_more:
            raise error
        log.warning("'%s' broke off in the middle; another is asked to go on: %s", self._begun.target.model, error)
        self._begun.close()
        self._pending = BackgroundStart(lambda: self._failover.run(self._attempt))

    def _poll_failover(self, pending: BackgroundStart[Attempt[EventStream]]) -> bool:
        """Whether somebody goes on; False while that is not known, and something must be said meanwhile."""
        if not pending.wait(self._silence_seconds or None):
            return False
        self._pending = None
        try:
            self._begun = pending.result()
        except BackendError as error:
            raise self._told() from error
        self._is_resumed = True
        return True

    def _attempt(self, target: Target, context: CallContext) -> EventStream:
        text = "".join(self._sent)
        call = resume_request(self._call, text, target.backend.entry.assistant_prefill)
        if call is not None:
            try:
                source = self._ask(call, target, context)
                self._repeated = None
                return source
            except UpstreamStatusError as error:
                if classify(error).try_next:
                    raise
                log.info("'%s' does not go on from half an answer, and is asked from the start", target.model)
        source = self._ask(self._call, target, context)
        self._repeated = text or None
        return source

    def _told(self) -> UpstreamTruncatedError:
        self._is_text = False
        return UpstreamTruncatedError("The upstream's answer broke off, and no other could go on with it.")

    def _inspected(self, block: bytes) -> Iterator[bytes]:
        """The events that the client is to see, up to one that tells of an error."""
        for event in split_events(block):
            chunk = chunk_of(event)
            if chunk is None:
                yield event
            elif chunk.get("error"):
                self._break = to_error(chunk)
                return
            else:
                yield self._inspected_event(event, chunk)

    def _inspected_event(self, event: bytes, chunk: dict[str, Any]) -> bytes:
        changes = self._changes(chunk)
        shown = {**chunk, **changes} if changes else chunk
        choices = choices_of(shown)
        if choices:
            text = self._text_of(choices[0])
            if self._repeated is not None:
                return self._deduplicate(shown, choices[0], text)
            self._note(choices[0], text)
        return to_event(shown) if changes else event

    def _changes(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        """What makes the chunk one of the answer that the client knows: its id, and no role for a second time, which
        clients would put behind the first: `assistantassistant`.
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

    def _deduplicate(self, chunk: dict[str, Any], choice: Mapping[str, Any], text: str) -> bytes:
        """An event of an answer that began anew, less what the client has; nothing where it has all of it."""
        known = self._repeated or ""
        if text.startswith(known):
            rest, self._repeated = text[len(known) :], None
        elif known.startswith(text):
            rest, self._repeated = "", known[len(text) :]
        else:
            raise self._told()
        if self._repeated is not None and (choice.get("finish_reason") or not self._is_text):
            raise self._told()  # it ends before the place where the first one broke off
        if not rest and not choice.get("finish_reason"):
            return b""
        shown = {**choice, "text": rest} if "text" in choice else {**choice, "delta": {"content": rest} if rest else {}}
        self._note(shown, rest)
        return to_event({**chunk, "choices": [shown]})

    def _text_of(self, choice: Mapping[str, Any]) -> str:
        """The text of a chunk; notes where it has what is no text."""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return str(choice.get("text") or "")
        if any(value and name not in PLAIN_KEYS for name, value in delta.items()) or delta.get("refusal"):
            self._is_text = False
        return str(delta.get("content") or "")

    def _note(self, choice: Mapping[str, Any], text: str) -> None:
        if text:
            self._sent.append(text)
        if choice.get("finish_reason"):
            self._is_finished = True
