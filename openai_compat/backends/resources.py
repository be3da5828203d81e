"""Resources that all backends of a process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import UpstreamBusyError
from openai_compat.core.former_names import warn_renamed

from .auth.token_cache import TokenCache

if TYPE_CHECKING:
    from openai_compat.backends.http.client import UpstreamClient
    from openai_compat.backends.local.engine_client import EngineClient
    from openai_compat.core.settings import ModelConfig, Settings


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class BackendResources:
    """The settings, the HTTP client for upstreams, and the other objects that a backend may share with the process."""

    settings: Settings
    http_client: UpstreamClient
    engine: EngineClient | None = None
    """The client of the process with the local models, or None if none are configured."""
    tokens: TokenCache = field(default_factory=TokenCache)
    """OAuth tokens for upstreams."""
    limiters: list[ConcurrencyLimiter] = field(default_factory=list)
    """The concurrency limiters of all upstreams."""
    has_accounts: Callable[[], bool] = _never
    """Returns True once callers need the key of an account."""

    def keeps_caller_credential(self) -> bool:
        """Return True if callers' credentials are for this server alone, so that no upstream gets them."""
        return bool(self.settings.api_keys) or self.has_accounts()

    def limiter_for(self, entry: ModelConfig) -> ConcurrencyLimiter | None:
        """Return a concurrency limiter for the model's upstream calls, or None if `max_concurrent` is 0."""
        if not entry.max_concurrent:
            return None
        settings = self.settings
        limiter = ConcurrencyLimiter(
            entry.max_concurrent, settings.max_queued_requests, settings.request_queue_timeout, UpstreamBusyError
        )
        self.limiters.append(limiter)
        return limiter

    @property
    def forwarder(self) -> UpstreamClient:
        """Former name of `http_client`, for third-party backends."""
        warn_renamed("resources.forwarder", "resources.http_client")
        return self.http_client

    def gate(self, entry: ModelConfig) -> ConcurrencyLimiter | None:
        """Former name of `limiter_for`, for third-party backends."""
        warn_renamed("resources.gate", "resources.limiter_for")
        return self.limiter_for(entry)
