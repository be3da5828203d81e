"""Models of the mock upstream, each with a behaviour. A client chooses a fault by the model's name.

A name may carry options (see `options.py`), as in `fault-slow:delay=0.05,chunks=100`. Any other name is a healthy
model, so that a client can use the names of real models. An unknown name that begins with `fault-` is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import corruptions, delivery
from .answers import MockAnswer
from .errors import ApiError
from .exchange import Exchange
from .options import Options

HEALTHY = "mock-model"
FAULT_PREFIX = "fault-"


@dataclass(frozen=True)
class Model:
    """A model and its behaviour. `defaults` are the options that apply unless the name has others."""

    name: str
    meaning: str
    behave: Callable[[Exchange, MockAnswer], None]
    defaults: str = ""


_MODELS = (
    Model(HEALTHY, "healthy", delivery.send_healthy),
    Model("mock/model-with-slash", "healthy, with a slash in its name", delivery.send_healthy),
    Model("mock-embedding", "healthy, for embeddings", delivery.send_healthy),
    Model("mock-prefill", "healthy, continues a final assistant message", corruptions.continue_prefill),
    # streams and bodies that end too early
    Model("fault-cut", "ends the HTTP body properly half-way, without finish_reason and [DONE]", delivery.cut),
    Model("fault-cut-mid-event", "closes the connection in the middle of an event", delivery.cut_mid_event),
    Model("fault-reset", "resets the TCP connection half-way", delivery.reset),
    Model("fault-reset-before", "resets the TCP connection before the first byte", delivery.reset_before),
    Model("fault-close-before", "closes the connection before the first byte", delivery.close_before),
    Model("fault-no-done", "sends finish_reason and usage, but no [DONE]", corruptions.no_done),
    Model(
        "fault-no-end",
        "sends finish_reason and usage, but no [DONE], and keeps the connection open",
        corruptions.no_end,
    ),
    Model("fault-no-finish", "sends [DONE], but no finish_reason", corruptions.no_finish),
    Model(
        "fault-truncated-length",
        "sends a content-length larger than the body, then closes the connection",
        delivery.truncated_length,
    ),
    Model("fault-empty", "returns 200 with an empty body", delivery.empty),
    # stalled and slow responses
    Model("fault-stall", "stops sending half-way and keeps the connection open", delivery.stall),
    Model("fault-hang", "reads the request and never responds", delivery.hang),
    Model("fault-hang-headers", "sends the headers and nothing more", delivery.hang_headers),
    Model("fault-slow-first", "waits before the first byte, then sends everything", delivery.slow_first, "delay=2"),
    Model("fault-slow", "waits between the chunks", delivery.trickle, "delay=0.05,chunks=20"),
    # complete responses in unusual bytes
    Model(
        "fault-split-utf8",
        "sends each byte of é, 日 or 🌍 in a write of its own",
        delivery.split_utf8,
        "delay=0.001,suffix= é 日 🌍",
    ),
    Model("fault-one-byte", "sends each byte in a write of its own", delivery.one_byte),
    Model("fault-crlf", "ends lines with CR LF", delivery.crlf),
    Model("fault-comments", "adds comments and event:, id: and retry: lines", delivery.comments),
    Model("fault-coalesced", "sends all events in a single write", delivery.coalesced),
    Model("fault-giant-line", "sends one event of `size` characters", delivery.trickle, "chunks=1,size=1048576"),
    Model("fault-gzip", "compresses with gzip, even if the client does not accept it", delivery.compressed),
    Model(
        "fault-close-delimited",
        "sends neither a content-length nor HTTP chunks, so that the body ends with the connection",
        delivery.close_delimited,
    ),
    Model("fault-interim", "sends an interim response (100, 103) before the real one", delivery.interim, "code=103"),
    # wrong content
    Model("fault-bad-json", "returns 200 with invalid JSON", corruptions.bad_json),
    Model("fault-bad-json-event", "sends one invalid event among valid ones", corruptions.bad_json_event),
    Model("fault-error-in-stream", "sends an error event half-way", corruptions.error_in_stream, "code=500"),
    Model("fault-empty-error", 'adds `"error": {}` to every object', corruptions.empty_error),
    Model("fault-empty-choices-first", "begins with a chunk without choices", corruptions.empty_choices_first),
    Model(
        "fault-usage-in-last-chunk",
        "sends usage in the chunk with finish_reason, even if not requested",
        corruptions.usage_in_last_chunk,
    ),
    Model("fault-no-usage", "sends no usage, even if requested", corruptions.no_usage),
    Model("fault-no-responses", "has no Responses API (404)", corruptions.no_responses),
    # error responses
    Model("fault-status", "returns the status `code` with OpenAI's error", corruptions.status_error, "code=500"),
    Model("fault-quota", "returns 429 insufficient_quota", corruptions.quota_error),
    Model("fault-context-length", "returns 400 context_length_exceeded", corruptions.context_length_error),
    Model("fault-content-filter", "returns 400 content_filter", corruptions.content_filter_error),
    Model("fault-html-error", "returns the HTML page of a proxy", corruptions.html_error, "code=502"),
    Model("fault-databricks-error", "returns Databricks' error object", corruptions.databricks_error, "code=400"),
    Model(
        "fault-databricks",
        "healthy, but rejects stream_options as Databricks does",
        corruptions.reject_stream_options_as_databricks,
    ),
    Model("fault-vllm-error", "returns vLLM's error object", corruptions.vllm_error, "code=400"),
    Model("fault-reject-prefill", "returns 400 for a final assistant message", corruptions.reject_prefill),
    Model("fault-reject-stream-options", "returns 400 for stream_options", corruptions.reject_stream_options),
    Model("fault-reject-max-tokens", "returns 400 for max_tokens", corruptions.reject_max_tokens),
    Model(
        "fault-reject-max-completion-tokens",
        "returns 400 for max_completion_tokens",
        corruptions.reject_max_completion_tokens,
    ),
)
MODELS = {model.name: model for model in _MODELS}


def find_model(name: str, defaults: Options) -> tuple[Model, Options]:
    """Return the model that a name chooses, and its options.

    Raises:
        ApiError: the name begins with `fault-` and is unknown, or its options are invalid.
    """
    base, _, parameters = name.partition(":")
    model = MODELS.get(base)
    if model is None and base.startswith(FAULT_PREFIX):
        raise ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")
    if model is None:
        return MODELS[HEALTHY], defaults
    return model, defaults.updated(model.defaults).updated(parameters)


@dataclass
class FaultCounter:
    """Number of requests for one exact model name, and the time of the first."""

    requests: int = 0
    started: float = field(default_factory=time.monotonic)


class FaultCounters:
    """Counters that end faults with the options `times` or `seconds`."""

    def __init__(self) -> None:
        self._counters: dict[str, FaultCounter] = {}

    def is_over(self, name: str, options: Options) -> bool:
        """Count a request for the model `name`. Return True if its fault is over."""
        if not options.times and not options.seconds:
            return False
        counter = self._counters.setdefault(name, FaultCounter())
        counter.requests += 1
        is_used_up = 0 < options.times < counter.requests
        return is_used_up or 0 < options.seconds < time.monotonic() - counter.started

    def reset(self) -> None:
        """Let every fault occur again."""
        self._counters.clear()
