"""Store of conversations that clients refer to by an id instead of sending their messages again."""

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
"""Maximum length of one conversation, which is about the context of the largest models."""
CONVERSATION_TTL: Final = 24 * 3600.0


class Conversations(Protocol):
    """Interface of a conversation store.

    A key is made of the model, the caller's credential and the caller's conversation id, so that no caller can reach
    another's conversation.
    """

    def load(self, key: str) -> Sequence[JSONObject]:
        """Return the conversation's messages in order, or none if it is new or has expired."""

    def append(self, key: str, messages: Sequence[JSONObject], *, replaces: bool) -> None:
        """Append messages to the conversation, or replace all of its messages."""


@dataclass(slots=True)
class _Conversation:
    messages: list[JSONObject] = field(default_factory=list)
    used_at: float = 0.0


class MemoryConversations:
    """Conversations in process memory, limited in number, length and age.

    The least recently updated conversation is removed first. A conversation that grows too long loses its oldest turns.
    """

    def __init__(self) -> None:
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, key: str) -> Sequence[JSONObject]:
        with self._lock:
            self._evict()
            conversation = self._conversations.get(key)
            return list(conversation.messages) if conversation else []

    def append(self, key: str, messages: Sequence[JSONObject], *, replaces: bool) -> None:
        with self._lock:
            conversation = self._conversations.setdefault(key, _Conversation())
            conversation.messages = _truncate([*([] if replaces else conversation.messages), *messages])
            conversation.used_at = time.monotonic()
            self._conversations.move_to_end(key)
            self._evict()

    def _evict(self) -> None:
        """Remove expired conversations, and the oldest ones while there are too many."""
        expired_before = time.monotonic() - CONVERSATION_TTL
        while self._conversations:
            oldest = next(iter(self._conversations.values()))
            if len(self._conversations) <= MAX_CONVERSATIONS and oldest.used_at >= expired_before:
                return
            self._conversations.popitem(last=False)


def _truncate(messages: list[JSONObject]) -> list[JSONObject]:
    """Return the latest messages within the limits, starting with a user message."""
    characters = 0
    count = 0
    for message in reversed(messages[-MAX_MESSAGES:]):
        characters += len(str(message.get("content")))
        if characters > MAX_CHARS:
            break
        count += 1
    latest = messages[len(messages) - count :]
    while latest and latest[0].get("role") != "user":
        latest = latest[1:]
    return latest


def extend(stored: Sequence[JSONObject], sent: Sequence[JSONObject]) -> tuple[list[JSONObject], bool]:
    """Return the complete conversation, and True if the sent messages replace the stored ones.

    Messages with an assistant message are taken as the complete conversation. Otherwise they follow the stored
    messages, and system messages among them replace the stored system messages.
    """
    system, turns = split_system(sent)
    if any(message.get("role") == "assistant" for message in turns):
        return list(sent), True
    stored_system, stored_turns = split_system(stored)
    return [*(system or stored_system), *stored_turns, *turns], False
