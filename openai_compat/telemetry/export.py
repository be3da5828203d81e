"""Export of spans by OpenTelemetry's SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from openai_compat.core.observation import AttemptRecord, EndedRequest
from openai_compat.core.settings import ModelConfig
from openai_compat.core.trace import Trace
from openai_compat.core.version import __version__

from .attributes import Attributes, attempt_attributes, call_attributes, operation_of
from .content import content_attributes

BATCH: Final = 64
"""Spans that are encoded at once, which takes about 2 ms."""
CLOSE_SECONDS: Final = 2.0
DEFAULT_NAME: Final = "openai-compat"
_UNKNOWN: Final = "unknown_service"
_SCOPE: Final = InstrumentationScope("openai_compat", __version__)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NANO: Final = 1e9


class SpanExport:
    """Makes the spans of ended calls and sends them to a collector.

    The SDK makes a span in 110 µs while a request runs. These are made once it has ended, in a tenth of that.
    """

    def __init__(self, endpoint: str, entries: Mapping[str, ModelConfig], *, captures_content: bool) -> None:
        """Send to `endpoint`. `entries` are the model configs by name."""
        self._entries = entries
        self._captures_content = captures_content
        self._resource = _resource()
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._processor = BatchSpanProcessor(self._exporter, max_export_batch_size=BATCH)

    def add(self, ended: EndedRequest, trace: Trace) -> None:
        """Queue the span of the call, and one for each attempt. A full queue drops them and logs it."""
        content = content_attributes(trace) if self._captures_content else {}
        clock = time.time_ns() - time.perf_counter() * _NANO
        context = _to_context(trace, trace.span_id)
        parent = None if trace.parent_id is None else _to_context(trace, trace.parent_id, is_remote=True)
        attempts = ended.attempts or [_only_attempt(ended, trace)]
        for attempt in attempts:
            error = attempt.error or (ended.error if ended.is_failure and attempt is attempts[-1] else None)
            self._add(
                f"{operation_of(ended)} {attempt.target}",
                _to_context(trace, attempt.span_id),
                context,
                SpanKind.CLIENT,
                attempt_attributes(ended, attempt, error, self._entries.get(attempt.target) or ended.served),
                error,
                clock + attempt.started_at * _NANO,
                clock + (attempt.ended_at or ended.ended_at) * _NANO,
            )
        self._add(
            f"{operation_of(ended)} {ended.model}",
            context,
            parent,
            SpanKind.SERVER,
            call_attributes(ended, trace) | content,
            ended.error if ended.is_failure else None,
            clock + ended.started_at * _NANO,
            clock + ended.ended_at * _NANO,
        )

    def _add(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        error: str | None,
        start: float,
        end: float,
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                kind=kind,
                status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
                start_time=int(start),
                end_time=int(end),
                instrumentation_scope=_SCOPE,
            )
        )

    def close(self) -> None:
        """Send what is queued, and stop. A collector that does not answer is given up after `CLOSE_SECONDS`."""
        limit = threading.Timer(CLOSE_SECONDS, self._exporter.shutdown)
        limit.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        limit.cancel()


def _only_attempt(ended: EndedRequest, trace: Trace) -> AttemptRecord:
    """Return the attempt of a call that was passed through, which lasts as long as the call."""
    target = ended.served_by or ended.model
    return AttemptRecord(target, ended.started_at, ended.first_token_at, ended.ended_at, span_id=trace.attempt_id)


def _to_context(trace: Trace, span_id: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace.trace_id, span_id, is_remote, _SAMPLED)


def _resource() -> Resource:
    """Return what the spans come from. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are read by the SDK."""
    found = Resource.create({SERVICE_VERSION: __version__})
    if not str(found.attributes.get(SERVICE_NAME, _UNKNOWN)).startswith(_UNKNOWN):
        return found
    return found.merge(Resource({SERVICE_NAME: DEFAULT_NAME}))
