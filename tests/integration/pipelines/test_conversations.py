"""Conversations are kept apart, bounded, and forgotten in time."""

from __future__ import annotations

from typing import Any

import pytest

from openai_compat.sidecars.haystack import conversations as history
from openai_compat.sidecars.haystack.conversations import ConversationsInMemory, continued


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


QUESTION, ANSWER, NEXT = said("user", "Hi"), said("assistant", "Hello"), said("user", "Bye")


def test_what_was_said_is_remembered_in_order() -> None:
    kept = ConversationsInMemory()
    kept.remember("a", [QUESTION, ANSWER], replaces=False)
    kept.remember("a", [NEXT], replaces=False)
    assert kept.recall("a") == [QUESTION, ANSWER, NEXT]
    assert kept.recall("b") == []
    kept.remember("a", [NEXT], replaces=True)
    assert kept.recall("a") == [NEXT]


def test_the_oldest_conversation_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_CONVERSATIONS", 2)
    kept = ConversationsInMemory()
    for key in ("a", "b", "a", "c"):
        kept.remember(key, [QUESTION], replaces=False)
    assert [bool(kept.recall(key)) for key in "abc"] == [True, False, True]


def test_a_conversation_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ConversationsInMemory()
    kept.remember("a", [QUESTION], replaces=False)
    monkeypatch.setattr(history, "FORGET_SECONDS", -1.0)
    assert kept.recall("a") == []


def test_a_long_conversation_loses_its_oldest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_MESSAGES", 3)
    kept = ConversationsInMemory()
    kept.remember("a", [QUESTION, ANSWER, NEXT, ANSWER], replaces=False)
    assert kept.recall("a") == [NEXT, ANSWER]
    monkeypatch.setattr(history, "MOST_CHARACTERS", 10)
    kept.remember("a", [said("user", "x" * 11), ANSWER], replaces=False)
    assert kept.recall("a") == []


def test_new_instructions_take_the_place_of_older_ones() -> None:
    old, new = said("system", "Be brief."), said("developer", "Be kind.")
    assert continued([old, QUESTION, ANSWER], [NEXT]) == ([old, QUESTION, ANSWER, NEXT], False)
    assert continued([old, QUESTION, ANSWER], [new, NEXT]) == ([new, QUESTION, ANSWER, NEXT], False)


def test_a_client_that_sends_answers_brings_the_whole_conversation() -> None:
    sent = [QUESTION, ANSWER, NEXT]
    assert continued([said("user", "Another"), ANSWER], sent) == (sent, True)
