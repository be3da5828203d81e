"""Embeddings of many inputs, which are built and encoded in turns with other calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from openai_compat.backends.echo.backend import EchoBackend, EchoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core import turns
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.tokens import TokenCounter
from openai_compat.core.types import CallContext
from openai_compat.services import embeddings, openai_objects
from openai_compat.services.embeddings import EmbeddingService
from openai_compat.services.openai_objects import to_json, to_json_in_turns
from openai_compat.services.token_decoder import TokenDecoder

ECHO = EchoBackend(ModelConfig("m", "echo"), EchoOptions(), BackendResources(Settings(), http_client=cast(Any, None)))
ANSWERS: Sequence[Mapping[str, Any]] = (
    {"object": "list", "data": [{"a": [0.5, 1.0]}, {"b": "é\ud800"}], "usage": {"total_tokens": 3}},
    {"data": [], "nested": [{"a": [{"b": None}]}], "empty": {}},
    {"data": "what a hook made of it", "object": "list"},
    {"object": "list"},
)


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_encoded_in_turns_has_the_same_bytes(answer: Mapping[str, Any], depth: int) -> None:
    assert to_json_in_turns(answer, depth) == to_json(answer)


def test_other_calls_get_turns_between_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each embedding is made, checked and encoded in slices of its own."""
    service = EmbeddingService(TokenCounter(), TokenDecoder())
    taken: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", taken.append)
    for module in (embeddings, openai_objects):
        monkeypatch.setattr(module, "TimeSlices", lambda: turns.TimeSlices(0.0))
    answer, _, _ = service.create(ECHO, "m", {"input": ["x"] * 100}, CallContext("r"))
    built = len(taken)
    assert len(json.loads(to_json_in_turns(answer, 2))["data"]) == 100
    assert built >= 200
    assert len(taken) - built >= 100
