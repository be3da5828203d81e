"""Traces of requests, exported with OTLP over HTTP (extra `otel`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from openai_compat.core import logging as logs
from openai_compat.core.extras import install_hint
from openai_compat.core.observation import EndedRequest
from openai_compat.core.trace import TRACEPARENT, Trace, new_span_id, new_trace_id, parse_traceparent

from .sampling import Sampler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from openai_compat.core.settings import Settings

    from .export import SpanExport

log = logging.getLogger(__name__)

_HEADER: Final = f"HTTP_{TRACEPARENT.upper()}"


class Tracer:
    """Begins a trace for each request, and exports the spans of the sampled ones once they have ended.

    A request costs a few microseconds, and a sampled one those of making its spans. They are encoded and sent in
    batches by a thread (under gevent, a greenlet).
    """

    def __init__(self, export: SpanExport, sampler: Sampler, *, captures_content: bool) -> None:
        self._export = export
        self._sampler = sampler
        self._captures_content = captures_content

    def start(self, environ: WSGIEnvironment) -> Trace:
        """Return the trace that the client sent with its request, or a new one."""
        parent = parse_traceparent(environ.get(_HEADER))
        trace_id, parent_id, was_sampled = parent or (new_trace_id(), None, None)
        is_sampled = self._sampler.is_sampled(trace_id, was_sampled)
        trace = Trace(trace_id, new_span_id(), parent_id, new_span_id(), is_sampled)
        if is_sampled and self._captures_content:
            trace.answer = []
        logs.trace_id.set(trace.id)
        return trace

    def observe(self, ended: EndedRequest) -> None:
        """Export the spans of a call to a model, if it is sampled.

        Its content is dropped, as the log of calls may keep the request in memory while the database is away.
        """
        trace = ended.trace
        if trace is None or not trace.is_sampled:
            return
        if ended.kind:
            self._export.add(ended, trace)
        trace.payload = trace.answer = None

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._export.close()


def open_tracer(settings: Settings) -> Tracer | None:
    """Return the tracer, or None if no collector is configured.

    A platform may set the collector's address for all its programs. Without the extra that is a warning.
    """
    endpoint = _endpoint_of(settings)
    if endpoint is None:
        return None
    try:
        from .export import SpanExport  # 100 ms and 20 MB of libraries
    except ImportError:
        log.warning("no traces are exported, because OTEL_EXPORTER_OTLP_ENDPOINT needs %s", install_hint("otel"))
        return None
    logs.adopt_logger("opentelemetry")
    sampler = Sampler.named(settings.otel_traces_sampler, settings.otel_traces_sampler_arg)
    captures = settings.otel_instrumentation_genai_capture_message_content
    entries = {**settings.entries, **settings.hidden_entries}
    return Tracer(SpanExport(endpoint, entries, captures_content=captures), sampler, captures_content=captures)


def _endpoint_of(settings: Settings) -> str | None:
    """Return the URL for traces. Its own setting has the complete URL (source: OpenTelemetry's OTLP specification)."""
    base = settings.otel_exporter_otlp_endpoint
    return settings.otel_exporter_otlp_traces_endpoint or (base and f"{base.rstrip('/')}/v1/traces")
