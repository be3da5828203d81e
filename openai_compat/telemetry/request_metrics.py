"""Metrics of ended requests.

An observation looks up the indexes of its series by the values of the labels, and adds to some numbers. It takes a few
microseconds, and nothing is done for an event of a stream.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from openai_compat.core import errors
from openai_compat.core.errors import CallCancelledError, OpenAICompatError, OverloadedError
from openai_compat.core.observation import AttemptRecord, EndedRequest
from openai_compat.core.settings import ModelConfig
from openai_compat.core.types import Usage

from . import families
from .attributes import OPERATIONS, provider_of
from .families import DURATION, FIRST_TOKEN, PER_TOKEN, TOKENS
from .series import OTHER, SeriesTable

GENERATIONS: Final = {
    path: OPERATIONS.get(path, "chat")
    for path in ("chat/completions", "responses", "messages", "completions", "embeddings")
}
"""Endpoint -> its operation in OpenTelemetry's conventions. Calls of other endpoints have no GenAI metrics."""
COUNTS: Final = ("responses/input_tokens", "responses/compact", "messages/count_tokens")
"""Endpoints that ask models and generate nothing."""
VIEWS: Final = {
    "create_chat_completion": "chat/completions",
    "ask": "chat/completions",
    "create_completion": "completions",
    "create_embeddings": "embeddings",
    "create_response": "responses",
    "count_input_tokens": "responses/input_tokens",
    "compact": "responses/compact",
    "create_message": "messages",
    "count_tokens": "messages/count_tokens",
    "proxy": "passthrough",
}
"""View -> the name of its endpoint, for requests that were refused before a model was chosen."""
DURATION_SUM: Final = families.REQUEST_DURATION.size - 1
TOKENS_SUM: Final = families.TOKEN_USAGE.size - 1
SHARED_CODES: Final = frozenset({errors.RateLimitedError.code, errors.BudgetExceededError.code})
"""Codes that upstreams use as well."""
CLIENT_GONE: Final = 499
CANCELLED: Final = CallCancelledError.type
REJECTIONS: Final = frozenset(
    code
    for error in (
        OverloadedError,
        errors.UpstreamBusyError,
        errors.ModelBusyError,
        errors.RateLimitedError,
        errors.BudgetExceededError,
    )
    if (code := error.code) is not None
)
"""Codes of the errors for which this server refuses a call."""


def known_error_types() -> frozenset[str]:
    """Return the codes and types of this package's errors. An upstream may send any other."""
    found: set[str] = set()
    remaining: list[type[OpenAICompatError]] = [OpenAICompatError]
    while remaining:
        one = remaining.pop()
        remaining += one.__subclasses__()
        found |= {name for name in (one.code, one.type) if name}
    return frozenset(found)


class _GenerationSeries(NamedTuple):
    """Indexes of the series of calls to models with the same labels."""

    duration: int
    first_token: int
    per_token: int
    input_tokens: int
    output_tokens: int


class _AttemptSeries(NamedTuple):
    """Indexes of the series of attempts with the same labels."""

    attempts: int
    first_token: int
    duration: int


class _CallSeries(NamedTuple):
    """Index of the series of requests with the same labels, and what else is counted of them."""

    requests: int
    error: str
    generation: _GenerationSeries | None


CallKey = tuple[str, str, str, int, "str | None"]


class RequestMetrics:
    """Observer that counts ended requests, their tokens and their attempts.

    Models and targets that are not in `models`, and unknown endpoints, are counted as `other`.
    """

    def __init__(self, table: SeriesTable, models: Collection[str]) -> None:
        self._table = table
        self._values = table.values
        self._models = {"": "", **{name: name for name in models}}
        self._endpoints = {name: name for name in (*GENERATIONS, *COUNTS)}
        self._errors = {name: name for name in known_error_types()}
        self._providers: dict[str, str] = {}
        self._calls: dict[CallKey, _CallSeries] = {}
        self._streams: dict[tuple[str, ...], int] = {}
        self._attempts: dict[tuple[str, str], _AttemptSeries] = {}

    def add_endpoints(self, names: Iterable[str]) -> None:
        """Count requests of these views by their names."""
        self._endpoints |= {name: VIEWS.get(name, name) for name in names}

    def observe(self, ended: EndedRequest) -> None:
        """Count a request. The common case is written out, as each function call takes 0.1 µs of every request."""
        model = self._models.get(ended.model)
        if model is None:  # a pattern of aliases may match any name, and is counted by its target
            model = self._models.get(ended.served_by) or OTHER
        error = ended.error
        if error is not None:
            error = self._errors.get(error, OTHER)
        served = ended.served
        provider = "" if served is None else self._providers.get(served.name) or self._add_provider(served)
        key = (ended.operation, model, provider, ended.status, error)
        series = self._calls.get(key)
        if series is None:
            series = self._calls[key] = self._add_call(*key)
        index, error_type, generation = series
        self._values[index] += 1.0
        if generation is not None:
            self._observe_generation(ended, generation, model)
        if ended.attempts:
            self._observe_attempts(ended, error_type)
        if ended.is_streamed:
            self._count_stream(model, _outcome_of(ended, error_type))
        if error is not None and error in REJECTIONS and (error not in SHARED_CODES or not ended.attempts):
            self._table.add(1.0, families.REJECTED, error)

    def _add_provider(self, served: ModelConfig) -> str:
        provider = self._providers[served.name] = provider_of(served)
        return provider

    def _add_call(self, operation: str, model: str, provider: str, status: int, error: str | None) -> _CallSeries:
        table, endpoint = self._table, self._endpoints.get(operation, OTHER)
        if status == CLIENT_GONE:
            error = CANCELLED
        elif error is None:
            error = OTHER if status >= 400 else ""
        generation = None
        if operation in GENERATIONS and provider:
            labels = (GENERATIONS[operation], provider, model)
            generation = _GenerationSeries(
                table.index(families.REQUEST_DURATION, *labels, error),
                table.index(families.TIME_TO_FIRST_TOKEN, *labels),
                table.index(families.TIME_PER_TOKEN, *labels),
                table.index(families.TOKEN_USAGE, "input", *labels),
                table.index(families.TOKEN_USAGE, "output", *labels),
            )
        requests = table.index(families.REQUESTS, endpoint, model, str(status), error)
        return _CallSeries(requests, error, generation)

    def _observe_generation(self, ended: EndedRequest, series: _GenerationSeries, model: str) -> None:
        values, usage = self._values, ended.usage
        duration, first_token, per_token, input_tokens, output_tokens = series
        seconds = ended.ended_at - ended.started_at
        values[duration + bisect_left(DURATION, seconds)] += 1.0
        values[duration + DURATION_SUM] += seconds
        if usage is not None:
            count = usage.prompt_tokens
            values[input_tokens + bisect_left(TOKENS, count)] += 1.0
            values[input_tokens + TOKENS_SUM] += count
            count = usage.completion_tokens
            values[output_tokens + bisect_left(TOKENS, count)] += 1.0
            values[output_tokens + TOKENS_SUM] += count
            if usage.cached_tokens or usage.reasoning_tokens or usage.cache_write_tokens:
                self._count_details(usage, model)
        if ended.is_streamed and ended.first_token_at is not None:
            self._observe(first_token, FIRST_TOKEN, ended.first_token_at - ended.started_at)
            if usage is not None and usage.completion_tokens > 1:
                seconds = (ended.ended_at - ended.first_token_at) / (usage.completion_tokens - 1)
                self._observe(per_token, PER_TOKEN, seconds)

    def _observe(self, start: int, buckets: tuple[float, ...], value: float) -> None:
        """Count a value in the histogram that begins at the index `start`."""
        self._values[start + bisect_left(buckets, value)] += 1.0
        self._values[start + len(buckets) + 1] += value

    def _count_stream(self, *labels: str) -> None:
        index = self._streams.get(labels)
        if index is None:
            index = self._streams[labels] = self._table.index(families.STREAMS, *labels)
        self._values[index] += 1.0

    def _count_details(self, usage: Usage, model: str) -> None:
        for kind, count in (
            ("cached", usage.cached_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if count:
                self._table.add(count, families.TOKEN_DETAILS, model, kind)

    def _observe_attempts(self, ended: EndedRequest, error: str) -> None:
        """Count the attempts. The last one has the end and the error of the request, unless it has its own."""
        values, attempts = self._values, ended.attempts
        for attempt in attempts:
            target = self._models.get(attempt.target) or OTHER
            if attempt.error is not None:
                attempt_error = self._errors.get(attempt.error, OTHER)
            else:
                attempt_error = error if attempt is attempts[-1] else ""
            series = self._attempts.get((target, attempt_error))
            if series is None:
                series = self._attempts[(target, attempt_error)] = self._add_attempt(target, attempt_error)
            index, first_token, duration = series
            values[index] += 1.0
            seconds = (attempt.ended_at or ended.ended_at) - attempt.started_at
            values[duration + bisect_left(DURATION, seconds)] += 1.0
            values[duration + DURATION_SUM] += seconds
            if ended.is_streamed and attempt.first_byte_at is not None:
                self._observe(first_token, FIRST_TOKEN, attempt.first_byte_at - attempt.started_at)
        if len(attempts) > 1:
            self._count_repetitions(attempts)

    def _count_repetitions(self, attempts: Sequence[AttemptRecord]) -> None:
        for before, after in pairwise(attempts):
            family = families.RETRIES if before.target == after.target else families.FAILOVERS
            self._table.add(1.0, family, self._models.get(after.target) or OTHER)

    def _add_attempt(self, target: str, error: str) -> _AttemptSeries:
        table = self._table
        return _AttemptSeries(
            table.index(families.ATTEMPTS, target, error),
            table.index(families.ATTEMPT_FIRST_TOKEN, target),
            table.index(families.ATTEMPT_DURATION, target),
        )


def _outcome_of(ended: EndedRequest, error: str) -> str:
    """Return how a stream ended."""
    if ended.status == CLIENT_GONE:
        return "client_gone"
    if error:
        return "cut"
    if len(ended.attempts) < 2:
        return "complete"
    answered = sum(attempt.first_byte_at is not None for attempt in ended.attempts)
    return "continued" if answered > 1 else "complete"
