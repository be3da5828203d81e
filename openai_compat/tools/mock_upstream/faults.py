"""The models of the mock upstream, each with a meaning and a behaviour: pick a fault by naming its model.

A name may carry parameters (see `options.py`): `fault-slow:delay=0.05,chunks=100`. Any other name is a healthy model
too, so that an alias can be rehearsed under its real name; only an unknown `fault-...` is refused: it is a slip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import corruptions as spoiling
from . import delivery as sending
from .answers import MockAnswer
from .errors import ApiError
from .exchange import Exchange
from .options import Options

HEALTHY = "mock-model"
PREFIX = "fault-"


@dataclass(frozen=True)
class Model:
    """A row of the table. `defaults` are the parameters that the name need not give."""

    name: str
    meaning: str
    behave: Callable[[Exchange, MockAnswer], None]
    defaults: str = ""


_ROWS = (
    Model(HEALTHY, "healthy", sending.send_healthy),
    Model("mock/model-with-slash", "healthy, with a name that has to survive in a path", sending.send_healthy),
    Model("mock-embedding", "healthy, and named for embeddings", sending.send_healthy),
    Model(
        "mock-prefill", "healthy, and goes on where a last message of the assistant's ends", spoiling.continue_prefill
    ),
    # streams and bodies that end too early
    Model("fault-cut", "a clean HTTP end half-way: no finish_reason, no [DONE]", sending.cut),
    Model("fault-cut-mid-event", "the connection closes in the middle of an event", sending.cut_mid_event),
    Model("fault-reset", "a TCP reset half-way", sending.reset),
    Model("fault-reset-before", "a TCP reset before the first byte", sending.reset_before),
    Model("fault-close-before", "the connection closes before the first byte", sending.close_before),
    Model("fault-no-done", "finish_reason and usage, but no [DONE]", spoiling.no_done),
    Model(
        "fault-no-end", "finish_reason and usage, then silence: no [DONE], and the connection stays", spoiling.no_end
    ),
    Model("fault-no-finish", "[DONE], but no finish_reason", spoiling.no_finish),
    Model("fault-truncated-length", "a content-length larger than the body, then a close", sending.truncated_length),
    Model("fault-empty", "200 with an empty body", sending.empty),
    # silence and slowness
    Model("fault-stall", "half an answer, then silence", sending.stall),
    Model("fault-hang", "the request is taken and never answered", sending.hang),
    Model("fault-hang-headers", "the headers, then silence", sending.hang_headers),
    Model("fault-slow-first", "silence before the first byte, then everything", sending.slow_first, "delay=2"),
    Model("fault-slow", "a delay between the pieces", sending.trickle, "delay=0.05,chunks=20"),
    # whole answers in unusual bytes
    Model(
        "fault-split-utf8", "a write for each byte of é, 日 or 🌍", sending.split_utf8, "delay=0.001,suffix= é 日 🌍"
    ),
    Model("fault-one-byte", "a write for each byte", sending.one_byte),
    Model("fault-crlf", "lines that end with CR LF", sending.crlf),
    Model("fault-comments", "comments, event:, id: and retry: lines among the data", sending.comments),
    Model("fault-coalesced", "all events in a single write", sending.coalesced),
    Model("fault-giant-line", "one event of `size` characters", sending.trickle, "chunks=1,size=1048576"),
    Model("fault-gzip", "gzip, whatever the client accepts", sending.compressed),
    Model("fault-close-delimited", "no length, no chunks: the connection ends the body", sending.close_delimited),
    Model("fault-interim", "an interim response (100, 103) before the real one", sending.interim, "code=103"),
    # wrong content
    Model("fault-bad-json", "200 with broken JSON", spoiling.bad_json),
    Model("fault-bad-json-event", "one broken event among good ones", spoiling.bad_json_event),
    Model("fault-error-in-stream", "an error event half-way", spoiling.error_in_stream, "code=500"),
    Model("fault-empty-error", 'an `"error": {}` in every object', spoiling.empty_error),
    Model("fault-empty-choices-first", "Azure's first chunk: no choices", spoiling.empty_choices_first),
    Model("fault-usage-in-last-chunk", "usage beside the finish_reason, unasked", spoiling.usage_in_last_chunk),
    Model("fault-no-usage", "no usage, also when asked", spoiling.no_usage),
    # refusals
    Model("fault-status", "the status `code` in OpenAI's envelope", spoiling.refuse, "code=500"),
    Model("fault-quota", "429 insufficient_quota", spoiling.refuse_quota),
    Model("fault-context-length", "400 context_length_exceeded", spoiling.refuse_length),
    Model("fault-content-filter", "400 content_filter", spoiling.refuse_content),
    Model("fault-html-error", "a proxy's HTML page", spoiling.refuse_as_html, "code=502"),
    Model("fault-databricks-error", "Databricks' error object", spoiling.refuse_as_databricks, "code=400"),
    Model("fault-databricks", "healthy, but refuses stream_options as Databricks does", spoiling.serve_as_databricks),
    Model("fault-vllm-error", "vLLM's error object", spoiling.refuse_as_vllm, "code=400"),
    Model("fault-reject-prefill", "400 for a last message of the assistant's", spoiling.reject_prefill),
    Model("fault-reject-stream-options", "400 for stream_options", spoiling.reject_stream_options),
    Model("fault-reject-max-tokens", "400 for max_tokens", spoiling.reject_max_tokens),
    Model("fault-reject-max-completion-tokens", "400 for max_completion_tokens", spoiling.reject_max_completion_tokens),
)
MODELS = {row.name: row for row in _ROWS}


def find_model(name: str, defaults: Options) -> tuple[Model, Options]:
    """Return the row that `name` chooses and the parameters it carries; raise `ApiError` if it makes no sense."""
    base, _, parameters = name.partition(":")
    row = MODELS.get(base)
    if row is None and base.startswith(PREFIX):
        raise ApiError(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")
    if row is None:
        return MODELS[HEALTHY], defaults
    return row, defaults.updated(row.defaults).updated(parameters)


@dataclass
class FaultCounter:
    """How often, and since when, one exact model name was asked for."""

    requests: int = 0
    since: float = field(default_factory=time.monotonic)


class FaultCounters:
    """Decides whether a fault with `times` or `seconds` still happens."""

    def __init__(self) -> None:
        """Begin with no fault asked for."""
        self._spells: dict[str, FaultCounter] = {}

    def is_over(self, name: str, options: Options) -> bool:
        """Count a request for the model `name`, and tell whether its fault has passed."""
        if not options.times and not options.seconds:
            return False
        spell = self._spells.setdefault(name, FaultCounter())
        spell.requests += 1
        is_used_up = 0 < options.times < spell.requests
        return is_used_up or 0 < options.seconds < time.monotonic() - spell.since

    def reset(self) -> None:
        """Let every fault happen anew."""
        self._spells.clear()
