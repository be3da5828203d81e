"""What all backends of a process share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import UpstreamBusyError

if TYPE_CHECKING:
    from openai_compat.backends.http.client import UpstreamClient
    from openai_compat.backends.huggingface.engine_client import EngineClient
    from openai_compat.core.settings import ModelConfig, Settings


@dataclass(frozen=True, slots=True)
class BackendResources:
    """What every backend may share with the rest of the process: the settings, and the way out to other servers."""

    settings: Settings
    forwarder: UpstreamClient
    engine: EngineClient | None = None
    """The process with the local models; None where there are none."""

    def gate(self, entry: ModelConfig) -> ConcurrencyLimiter | None:
        """What the entry's calls to its upstream have to pass, where their number is bounded."""
        settings = self.settings
        most = entry.max_concurrent
        return (
            ConcurrencyLimiter(most, settings.max_queued_requests, settings.request_queue_timeout, UpstreamBusyError)
            if most
            else None
        )
