"""Process of one model, in which llama.cpp's own server answers the calls of all workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Final

from openai_compat.backends.base import Backend
from openai_compat.backends.llama_cpp.model_options import LlamaCppModel
from openai_compat.core.errors import ModelUnavailableError
from openai_compat.core.settings import ModelConfig

from .gguf_header import GGUFHeader
from .launch import LaunchConfig, ServerState

COMMAND: Final = (sys.executable, "-m", "openai_compat.sidecars.llama_cpp")
LOAD_TIMEOUT: Final = 1800.0
"""Seconds until a process that does not answer is given up, because other models wait for their turn to load."""
END_TIMEOUT: Final = 2.0
"""Seconds until a process that was told to end is killed."""


class LlamaServer(Backend):
    """A loaded model of kind `llama_cpp`. Its calls go to the process's socket."""

    def __init__(self, model: LlamaCppModel, header: GGUFHeader, config: LaunchConfig) -> None:
        """Start the process, and wait until it answers calls.

        Raises:
            ModelUnavailableError: it ended instead, or did not answer for `LOAD_TIMEOUT`.
        """
        super().__init__(ModelConfig(model.name, model.kind), model, None)  # type: ignore[arg-type]  # it sends nothing
        self.context_window = config.window
        template = config.chat_template or header.chat_template
        self.knows_tools = "tools" in template
        self.capabilities = _capabilities(model, config, has_template=bool(template))
        Path(config.socket).unlink(missing_ok=True)  # of a process that was killed
        self._process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own
        self.memory_bytes = self._wait_until_ready(config).memory_bytes

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def describe(self) -> Mapping[str, Any]:
        return {"capabilities": self.capabilities}

    def close(self) -> None:
        """End the process, which frees all memory of the model."""
        with suppress(OSError):
            self._input.close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, config: LaunchConfig) -> ServerState:
        assert self._process.stdin is not None  # noqa: S101 - opened above
        assert self._process.stdout is not None  # noqa: S101 - opened above
        self._input = self._process.stdin
        try:
            self._input.write(config.to_json().encode() + b"\n")
            self._input.flush()
            with self._process.stdout as output, DefaultSelector() as selector:
                selector.register(output, EVENT_READ)
                return ServerState.from_json(output.readline() if selector.select(LOAD_TIMEOUT) else b"")
        except (OSError, ValueError) as error:
            self.close()
            raise ModelUnavailableError(
                f"llama.cpp could not load the model '{config.name}'. The server's log has the details."
            ) from error


def _capabilities(model: LlamaCppModel, config: LaunchConfig, *, has_template: bool) -> list[str]:
    if config.is_embedding:
        return ["embeddings"]
    return list(model.capabilities) or (["chat", "completions"] if has_template else ["completions"])
