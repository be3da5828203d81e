"""Fake loader of local models (`LOCAL_MODEL_LOADER`), which loads the echo model.

`hf_repo` configures it by options with commas between them, such as `slow=0.5,mb=100`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openai_compat.backends.base import Backend, SupportsCompletions
from openai_compat.backends.echo.backend import EchoBackend, EchoOptions
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.resources import BackendResources
from openai_compat.core.errors import ModelUnavailableError
from openai_compat.core.settings import ModelConfig, Settings
from openai_compat.core.streams import Heartbeat
from openai_compat.core.types import CallContext, CompletionRequest, TextDelta

LOADER = f"{__name__}:load_model"


def load_model(entry: LocalModel, progress: Callable[[str], None]) -> Backend:
    """Load the echo model by the options in `hf_repo`.

    `slow=SECONDS` delays loading, and `delay=SECONDS` each token. `mb=MEGABYTES` is the reported memory.
    `counts=FILE` appends a line to the file. `kind=completions` makes a model that cannot chat.
    `fails` and `breaks` raise an expected and an unexpected error, and `dies` kills the process.
    """
    options = dict(word.partition("=")[::2] for word in entry.hf_repo.split(","))
    progress(f"loading {entry.name}")
    if "counts" in options:
        with Path(options["counts"]).open("a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(float(options.get("slow", 0)))
    if "fails" in options:
        raise ModelUnavailableError(f"The model '{entry.name}' has no weights.")
    if "breaks" in options:
        raise RuntimeError("/secret/path")
    if "dies" in options:
        os.kill(os.getpid(), signal.SIGKILL)
    settings = Settings()
    resources = BackendResources(settings, UpstreamClient(settings))
    kind = CompletesOnly if options.get("kind") == "completions" else LocalEcho
    return kind(entry, float(options.get("delay", 0)), int(options.get("mb", 1)) * 1_000_000, resources)


def estimate_bytes(entry: LocalModel) -> int | None:
    """Return the size in the option `estimate=MEGABYTES`."""
    _, option, rest = entry.hf_repo.partition("estimate=")
    return int(rest.partition(",")[0]) * 1_000_000 if option else None


class LocalEcho(EchoBackend):
    """Echo model with the attributes of a local model."""

    def __init__(self, entry: LocalModel, delay: float, memory_bytes: int, resources: BackendResources) -> None:
        super().__init__(ModelConfig(entry.name, "huggingface"), EchoOptions(delay=delay), resources)
        self.memory_bytes = memory_bytes
        self.context_window = entry.max_context_tokens or entry.default_context_tokens

    def describe(self) -> dict[str, Any]:
        return {"process": os.getpid()}


class CompletesOnly(Backend, SupportsCompletions):
    """Model without a chat template."""

    supported_completion_parameters = EchoBackend.supported_completion_parameters

    def __init__(self, *arguments: Any) -> None:
        self._echo = LocalEcho(*arguments)
        super().__init__(self._echo.entry, None, self._echo.resources)
        self.memory_bytes, self.context_window = self._echo.memory_bytes, self._echo.context_window

    def complete(self, request: CompletionRequest, context: CallContext) -> Iterator[TextDelta | Heartbeat]:
        return self._echo.complete(request, context)
