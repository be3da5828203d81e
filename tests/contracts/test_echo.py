"""Contract tests of the echo model for all three capabilities."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest

from openai_compat.backends.echo.backend import EchoBackend, EchoOptions
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings
from tests.contracts.backend_contract import ChatContract, CompletionsContract, EmbeddingsContract


def make_echo(**options: Any) -> EchoBackend:
    resources = BackendResources(Settings(), http_client=cast(Any, None))
    return EchoBackend(ModelConfig("contract-model", "echo"), EchoOptions(**options), resources)


class EchoFixtures:
    echoes: ClassVar[bool] = True

    @pytest.fixture
    def backend(self) -> EchoBackend:
        return make_echo()

    @pytest.fixture
    def slow_backend(self) -> EchoBackend:
        return make_echo(delay=60)


class TestEchoChat(EchoFixtures, ChatContract):
    refused = (
        ({"temperature": 2.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"tool_choice": "auto"}, "tool_choice"),
    )


class TestEchoCompletions(EchoFixtures, CompletionsContract):
    refused = (({"n": 3, "best_of": 2}, "best_of"), ({"logprobs": 6}, "logprobs"), ({"max_tokens": -1}, "max_tokens"))


class TestEchoEmbeddings(EchoFixtures, EmbeddingsContract):
    dimensions = (1, 2, 64, 3072)
    refused = (({"input": [""]}, "input"), ({"dimensions": 0}, "dimensions"), ({"dimensions": 3073}, "dimensions"))
