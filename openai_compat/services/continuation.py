"""The part of a broken answer that the client has, and the request for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta

from .event_stream import JSON
from .inference_call import InferenceCall
from .sse_events import choices_of

CountTokens = Callable[[str, str], int]
"""Return the number of tokens of a text for a model."""

TOKEN_LIMITS: Final = ("max_tokens", "max_completion_tokens")
PLAIN_KEYS: Final = frozenset({"role", "content"})
"""Keys of a chunk's delta that is plain text."""


NOTHING: Final = ChatDelta()
"""Stands for a delta that the client has already. Protocols count deltas without an event as idle time."""


class DivergedError(Exception):
    """A target that was asked from the start gives another answer than the client has begun to read."""

    def __init__(self) -> None:
        super().__init__("The answer differs from what the client has of it.")


class Continuation:
    """The part of a streamed answer that the client has, and how the next target is asked to continue it.

    The payload for every target passes through `to_request`, and its chunks or deltas pass through a filter, which
    keeps their text. A target that cannot continue a text is asked from the start, and the filter drops what it
    repeats. An answer whose payload did not pass through `to_request` cannot be continued.

    `is_resumed` is True once a stream has broken off and other targets are asked.

    Raises:
        The filters: DivergedError.
    """

    def __init__(self, count_tokens: CountTokens, *, is_prompt: bool = False) -> None:
        """Continue a chat, or with `is_prompt` a text completion."""
        self.is_resumed = False
        self._count_tokens = count_tokens
        self._is_prompt = is_prompt
        self._is_text = self._is_finished = self._asks_for_rest = False
        self._prefill: str | None = None
        self._identity: JSON = {}
        self._texts: list[str] = []
        self._delivered = 0
        self._repeated: str | None = None

    @property
    def is_possible(self) -> bool:
        """True if the answer is a single run of text so far, and has no finish reason."""
        return self._is_text and not self._is_finished

    @property
    def text(self) -> str:
        """The text that the client has."""
        return "".join(self._texts[: self._delivered])

    def deliver(self) -> None:
        """Note that the client gets all texts that passed the filter. Those before an error may have been dropped."""
        self._delivered = len(self._texts)

    def begin(self) -> None:
        """Prepare for the first target, or for another one after a failure before the first event."""
        self._is_text = self._is_finished = False
        self._identity, self._texts, self._delivered = {}, [], 0

    def ask_for_rest(self, prefill: str | None) -> bool:
        """Prepare for a target that continues a text in the way `prefill`. Return False if it cannot do so."""
        self._resume()
        self._prefill, self._repeated = prefill, None
        self._asks_for_rest = bool(self.text) and (self._is_prompt or prefill is not None)
        return self._asks_for_rest

    def ask_from_start(self) -> None:
        """Prepare for a target that cannot continue a text."""
        self._resume()
        self._asks_for_rest, self._repeated = False, self.text or None

    def _resume(self) -> None:
        self._texts, self._delivered = [self.text], 1
        self._is_finished, self.is_resumed = False, True

    def to_request(self, payload: Mapping[str, Any], model: str) -> Mapping[str, Any]:
        """Return the chat or completion payload for the next target.

        The limits on the answer's tokens are reduced by those that the client has.
        """
        if not self.is_resumed:
            self._is_text = is_single_text(payload, is_prompt=self._is_prompt)
        if not self._asks_for_rest:
            return payload
        changed = dict(payload)
        if self._is_prompt:
            changed["prompt"] += self.text
        else:
            changed["messages"] = with_answer(payload["messages"], self.text)
            mark_prefill(changed, self._prefill)
        limits = {name: payload[name] for name in TOKEN_LIMITS if isinstance(payload.get(name), int)}
        if limits:
            sent = self.sent_tokens(model)
            changed |= {name: max(limit - sent, 1) for name, limit in limits.items()}
        return changed

    def sent_tokens(self, model: str) -> int:
        """Return the number of tokens that the next target need not write again."""
        return self._count_tokens(self.text, model) if self._asks_for_rest else 0

    def to_call(self, call: InferenceCall, model: str) -> InferenceCall:
        """Return the call whose payload is that of `to_request`."""
        payload = self.to_request(call.payload, model)
        return call if payload is call.payload else replace(call, payload=payload, body=json.dumps(payload).encode())

    def filter_chunk(self, chunk: JSON) -> JSON | None:
        """Return what the client gets of a chunk."""
        changes = self._changes(chunk)
        shown = {**chunk, **changes} if changes else chunk
        choices = choices_of(shown)
        if not choices:
            return shown
        choice, is_repeated = choices[0], self._repeated is not None
        self._is_text = self._is_text and _is_plain_choice(choice)
        text = self._admit(_text_of(choice), is_end=bool(choice.get("finish_reason")))
        return _with_text(shown, choice, text) if is_repeated else shown

    def filter_deltas(self, deltas: Iterator[ChatDelta | Heartbeat]) -> Iterator[ChatDelta | Heartbeat]:
        """Yield what the client gets of a backend's deltas."""
        for delta in deltas:
            if delta is HEARTBEAT:
                yield delta
                continue
            is_repeated, is_end = self._repeated is not None, delta.finish_reason is not None
            self._is_text = self._is_text and _is_plain_delta(delta)
            text = self._admit(delta.content or "", is_end=is_end)
            if not is_repeated:
                yield delta
            elif not (text or is_end):
                yield NOTHING
            else:
                yield ChatDelta(text or None, finish_reason=delta.finish_reason, stop_sequence=delta.stop_sequence)

    def _admit(self, text: str, *, is_end: bool) -> str:
        """Return the part of a text that the client lacks, and keep it.

        Raises:
            DivergedError: it differs from what the client has, or the answer ends before the place of the break.
        """
        if self._repeated is not None:
            text = self._drop_repeated(self._repeated, text)
            if self._repeated is not None and (is_end or not self._is_text):
                raise DivergedError
        if text:
            self._texts.append(text)
        if is_end:
            self._is_finished = True
        return text

    def _drop_repeated(self, known: str, text: str) -> str:
        if text.startswith(known):
            self._repeated = None
            return text[len(known) :]
        if not known.startswith(text):
            raise DivergedError
        self._repeated = known[len(text) :]
        return ""

    def _changes(self, chunk: Mapping[str, Any]) -> JSON:
        """Return what makes the chunk part of the answer that the client has begun to read.

        That is its id, and no second role: clients join repeated strings to `assistantassistant`.
        """
        if not self._identity:
            self._identity = {name: chunk[name] for name in ("id", "created") if chunk.get(name)}
        changes = {name: value for name, value in self._identity.items() if chunk.get(name) != value}
        choices = choices_of(chunk)
        delta = choices[0].get("delta") if choices and self.is_resumed else None
        if isinstance(delta, dict) and "role" in delta:
            rest = {name: value for name, value in delta.items() if name != "role"}
            changes["choices"] = [{**choices[0], "delta": rest}]
        return changes


def is_single_text(payload: Mapping[str, Any], *, is_prompt: bool) -> bool:
    """Return True if the answer may be a single run of text, which another model can continue."""
    if (payload.get("n") or 1) != 1 or payload.get("logprobs") or payload.get("best_of"):
        return False
    if is_prompt:
        return isinstance(payload.get("prompt"), str) and not (payload.get("echo") or payload.get("suffix"))
    return True


def with_answer(messages: Sequence[JSON], text: str) -> list[JSON]:
    """Return the messages with the text as the beginning of the answer.

    A last message of the assistant was continued, so the text belongs to it. Many templates refuse two in a row.
    """
    last = messages[-1] if messages else {}
    content = last.get("content")
    if last.get("role") == "assistant" and isinstance(content, str) and not last.get("tool_calls"):
        return [*messages[:-1], {**last, "content": content + text}]
    return [*messages, {"role": "assistant", "content": text}]


def mark_prefill(chat: JSON, prefill: str | None) -> None:
    """Ask a model to continue the last message, in the way that its entry of the models file names.

    `prefix` is the spelling of DeepSeek and Mistral, `continue_final_message` that of vLLM. Many other models continue
    a last message whose role is `assistant`.
    """
    if prefill == "prefix":
        chat["messages"] = [*chat["messages"][:-1], {**chat["messages"][-1], "prefix": True}]
    elif prefill == "continue_final_message":
        chat |= {"continue_final_message": True, "add_generation_prompt": False}


def _is_plain_choice(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    return not isinstance(delta, dict) or not any(value and name not in PLAIN_KEYS for name, value in delta.items())


def _is_plain_delta(delta: ChatDelta) -> bool:
    has_other = delta.tool_calls or delta.reasoning or delta.reasoning_details or delta.annotations
    return not (has_other or delta.refusal or delta.audio)


def _text_of(choice: Mapping[str, Any]) -> str:
    delta = choice.get("delta")
    return str((delta.get("content") if isinstance(delta, dict) else choice.get("text")) or "")


def _with_text(chunk: JSON, choice: JSON, text: str) -> JSON | None:
    """Return a chunk of an answer that began again with the text that the client lacks, or None if it lacks none."""
    if not text and not choice.get("finish_reason"):
        return None
    shown = {**choice, "text": text} if "text" in choice else {**choice, "delta": {"content": text} if text else {}}
    return {**chunk, "choices": [shown]}
