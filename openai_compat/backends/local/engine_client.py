"""Client of the engine process in each worker, which knows its address and starts it on demand."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from openai_compat.backends.runtime_dir import PREFIX, socket_url, temporary_parent
from openai_compat.backends.sidecar_client import SidecarClient
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import ModelBusyError, ModelUnavailableError
from openai_compat.core.settings import Settings

from .engine_config import EngineConfig, to_engine_config

log = logging.getLogger(__name__)


class EngineClient(SidecarClient):
    """Client of the engine that serves all local models of an application. It does nothing until one is used."""

    title = "engine for local models"

    def __init__(self, settings: Settings) -> None:
        self.config: EngineConfig = to_engine_config(settings)
        super().__init__(_runtime_path(settings), self.config.identity)

    def command(self) -> Sequence[str]:
        return sys.executable, "-m", "openai_compat.sidecars.huggingface"

    def configuration(self) -> bytes:
        return self.config.to_json().encode()

    def model_url(self, name: str) -> str:
        """Return the address of the process that runs a model beside the engine."""
        return socket_url(self.config.socket_path(self._runtime_dir.path, name))

    def preload(self) -> None:
        """Start the engine in the background if the settings list models to preload."""
        if self.config.preload:
            threading.Thread(target=self._start_and_log_errors, name="start-engine", daemon=True).start()

    def _start_and_log_errors(self) -> None:
        try:
            self.start(CancellationToken())
        except (ModelUnavailableError, ModelBusyError) as error:
            log.error("PRELOAD_MODELS: %s", error.message)


def _runtime_path(settings: Settings) -> Path:
    """Return the server's runtime directory, which gunicorn's configuration makes, else one for this process alone."""
    if settings.local_runtime_dir is not None:
        return Path(settings.local_runtime_dir)
    return temporary_parent() / f"{PREFIX}{os.getpid()}-{token_hex(4)}"
