"""Reasoning that clients keep for the server."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from openai_compat.services.responses.sealing import Reasoning, ReasoningSealer

THOUGHT = "The user wants é and 🌍."


def test_servers_with_one_secret_open_each_others_reasoning() -> None:
    sealed = ReasoningSealer("a secret").seal(THOUGHT, model="m")
    assert ReasoningSealer("a secret").open(sealed, "m") == Reasoning(THOUGHT)
    assert ReasoningSealer("another secret").open(sealed, "m") == Reasoning()
    assert ReasoningSealer(None).open(sealed, "m") == Reasoning()


def test_a_client_can_neither_read_nor_change_it() -> None:
    sealer = ReasoningSealer(None)
    sealed = sealer.seal(THOUGHT, model="m")
    content = urlsafe_b64decode(sealed)
    assert THOUGHT.encode() not in content
    for position in (0, 20, len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1
        assert sealer.open(urlsafe_b64encode(changed).decode(), "m") == Reasoning()


def test_it_is_for_the_model_that_wrote_it() -> None:
    sealer = ReasoningSealer(None)
    assert sealer.open(sealer.seal(THOUGHT, model="m"), "other") == Reasoning()


def test_two_seals_of_one_text_differ() -> None:
    sealer = ReasoningSealer(None)
    assert sealer.seal(THOUGHT, model="m") != sealer.seal(THOUGHT, model="m")


@pytest.mark.parametrize("sealed", ["", "x", "not base64 é", "AAAA", "A" * 40, "gAAAAABo" * 20])
def test_what_another_server_wrote_is_no_error(sealed: str) -> None:
    assert ReasoningSealer("a secret").open(sealed, "m") == Reasoning()


def test_the_text_of_an_item_without_a_seal_is_its_content() -> None:
    sealer = ReasoningSealer(None)
    content = [{"type": "reasoning_text", "text": THOUGHT}, "broken", {"text": None}]
    assert sealer.read({"type": "reasoning", "encrypted_content": "foreign", "content": content}, "m") == Reasoning(
        THOUGHT
    )
    summary = [{"type": "summary_text", "text": "A summary."}]
    assert (
        sealer.read({"type": "reasoning", "summary": summary, "content": None, "encrypted_content": None}, "m")
        == Reasoning()
    )


def test_details_are_sealed_with_the_text() -> None:
    details = [{"type": "reasoning.text", "text": THOUGHT, "signature": "sig"}]
    sealer = ReasoningSealer("a secret")
    assert sealer.open(sealer.seal(THOUGHT, details, model="m"), "m") == Reasoning(THOUGHT, details)
    assert sealer.open(sealer.seal("", details, model="m"), "m") == Reasoning("", details)
