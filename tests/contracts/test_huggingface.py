"""Contract tests of the HuggingFace backend in a worker, with a real engine that serves the echo model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.huggingface.backend import HuggingFaceBackend
from openai_compat.backends.local.engine_client import EngineClient
from openai_compat.backends.resources import BackendResources
from openai_compat.config import environment
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.settings import Settings
from openai_compat.routing.router import build_backend
from tests.contracts.backend_contract import ChatContract
from tests.support.local_models import LOADER


class LocalBackends:
    """Backends of one engine, which ends when they are closed."""

    def __init__(self, settings: Settings) -> None:
        self.engine = EngineClient(settings)
        self.forwarder = UpstreamClient(settings)
        resources = BackendResources(settings, self.forwarder, self.engine)
        self.backends = {name: build_backend(entry, resources) for name, entry in settings.entries.items()}

    def close(self) -> None:
        self.forwarder.close()
        self.engine.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBackends]:
    file = tmp_path_factory.mktemp("contract") / "models.json"
    entries = [
        {"name": "contract-model", "hf_repo": "x"},
        {"name": "slow", "hf_repo": "delay=60"},
    ]
    file.write_text(json.dumps(entries))
    backends = LocalBackends(environment.load({"MODELS_FILE": str(file), "LOCAL_MODEL_LOADER": LOADER}))
    yield backends
    backends.close()


class TestHuggingFaceChat(ChatContract):
    echoes = True
    depends_on_the_model: ClassVar[frozenset[str]] = frozenset({"audio", "web_search_options", "logit_bias"})

    @pytest.fixture
    def backend(self, local: LocalBackends) -> Any:
        return local.backends["contract-model"]

    @pytest.fixture
    def slow_backend(self, local: LocalBackends, monkeypatch: pytest.MonkeyPatch) -> Any:
        backend = local.backends["slow"]
        monkeypatch.setattr(type(self), "model", "slow")
        return backend

    def running_work(self, backend: HuggingFaceBackend) -> int:
        return int(backend.describe().get("callers", 0))

    def supported_parameters(self, backend: Any) -> frozenset[str]:
        return super().supported_parameters(backend) - self.depends_on_the_model

    @pytest.mark.skip(
        "an engine sends its headers with the first event, and the web layer sends keep-alive comments until then"
    )
    def test_an_idle_gap_yields_heartbeats(self, slow_backend: Any) -> None:
        """See `DeferredStream` in `web/respond.py`."""

    @pytest.mark.skip("a call returns with its first event, so that `test_cancelled_while_it_waits` covers this case")
    def test_closing_before_the_first_delta_ends_the_work(self, slow_backend: Any) -> None:
        """A stream that exists has its first event."""


def test_the_engine_is_another_process(local: LocalBackends) -> None:
    assert local.backends["contract-model"].describe()["process"] not in {os.getpid(), os.getppid()}


def test_the_state_of_a_model_with_slash_and_space_in_its_name_is_found(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"name": "org/my model", "hf_repo": "x", "max_context_tokens": 7}]))
    backends = LocalBackends(
        environment.load({"MODELS_FILE": str(file), "LOCAL_MODEL_LOADER": LOADER, "PRELOAD_MODELS": "org/my model"})
    )
    try:
        backends.engine.start(CancellationToken())
        assert backends.backends["org/my model"].describe()["state"] in {"loading", "ready"}
    finally:
        backends.close()
