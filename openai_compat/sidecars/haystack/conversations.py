"""Store of conversations that clients refer to by an id instead of sending their messages again."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import Final, Protocol

from openai_compat.core.types import JSONObject
from openai_compat.storage import Storage
from openai_compat.storage.pages import Cursor, Entry
from openai_compat.storage.records import NewObject

from .messages import split_system

MAX_CONVERSATIONS: Final = 10_000
MAX_MESSAGES: Final = 100
MAX_CHARS: Final = 400_000
"""Maximum length of one conversation as JSON, which is about the context of the largest models."""
MAX_TOTAL_BYTES: Final = 128 * 1024 * 1024
"""Size of all conversations as JSON with their keys. They are kept in this form, so that their size is known."""
ID_PREFIX: Final = "pconv_"
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


@dataclass(frozen=True, slots=True)
class _Conversation:
    """Messages as JSON, and the time of the last update."""

    content: bytes = b"[]"
    used_at: float = 0.0


class MemoryConversations:
    """Conversations in process memory, limited in number, length, total size and age.

    The least recently updated conversation is removed first. A conversation that grows too long loses its oldest turns.
    """

    def __init__(self) -> None:
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()
        self._total_bytes = 0
        self._lock = threading.Lock()

    def load(self, key: str) -> Sequence[JSONObject]:
        with self._lock:
            self._evict()
            conversation = self._conversations.get(key, _Conversation())
        messages: list[JSONObject] = json.loads(conversation.content)
        return messages

    def append(self, key: str, messages: Sequence[JSONObject], *, replaces: bool) -> None:
        with self._lock:
            stored = self._remove(key)
            earlier = [] if replaces else json.loads(stored.content)
            content = json.dumps(_truncate([*earlier, *messages]), ensure_ascii=False).encode("utf-8", "replace")
            self._conversations[key] = _Conversation(content, time.monotonic())
            self._total_bytes += _size(key, content)
            self._evict()

    def _remove(self, key: str) -> _Conversation:
        """Remove and return a conversation, an empty one if there is none."""
        conversation = self._conversations.pop(key, None)
        if conversation is None:
            return _Conversation()
        self._total_bytes -= _size(key, conversation.content)
        return conversation

    def _evict(self) -> None:
        """Remove expired conversations, and the oldest ones while they are too many or too large together."""
        expired_before = time.monotonic() - CONVERSATION_TTL
        while self._conversations:
            key, oldest = next(iter(self._conversations.items()))
            is_within = len(self._conversations) <= MAX_CONVERSATIONS and self._total_bytes <= MAX_TOTAL_BYTES
            if is_within and oldest.used_at >= expired_before:
                return
            self._remove(key)


class StoredConversations:
    """Conversations in the database, or in memory if there is none that can be written.

    They expire as all stored objects do. A conversation that grows too long loses its oldest turns.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._memory = MemoryConversations()
        self._lock = threading.Lock()

    def load(self, key: str) -> Sequence[JSONObject]:
        """Return the messages.

        Raises:
            StorageUnavailableError
        """
        if self._storage.is_read_only:
            return self._memory.load(key)
        stored = self._find(_owner_of(key))
        messages: list[JSONObject] = [] if stored is None else json.loads(stored.body)
        return messages

    def append(self, key: str, messages: Sequence[JSONObject], *, replaces: bool) -> None:
        """Append or replace messages.

        Raises:
            StorageUnavailableError
        """
        if self._storage.is_read_only:
            self._memory.append(key, messages, replaces=replaces)
            return
        owner = _owner_of(key)
        with self._lock:
            stored = self._find(owner)
            earlier = [] if stored is None or replaces else json.loads(stored.body)
            body = json.dumps(_truncate([*earlier, *messages]), ensure_ascii=False).encode("utf-8", "replace").decode()
            store = self._storage.pipeline_conversations
            if stored is None or not store.update(owner, stored.id, body):
                store.create(owner, NewObject(f"{ID_PREFIX}{token_hex(16)}", body, int(time.time())))

    def _find(self, owner: str) -> Entry | None:
        page = self._storage.pipeline_conversations.page(owner, Cursor(1, "desc"))
        return page.entries[0] if page.entries else None


def _owner_of(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _size(key: str, content: bytes) -> int:
    return len(key.encode("utf-8", "replace")) + len(content)


def _truncate(messages: list[JSONObject]) -> list[JSONObject]:
    """Return the latest messages within the limits, starting with a user message."""
    characters = 0
    count = 0
    for message in reversed(messages[-MAX_MESSAGES:]):
        characters += len(json.dumps(message, ensure_ascii=False))
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
