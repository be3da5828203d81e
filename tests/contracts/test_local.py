"""Contract tests of local models, for all three capabilities, as the engine's threads use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from openai_compat.core.streams import close_stream
from openai_compat.core.types import CallContext, CompletionRequest
from tests.contracts.backend_contract import ChatContract, CompletionsContract, EmbeddingsContract
from tests.support.tiny_models import TOOL_TEMPLATE, save_encoder, save_reciting_model
from tests.support.tools import require_extra

pytestmark = require_extra("local")

from openai_compat.backends.huggingface.model_options import LocalModel  # noqa: E402 - torch may not be installed
from openai_compat.sidecars.huggingface.models.loading import load_model  # noqa: E402

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reciting_model(tmp_path_factory.mktemp("reciting"), TOOL_TEMPLATE, window=512)


@pytest.fixture(scope="module")
def endless_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reciting_model(tmp_path_factory.mktemp("endless"), TOOL_TEMPLATE, window=2 * ENDLESS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


class LocalFixtures:
    waiting_behind: ClassVar[dict[int, Any]] = {}

    def begin(self, backend: Any, text: str, context: CallContext | None = None, **parameters: Any) -> Iterator[Any]:
        """Begin a call with a seed, because the random text of a model may fill the complete context window."""
        stream: Iterator[Any] = super().begin(backend, text, context, seed=1, **parameters)  # type: ignore[misc]
        return stream

    @pytest.fixture
    def backend(self, folder: Path) -> Iterator[Any]:
        model = load_model(LocalModel(name="contract-model", hf_repo=str(folder), device="cpu"), str)
        yield model
        model.close()

    @pytest.fixture
    def slow_backend(self, endless_folder: Path) -> Iterator[Any]:
        """Yield a model with a single slot, which another call occupies."""
        entry = LocalModel(name="contract-model", hf_repo=str(endless_folder), device="cpu", max_batch=1)
        model: Any = load_model(entry, str)
        bias = {str(model._first_token()): -100}
        request = CompletionRequest("contract-model", ["a"], {"max_tokens": ENDLESS, "logit_bias": bias})
        occupant = model.complete(request, CallContext("occupant"))
        next(occupant)
        self.waiting_behind[id(model)] = occupant
        yield model
        close_stream(self.waiting_behind.pop(id(model)))
        model.close()

    def running_work(self, backend: Any) -> int:
        return int(backend.running_calls) - (id(backend) in self.waiting_behind)


class TestLocalChat(LocalFixtures, ChatContract):
    refused = (
        ({"temperature": 2.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"999999999": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}}, "response_format"),
    )


class TestLocalCompletions(LocalFixtures, CompletionsContract):
    refused = (({"n": 3, "best_of": 2}, "best_of"), ({"logprobs": 6}, "logprobs"), ({"max_tokens": -1}, "max_tokens"))


class TestLocalEmbeddings(EmbeddingsContract):
    dimensions = (1, 2, 24)
    refused = (({"input": [""]}, "input"), ({"dimensions": 0}, "dimensions"), ({"dimensions": 25}, "dimensions"))

    @pytest.fixture
    def backend(self, encoder: Path) -> Iterator[Any]:
        model = load_model(LocalModel(name="contract-model", hf_repo=str(encoder), device="cpu"), str)
        yield model
        model.close()
