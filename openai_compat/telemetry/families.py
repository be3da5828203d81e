"""All metrics, each with its labels and its meaning.

The names that begin with `gen_ai` are those of OpenTelemetry's conventions for generative AI in the form that its
Prometheus exporters give them, with the bucket boundaries of the conventions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from openai_compat.state.worker_slots import EXITS, STARTS

Kind = Literal["counter", "gauge", "histogram"]

DURATION: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS: Final = tuple(4**power for power in range(14))


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. A histogram has one value for each of its `buckets`, one beyond them, and the sum."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """The number of values of a series."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


GEN_AI: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

REQUESTS: Final = Family(
    "openai_compat_requests_total",
    "counter",
    ("endpoint", "model", "status", "error_type"),
    "Requests that have ended. A stream that failed has the status 200 and an `error_type`.",
)
REQUEST_DURATION: Final = Family(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    (*GEN_AI, "error_type"),
    "Time from the start of a call to a model to the end of its answer.",
    DURATION,
)
TIME_TO_FIRST_TOKEN: Final = Family(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    GEN_AI,
    "Time to the first token of a streamed answer.",
    FIRST_TOKEN,
)
TIME_PER_TOKEN: Final = Family(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    GEN_AI,
    "Time for each token after the first one, of streamed answers with known token counts.",
    PER_TOKEN,
)
TOKEN_USAGE: Final = Family(
    "gen_ai_client_token_usage",
    "histogram",
    ("gen_ai_token_type", *GEN_AI),
    "Tokens of a call, as the model reported them (`input`, `output`).",
    TOKENS,
)
TOKEN_DETAILS: Final = Family(
    "openai_compat_token_details_total",
    "counter",
    ("model", "type"),
    "Tokens that are part of the input (`cached`, `cache_write`) or of the output (`reasoning`).",
)
REJECTED: Final = Family(
    "openai_compat_requests_rejected_total",
    "counter",
    ("reason",),
    "Calls that this server refused because of a limit, a budget or a full queue, by the code of the error.",
)
STREAMS: Final = Family(
    "openai_compat_streams_total",
    "counter",
    ("model", "outcome"),
    "Streams that have ended: `complete`, `cut` (ended with an error), `continued` (completed by another target after "
    "a break) or `client_gone`.",
)
ATTEMPTS: Final = Family(
    "openai_compat_upstream_attempts_total",
    "counter",
    ("target", "error_type"),
    "Requests to upstreams and other models, by target.",
)
RETRIES: Final = Family(
    "openai_compat_upstream_retries_total", "counter", ("target",), "Attempts at the target that had just failed."
)
FAILOVERS: Final = Family(
    "openai_compat_upstream_failovers_total",
    "counter",
    ("target",),
    "Attempts at a target because another one had failed.",
)
ATTEMPT_FIRST_TOKEN: Final = Family(
    "openai_compat_upstream_first_token_seconds",
    "histogram",
    ("target",),
    "Time to the start of the target's answer, for streams.",
    FIRST_TOKEN,
)
ATTEMPT_DURATION: Final = Family(
    "openai_compat_upstream_duration_seconds",
    "histogram",
    ("target",),
    "Time from the request to the target to the end of its answer.",
    DURATION,
)
IN_FLIGHT: Final = Family("openai_compat_requests_in_flight", "gauge", (), "Requests that have not ended.")
OPEN_STREAMS: Final = Family("openai_compat_streams_open", "gauge", (), "Streams that have not ended.")
QUEUED: Final = Family(
    "openai_compat_requests_queued",
    "gauge",
    ("queue",),
    "Requests that wait for a slot of `MAX_CONCURRENT_REQUESTS` (`server`) or of an upstream's limit (`upstream`).",
)
IDLE_CONNECTIONS: Final = Family(
    "openai_compat_upstream_connections_idle", "gauge", (), "Idle connections to upstreams in the pool."
)
CONNECTIONS: Final = Family(
    "openai_compat_upstream_connections_total",
    "counter",
    ("kind",),
    "Requests to upstreams over a `new` connection and over a `reused` one.",
)
CIRCUIT: Final = Family(
    "openai_compat_circuit_state",
    "gauge",
    ("target",),
    "Circuit breaker of a target: 0 closed, 1 half-open, 2 open.",
)
STATE_UP: Final = Family("openai_compat_state_store_up", "gauge", (), "1 if the state that workers share is available.")
LEDGER_UP: Final = Family("openai_compat_ledger_up", "gauge", (), "1 if the ledger of limits and budgets is available.")
DATABASE_UP: Final = Family(
    "openai_compat_database_up", "gauge", (), "1 if the database answers. Absent until it is used."
)
LAG: Final = Family(
    "openai_compat_event_loop_lag_seconds",
    "gauge",
    ("worker",),
    "Delay of a timer of the worker in the last second, during which no stream got a turn.",
)
MEMORY: Final = Family(
    "openai_compat_worker_resident_memory_bytes", "gauge", ("worker",), "Resident memory of the worker."
)
CPU: Final = Family("openai_compat_worker_cpu_seconds_total", "counter", (), "CPU time of all workers.")
WORKERS: Final = Family("openai_compat_workers", "gauge", (), "Workers that live, including those that drain.")
WORKER_STARTS: Final = Family(STARTS, "counter", (), "Workers that were started.")
WORKER_EXITS: Final = Family(
    EXITS, "counter", ("kind",), "Workers that ended in an `orderly` way, such as at a reload, or by a `crash`."
)
METER: Final = ("kind", "name", "meter")
LIMIT: Final = Family(
    "openai_compat_limit",
    "gauge",
    METER,
    "Limit of an organization, a project or a key (`requests_per_minute`).",
)
LIMIT_REMAINING: Final = Family("openai_compat_limit_remaining", "gauge", METER, "What is left of a limit.")
BUDGET: Final = Family("openai_compat_budget_dollars", "gauge", METER, "Budget of an organization, a project or a key.")
BUDGET_REMAINING: Final = Family(
    "openai_compat_budget_remaining_dollars", "gauge", METER, "What is left of a budget in its present window."
)
ROWS_DROPPED: Final = Family(
    "openai_compat_usage_rows_dropped_total",
    "counter",
    (),
    "Calls whose usage was lost, because the ledger was away for too long.",
)
CALLS_DROPPED: Final = Family(
    "openai_compat_call_log_dropped_total",
    "counter",
    (),
    "Calls that are missing in the log of calls, because the database was away for too long.",
)
SIDECAR_MEMORY: Final = Family(
    "openai_compat_sidecar_resident_memory_bytes",
    "gauge",
    ("sidecar",),
    "Resident memory of the processes of local models (`engine`) and of pipelines (`haystack`).",
)
MODEL_LOADED: Final = Family(
    "openai_compat_local_model_loaded", "gauge", ("model",), "1 if the local model or the pipeline is loaded."
)
MODEL_CALLS: Final = Family(
    "openai_compat_local_model_calls",
    "gauge",
    ("model",),
    "Calls of the local model or the pipeline that run or wait.",
)
MODEL_MEMORY: Final = Family(
    "openai_compat_local_model_memory_bytes", "gauge", ("model",), "Memory of the local model with its cache."
)
BUILD: Final = Family(
    "openai_compat_build_info", "gauge", ("version", "python"), "Always 1, with the versions as labels."
)

FAMILIES: Final = (
    REQUESTS, REQUEST_DURATION, TIME_TO_FIRST_TOKEN, TIME_PER_TOKEN, TOKEN_USAGE, TOKEN_DETAILS, REJECTED, STREAMS,
    ATTEMPTS, RETRIES, FAILOVERS, ATTEMPT_FIRST_TOKEN, ATTEMPT_DURATION, CIRCUIT, IN_FLIGHT, OPEN_STREAMS, QUEUED,
    CONNECTIONS, IDLE_CONNECTIONS, STATE_UP, LEDGER_UP, DATABASE_UP, LIMIT, LIMIT_REMAINING, BUDGET,
    BUDGET_REMAINING, ROWS_DROPPED, CALLS_DROPPED, LAG, MEMORY, CPU, WORKERS,
    WORKER_STARTS, WORKER_EXITS, SIDECAR_MEMORY, MODEL_LOADED, MODEL_CALLS, MODEL_MEMORY, BUILD,
)  # fmt: skip
