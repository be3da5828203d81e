"""Contract tests of the external backend with chat APIs of many forms on real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from openai_compat.backends.external.backend import ExternalBackend, ExternalOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.resources import BackendResources
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import close_stream
from openai_compat.core.types import CallContext, ChatRequest
from tests.contracts.backend_contract import ChatContract, collect
from tests.support.chat_api import ChatAPI, Form
from tests.support.waiting import wait_until


class ExternalBackendAndAPI(ExternalBackend):
    """Backend under test, together with its API."""

    api: ChatAPI


def start(form: Form, delay: float = 0.0, **options: Any) -> Iterator[ExternalBackendAndAPI]:
    settings = Settings()
    forwarder = UpstreamClient(settings)
    with ChatAPI(form, delay) as api:
        entry = ModelConfig("contract-model", "external", base_url=api.url)
        backend = ExternalBackendAndAPI(entry, ExternalOptions(**options), BackendResources(settings, forwarder))
        backend.api = api
        yield backend
        forwarder.close()


class ExternalContract(ChatContract):
    echoes = True
    form: ClassVar[Form]
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def backend(self) -> Iterator[ExternalBackendAndAPI]:
        yield from start(self.form, **self.options)

    @pytest.fixture
    def slow_backend(self) -> Iterator[ExternalBackendAndAPI]:
        yield from start(self.form, delay=60, **self.options)

    def running_work(self, backend: ExternalBackendAndAPI) -> int:
        return backend.api.running


class TestJSONDocument(ExternalContract):
    form = "document"


class TestDeclared(ExternalContract):
    """Ollama's lines, as a declaration describes them."""

    form = "lines"
    options: ClassVar[dict[str, Any]] = {
        "request": {
            "body": {
                "messages": "{{ messages }}",
                "stop": "{{ stop }}",
                "max_tokens": "{{ max_tokens || max_completion_tokens }}",
                "stream": "{{ stream }}",
            }
        },
        "reply": {
            "format": "ndjson",
            "text": "message.content",
            "finish_reason": "done_reason",
            "done": "done",
            "usage": {"prompt_tokens": "prompt_eval_count", "completion_tokens": "eval_count"},
        },
    }


class TestEvents(ExternalContract):
    """Events with a top-level `content` and `finish_reason`."""

    form = "events"
    has_usage = False


class TestLines(ExternalContract):
    """Ollama's lines of JSON."""

    form = "lines"


class TestOpenAIChunks(ExternalContract):
    form = "openai"


class TestPlainText(ExternalContract):
    form = "text"
    has_usage = False

    def supported_parameters(self, backend: Any) -> frozenset[str]:
        """Exclude the limits, because plain text cannot report `length`. The other forms test that limits are sent."""
        return super().supported_parameters(backend) - {"max_tokens", "max_completion_tokens"}


@pytest.mark.parametrize("form", ["document", "events", "lines", "openai", "text"])
def test_streams_closed_at_any_point_leave_no_request_running(form: Form) -> None:
    for backend in start(form):
        request = ChatRequest("contract-model", [{"role": "user", "content": "one two three " * 20}], is_streamed=True)
        for number in range(100):
            stream = backend.chat(request, CallContext("contract"))
            for _ in range(number % 7):
                next(stream, None)
            close_stream(stream)
        wait_until(lambda: backend.api.running == 0)  # noqa: B023 - the loop runs once
        assert collect(backend.chat(request, CallContext("contract")))
