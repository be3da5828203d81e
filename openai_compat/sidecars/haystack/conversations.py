"""Conversations that clients name instead of sending them again with each question."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from openai_compat.core.types import JSONObject

from .messages import split_system

MAX_CONVERSATIONS: Final = 10_000
MAX_MESSAGES: Final = 100
MAX_CHARS: Final = 400_000
"""Of one conversation: what the largest models take."""
CONVERSATION_TTL: Final = 24 * 3600.0


class Conversations(Protocol):
    """Where conversations are kept. A key is made of the model, its caller's credential and the caller's own name for
    the conversation, so no caller can reach another's.
    """

    def load(self, key: str) -> Sequence[JSONObject]:
        """OpenAI's messages in their order; none for a conversation that is new, or forgotten."""

    def append(self, key: str, messages: Sequence[JSONObject], *, replaces: bool) -> None:
        """Puts messages at the conversation's end, or in place of all of it."""


@dataclass(slots=True)
class _Conversation:
    messages: list[JSONObject] = field(default_factory=list)
    used: float = 0.0


class MemoryConversations:
    """Kept until the process ends, the oldest forgotten first; a conversation that grows too long loses its oldest
    turns.
    """

    def __init__(self) -> None:
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, key: str) -> Sequence[JSONObject]:
        with self._lock:
            self._forget_old()
            found = self._conversations.get(key)
            return list(found.messages) if found else []

    def append(self, key: str, messages: Sequence[JSONObject], *, replaces: bool) -> None:
        with self._lock:
            kept = self._conversations.setdefault(key, _Conversation())
            kept.messages = _shortened([*([] if replaces else kept.messages), *messages])
            kept.used = time.monotonic()
            self._conversations.move_to_end(key)
            self._forget_old()

    def _forget_old(self) -> None:
        oldest = time.monotonic() - CONVERSATION_TTL
        while self._conversations:
            first = next(iter(self._conversations.values()))
            if len(self._conversations) <= MAX_CONVERSATIONS and first.used >= oldest:
                return
            self._conversations.popitem(last=False)


def _shortened(messages: list[JSONObject]) -> list[JSONObject]:
    """The latest messages, from one of the user's on: an answer without its question is of no use."""
    characters = 0
    kept = 0
    for message in reversed(messages[-MAX_MESSAGES:]):
        characters += len(str(message.get("content")))
        if characters > MAX_CHARS:
            break
        kept += 1
    latest = messages[len(messages) - kept :]
    while latest and latest[0].get("role") != "user":
        latest = latest[1:]
    return latest


def extend(remembered: Sequence[JSONObject], sent: Sequence[JSONObject]) -> tuple[list[JSONObject], bool]:
    """The conversation with what was sent now, and whether the client sent all of it.

    A client that sends answers brings the whole conversation, and is believed. Instructions are the latest ones.
    """
    system, turns = split_system(sent)
    if any(message.get("role") == "assistant" for message in turns):
        return list(sent), True
    remembered_system, remembered_turns = split_system(remembered)
    return [*(system or remembered_system), *remembered_turns, *turns], False
