"""Conversations are kept apart, bounded, and forgotten in time."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.sidecars.haystack import conversations as history
from openai_compat.sidecars.haystack.conversations import MemoryConversations, extend


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


QUESTION, ANSWER, NEXT = said("user", "Hi"), said("assistant", "Hello"), said("user", "Bye")


def test_what_was_said_is_remembered_in_order() -> None:
    kept = MemoryConversations()
    kept.append("a", [QUESTION, ANSWER], replaces=False)
    kept.append("a", [NEXT], replaces=False)
    assert kept.load("a") == [QUESTION, ANSWER, NEXT]
    assert kept.load("b") == []
    kept.append("a", [NEXT], replaces=True)
    assert kept.load("a") == [NEXT]


def test_the_oldest_conversation_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_CONVERSATIONS", 2)
    kept = MemoryConversations()
    for key in ("a", "b", "a", "c"):
        kept.append(key, [QUESTION], replaces=False)
    assert [bool(kept.load(key)) for key in "abc"] == [True, False, True]


def test_a_conversation_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = MemoryConversations()
    kept.append("a", [QUESTION], replaces=False)
    monkeypatch.setattr(history, "CONVERSATION_TTL", -1.0)
    assert kept.load("a") == []


def test_a_long_conversation_loses_its_oldest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_MESSAGES", 3)
    kept = MemoryConversations()
    kept.append("a", [QUESTION, ANSWER, NEXT, ANSWER], replaces=False)
    assert kept.load("a") == [NEXT, ANSWER]
    monkeypatch.setattr(history, "MAX_CHARS", 10)
    kept.append("a", [said("user", "x" * 11), ANSWER], replaces=False)
    assert kept.load("a") == []


def test_new_instructions_take_the_place_of_older_ones() -> None:
    old, new = said("system", "Be brief."), said("developer", "Be kind.")
    assert extend([old, QUESTION, ANSWER], [NEXT]) == ([old, QUESTION, ANSWER, NEXT], False)
    assert extend([old, QUESTION, ANSWER], [new, NEXT]) == ([new, QUESTION, ANSWER, NEXT], False)


def test_a_client_that_sends_answers_brings_the_whole_conversation() -> None:
    sent = [QUESTION, ANSWER, NEXT]
    assert extend([said("user", "Another"), ANSWER], sent) == (sent, True)
