"""The part of a broken answer that the client has, and the request for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final

from openai_compat.core.errors import BackendError
from openai_compat.core.streams import HEARTBEAT, Heartbeat
from openai_compat.core.types import ChatDelta

from .event_stream import JSON
from .inference_call import InferenceCall
from .prefill import TOKEN_LIMITS, ends_within, has_format, is_single_text, mark_prefill, stops_of, with_answer
from .sse_events import choices_of

CountTokens = Callable[[str, str], int]
"""Return the number of tokens of a text for a model."""

PLAIN_KEYS: Final = frozenset({"role", "content"})
"""Keys of a chunk's delta that is plain text."""
BEGINNING_KEYS: Final = frozenset({"role", "reasoning", "reasoning_content", "reasoning_details"})
"""Keys of what comes before a text. The model that completes the text sends them again."""


class DivergedError(BackendError):
    """A target that was asked from the start gives another answer than the client has begun to read."""

    code = "answer_diverged"

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
        self._is_text = self._is_finished = self._asks_for_rest = self._has_format = False
        self._stops: Sequence[str] = ()
        self._prefill: str | None = None
        self._identity: JSON = {}
        self._texts: list[str] = []
        self._delivered = 0
        self._repeated: str | None = None
        self._repeated_chars = 0
        self._white_space = ""

    @property
    def is_possible(self) -> bool:
        """True if the answer is a single run of text so far, and has no finish reason."""
        return self._is_text and not self._is_finished

    @property
    def text(self) -> str:
        """The text that the client has."""
        return "".join(self._texts[: self._delivered])

    @property
    def is_repeating(self) -> bool:
        """True while a target that was asked from the start repeats what the client has."""
        return self._repeated is not None

    def deliver(self) -> None:
        """Note that the client gets all texts that passed the filter. Those before an error may have been dropped."""
        self._delivered = len(self._texts)

    def begin(self) -> None:
        """Prepare for the first target, or for another one after a failure before the first event."""
        self._is_text = self._is_finished = False
        self._identity, self._texts, self._delivered = {}, [], 0

    def ask_for_rest(self, prefill: str | None) -> bool:
        """Prepare for a target that continues a text in the way `prefill`. Return False if it cannot do so.

        A constrained format and stop sequences apply to what a model writes itself. A part of a JSON value, and a text
        that may end within a stop sequence, therefore cannot be continued.
        """
        self._resume()
        self._prefill = prefill
        can_continue = self._is_prompt or (prefill is not None and bool(self.text.strip()))
        must_restart = self._has_format or ends_within(self.text, self._stops)
        self._asks_for_rest = bool(self.text) and can_continue and not must_restart
        if self._asks_for_rest and not self._is_prompt:
            self._white_space = self.text[len(self.text.rstrip()) :]
        return self._asks_for_rest

    def ask_from_start(self) -> None:
        """Prepare for a target that cannot continue a text."""
        self._resume()
        self._asks_for_rest, self._repeated = False, self.text or None

    def _resume(self) -> None:
        self._texts, self._delivered = [self.text], 1
        self._repeated, self._repeated_chars, self._white_space = None, 0, ""
        self._is_finished, self._is_text, self.is_resumed = False, True, True

    def to_request(self, payload: Mapping[str, Any], model: str) -> Mapping[str, Any]:
        """Return the chat or completion payload for the next target.

        The limits on the answer's tokens are reduced by those that the client has. White space at the end of the text
        is left out, because Anthropic refuses it and many templates remove it. The filters drop it if the model
        repeats it.
        """
        if not self.is_resumed:
            self._is_text = is_single_text(payload, is_prompt=self._is_prompt)
            self._has_format, self._stops = has_format(payload), stops_of(payload)
        if not self._asks_for_rest:
            return payload
        changed = dict(payload)
        if self._is_prompt:
            changed["prompt"] += self.text
        else:
            changed["messages"] = with_answer(payload["messages"], self.text.rstrip())
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

    def filter_chunk(self, chunk: JSON) -> JSON:
        """Return a chunk with the part of its text that the client lacks, and without reasoning about the rest."""
        changes = self._changes(chunk)
        shown = {**chunk, **changes} if changes else chunk
        choices = choices_of(shown)
        if not choices:
            return shown
        choice, sent = choices[0], _text_of(choices[0])
        self._is_text = self._is_text and _is_plain_choice(choice)
        text = self._admit(sent, is_end=bool(choice.get("finish_reason")))
        return shown if text == sent else _with_text(shown, choice, text)

    def filter_deltas(self, deltas: Iterator[ChatDelta | Heartbeat]) -> Iterator[ChatDelta | Heartbeat]:
        """Yield a backend's deltas with the parts of their texts that the client lacks.

        Reasoning about the rest of a text is left out. It would divide the text into several items or blocks, of which
        some clients read only the last one.
        """
        for delta in deltas:
            if delta is HEARTBEAT:
                yield delta
                continue
            if self.is_resumed and (delta.reasoning or delta.reasoning_details):
                delta = replace(delta, reasoning=None, reasoning_details=())
            sent = delta.content or ""
            self._is_text = self._is_text and _is_plain_delta(delta)
            text = self._admit(sent, is_end=delta.finish_reason is not None)
            yield delta if text == sent else replace(delta, content=text or None)

    def _admit(self, text: str, *, is_end: bool) -> str:
        """Return the part of a text that the client lacks, and keep it.

        Raises:
            DivergedError: it differs from what the client has, or the answer ends before the place of the break.
        """
        if self._repeated is not None:
            text = self._drop_repeated(self._repeated, text)
            if self._repeated is not None and (is_end or not self._is_text):
                raise DivergedError
        if self._white_space:
            text = self._drop_white_space(text)
        if text:
            self._texts.append(text)
        if is_end:
            self._is_finished = True
        return text

    def _drop_repeated(self, known: str, text: str) -> str:
        """Return what a text has beyond the known one. The known text is not copied for each part that repeats it."""
        start, missing = self._repeated_chars, len(known) - self._repeated_chars
        if not known.startswith(text[:missing], start):
            raise DivergedError
        self._repeated_chars += len(text)
        if len(text) >= missing:
            self._repeated = None
        return text[missing:]

    def _drop_white_space(self, text: str) -> str:
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._white_space, text, strict=False)))
        self._white_space = self._white_space[common:] if common == len(text) else ""
        return text[common:]

    def _changes(self, chunk: Mapping[str, Any]) -> JSON:
        """Return what makes the chunk part of the answer that the client has begun to read.

        That is its id, and no second role: clients join repeated strings to `assistantassistant`. It has no reasoning,
        as in `filter_deltas`.
        """
        if not self._identity:
            self._identity = {name: chunk[name] for name in ("id", "created") if chunk.get(name)}
        changes = {name: value for name, value in self._identity.items() if chunk.get(name) != value}
        choices = choices_of(chunk)
        delta = choices[0].get("delta") if choices and self.is_resumed else None
        if isinstance(delta, dict) and not BEGINNING_KEYS.isdisjoint(delta):
            rest = {name: value for name, value in delta.items() if name not in BEGINNING_KEYS}
            changes["choices"] = [{**choices[0], "delta": rest}]
        return changes


def _is_plain_choice(choice: Mapping[str, Any]) -> bool:
    """Return True if a choice has nothing but text, which some servers send as a list of parts."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return True
    has_other = any(value and name not in PLAIN_KEYS for name, value in delta.items())
    return not has_other and isinstance(delta.get("content"), str | None)


def _is_plain_delta(delta: ChatDelta) -> bool:
    has_other = delta.tool_calls or delta.reasoning or delta.reasoning_details or delta.annotations
    return not (has_other or delta.refusal or delta.audio)


def _text_of(choice: Mapping[str, Any]) -> str:
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    return text if isinstance(text, str) else ""


def _with_text(chunk: JSON, choice: JSON, text: str) -> JSON:
    """Return a chunk whose only choice has another text."""
    delta = choice.get("delta")
    changed = {"delta": {**delta, "content": text}} if isinstance(delta, dict) else {"text": text}
    return {**chunk, "choices": [{**choice, **changed}]}
