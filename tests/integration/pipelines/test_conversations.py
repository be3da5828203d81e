"""The conversation store, with its limits on number, length and age."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from openai_compat.sidecars.haystack import conversations
from openai_compat.sidecars.haystack.conversations import MemoryConversations, StoredConversations, extend
from openai_compat.storage import open_storage

pytestmark = pytest.mark.extra("haystack")


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


QUESTION, ANSWER, NEXT = message("user", "Hi"), message("assistant", "Hello"), message("user", "Bye")


def test_messages_are_appended_in_order_or_replaced() -> None:
    store = MemoryConversations()
    store.append("a", [QUESTION, ANSWER], replaces=False)
    store.append("a", [NEXT], replaces=False)
    assert store.load("a") == [QUESTION, ANSWER, NEXT]
    assert store.load("b") == []
    store.append("a", [NEXT], replaces=True)
    assert store.load("a") == [NEXT]


def stored(folder: Path, ttl: float = 0.0) -> StoredConversations:
    return StoredConversations(open_storage(None, str(folder), ttl, 0))


def test_stored_conversations_survive_a_restart(tmp_path: Path) -> None:
    store = stored(tmp_path)
    store.append("a", [QUESTION, ANSWER], replaces=False)
    store.append("a", [NEXT], replaces=False)
    store.append("b", [NEXT], replaces=False)
    again = stored(tmp_path)
    assert again.load("a") == [QUESTION, ANSWER, NEXT]
    assert again.load("b") == [NEXT]
    assert again.load("c") == []
    again.append("a", [NEXT], replaces=True)
    assert store.load("a") == [NEXT]


def test_stored_conversations_expire_and_begin_anew(tmp_path: Path) -> None:
    expiring = stored(tmp_path, ttl=-1)
    expiring.append("a", [QUESTION], replaces=False)
    assert expiring.load("a") == []
    expiring.append("a", [NEXT], replaces=False)
    assert expiring.load("a") == []


def test_a_long_stored_conversation_loses_its_oldest_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_MESSAGES", 3)
    store = stored(tmp_path)
    store.append("a", [QUESTION, ANSWER, NEXT, ANSWER], replaces=False)
    assert store.load("a") == [NEXT, ANSWER]


def test_the_least_recently_updated_conversation_is_removed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_CONVERSATIONS", 2)
    store = MemoryConversations()
    for key in ("a", "b", "a", "c"):
        store.append(key, [QUESTION], replaces=False)
    assert [bool(store.load(key)) for key in "abc"] == [True, False, True]


def test_a_conversation_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryConversations()
    store.append("a", [QUESTION], replaces=False)
    monkeypatch.setattr(conversations, "CONVERSATION_TTL", -1.0)
    assert store.load("a") == []


def test_a_long_conversation_loses_its_oldest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_MESSAGES", 3)
    store = MemoryConversations()
    store.append("a", [QUESTION, ANSWER, NEXT, ANSWER], replaces=False)
    assert store.load("a") == [NEXT, ANSWER]
    monkeypatch.setattr(conversations, "MAX_CHARS", 100)
    store.append("a", [message("user", "x" * 101), ANSWER], replaces=False)
    assert store.load("a") == []


def test_the_arguments_of_tool_calls_count_for_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_CHARS", 200)
    store = MemoryConversations()
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 200}}
    store.append("a", [QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]}, NEXT], replaces=False)
    assert store.load("a") == [NEXT]


def test_all_conversations_together_are_limited_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MAX_TOTAL_BYTES", 1000)
    store = MemoryConversations()
    for key in ("a", "b", "c"):
        store.append(key, [message("user", "é" * 150)], replaces=True)
    assert [bool(store.load(key)) for key in "abc"] == [False, True, True]
    for _ in range(20):
        store.append("c", [message("user", "é" * 150)], replaces=True)
    assert [bool(store.load(key)) for key in "abc"] == [False, True, True]
    store.append("k" * 1001, [QUESTION], replaces=True)
    assert not store.load("k" * 1001)


def test_many_long_conversations_take_no_more_memory_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand took 6 GB. A text of 300,000 characters is below the limit of one conversation."""
    monkeypatch.setattr(conversations, "MAX_TOTAL_BYTES", 5_000_000)
    store = MemoryConversations()
    long = [message("user", "x" * 300_000)]
    tracemalloc.start()
    try:
        for number in range(50):
            store.append(str(number), long, replaces=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 7_000_000
    assert store.load("49") == long


def test_new_system_messages_replace_the_stored_ones() -> None:
    old, new = message("system", "Be brief."), message("developer", "Be kind.")
    assert extend([old, QUESTION, ANSWER], [NEXT]) == ([old, QUESTION, ANSWER, NEXT], False)
    assert extend([old, QUESTION, ANSWER], [new, NEXT]) == ([new, QUESTION, ANSWER, NEXT], False)


def test_messages_with_an_assistant_message_replace_the_stored_conversation() -> None:
    sent = [QUESTION, ANSWER, NEXT]
    assert extend([message("user", "Another"), ANSWER], sent) == (sent, True)
