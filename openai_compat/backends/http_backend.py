"""Base of the backends that pass requests on to an upstream over HTTP, with the upstream's URL and credential."""

from __future__ import annotations

from collections.abc import Mapping

from openai_compat.core.concurrency import ConcurrencyLimiter
from openai_compat.core.errors import UpstreamAuthenticationError
from openai_compat.core.types import CallContext

from .base import Backend
from .http.client import StreamedResponse
from .http.messages import UpstreamRequest


class HTTPBackend(Backend):
    """A backend with one upstream. A subclass sets the attributes in its constructor.

    Attributes:
        _root: URL of the API without a query and a slash at its end.
        _query: Query that is added to every URL.
        _has_credential: True if the model config has a credential for the upstream.
    """

    _root: str
    _query: str
    _has_credential: bool
    _limiter: ConcurrencyLimiter | None

    def to_refusal(self, status: int | None) -> UpstreamAuthenticationError | None:
        """Return the error for a 401 or 403 that concerns this server's credential, or None for any other status."""
        if status not in {401, 403} or self._judges_caller():
            return None
        problem = (
            "refused this server's credential" if self._has_credential else "requires a credential, but none is set"
        )
        return UpstreamAuthenticationError(f"The upstream {problem}.")

    def _judges_caller(self) -> bool:
        """Return True if a 401 or 403 is the caller's own, because the upstream receives the caller's credential."""
        return not (self._has_credential or self.resources.keeps_caller_credential())

    def _send(self, call: UpstreamRequest, headers: Mapping[str, str], context: CallContext) -> StreamedResponse:
        return self.resources.http_client.send(
            call.method,
            self._url(call.path),
            headers=headers,
            timeouts=self.entry.timeouts,
            context=context,
            body=call.body,
            body_length=call.body_length,
            is_repeatable=call.is_repeatable,
            limiter=self._limiter,
            redactor=self.redactor,
        )

    def _url(self, path: str) -> str:
        path, _, query = path.partition("?")
        joined = "&".join(part for part in (self._query, query) if part)
        return f"{self._root}/{path}?{joined}" if joined else f"{self._root}/{path}"
