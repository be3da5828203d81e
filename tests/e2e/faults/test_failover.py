"""The table of failures in docs/guides/routing.md, with a mock upstream for each fault and a server with two workers.

Each scenario has its own models, streamed and not, so that cooldowns do not interfere. `spare` is healthy, and the
`model` of an answer names the upstream model.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, read_request
from tests.support.redis_server import running_redis
from tests.support.waiting import wait_until

MESSAGES = [{"role": "user", "content": "one two three four five six"}]
TEXT = "You said: one two three four five six"
SPARE = "spare"
FALL_BACK: dict[str, Any] = {"fallbacks": [SPARE]}
CONTINUE: dict[str, Any] = {"on_stream_break": "continue"}


@dataclass(frozen=True)
class FailoverScenario:
    """A fault of the upstream, the keys of the route, and the possible numbers of attempts at the upstream."""

    name: str
    fault: str
    keys: dict[str, Any] = field(default_factory=lambda: FALL_BACK)
    attempts: tuple[int, ...] = (1,)
    is_refused_connection: bool = False
    retries_connection: bool = False
    """True if the fault looks like a closed idle connection, after which the transport connects again by itself."""
    kinds: tuple[bool, ...] = (True, False)

    def model(self, *, stream: bool) -> str:
        return f"{self.name}-{'streamed' if stream else 'complete'}"

    def upstream_model(self, *, stream: bool) -> str:
        """Return a unique name, because faults with `times` are counted for each name."""
        mark = f"suffix= {self.model(stream=stream)}"
        return f"{self.fault},{mark}" if ":" in self.fault else f"{self.fault}:{mark}"

    def entry(self, base_url: str, *, stream: bool) -> dict[str, Any]:
        return {
            "name": self.model(stream=stream),
            "kind": "openai",
            "base_url": "http://127.0.0.1:1/v1" if self.is_refused_connection else base_url,
            "upstream_model": self.upstream_model(stream=stream),
            "api_key_env": "UPSTREAM_KEY",
            **self.keys,
        }


def with_timeout(**timeout: float) -> dict[str, Any]:
    return {**FALL_BACK, "timeout": timeout}


STREAMED, COMPLETE = (True,), (False,)
REFUSING = ["missing", "refuses-key", "rejects", "too-small"]
"""Fallbacks that refuse for their own reasons."""
WITHOUT_WINDOWS: dict[str, Any] = {
    "retries": 2,
    "cooldown": 10,
    "timeout": {"first_token": 10, "idle": 10},
    "on_stream_break": "continue",
}
RETRIED = [
    FailoverScenario("429-once", "fault-status:code=429,retry_after=0.3,times=1", attempts=(2,)),
    FailoverScenario("503-once", "fault-status:code=503,times=1", attempts=(2,)),
    FailoverScenario("500-once", "fault-status:code=500,times=1", attempts=(2,)),
    FailoverScenario("reset-once", "fault-reset-before:times=1", attempts=(2,), retries_connection=True),
    FailoverScenario("close-once", "fault-close-before:times=1", attempts=(2,), retries_connection=True),
    FailoverScenario("broken-json-once", "fault-bad-json:times=1", attempts=(2,)),
    FailoverScenario("slow-first-allowed", "fault-slow-first:delay=0.6", with_timeout(first_token=20)),
    FailoverScenario(
        "slow-complete", "fault-slow-first:delay=0.6", with_timeout(first_token=0.2, first_byte=20), kinds=COMPLETE
    ),
    FailoverScenario("no-done", "fault-no-done"),
    FailoverScenario("no-end", "fault-no-end"),
    FailoverScenario("bad-event", "fault-bad-json-event"),
    FailoverScenario("no-usage", "fault-no-usage"),
]
FALLEN_BACK = [
    FailoverScenario("429-later", "fault-status:code=429,retry_after=60"),
    FailoverScenario("429-always", "fault-status:code=429", attempts=(2, 3, 4)),
    FailoverScenario("503-always", "fault-status:code=503", {**FALL_BACK, "retries": 3}, attempts=(2, 3, 4)),
    FailoverScenario("503-named", "fault-status:code=503,retry_after=0.2", attempts=(2, 3, 4)),
    FailoverScenario("quota", "fault-quota"),
    FailoverScenario("500-always", "fault-status:code=500", attempts=(2,)),
    FailoverScenario("html", "fault-html-error", attempts=(2,)),
    FailoverScenario("reset-before", "fault-reset-before", attempts=(2, 3)),
    FailoverScenario("refused", "", is_refused_connection=True, attempts=(0,)),
    FailoverScenario("empty", "fault-empty", attempts=(2,)),
    FailoverScenario("broken-json", "fault-bad-json", attempts=(2,)),
    FailoverScenario("hang", "fault-hang", with_timeout(first_token=0.4, first_byte=0.4)),
    FailoverScenario("hang-headers", "fault-hang-headers", with_timeout(first_token=0.4, idle=0.4)),
    FailoverScenario("slow-first", "fault-slow-first:delay=300", with_timeout(first_token=0.4, first_byte=0.4)),
    FailoverScenario("cut-after-the-role", "fault-cut:after=1", attempts=(2,), kinds=STREAMED),
    FailoverScenario("stall-after-the-role", "fault-stall:after=1", with_timeout(first_token=0.4), kinds=STREAMED),
    FailoverScenario("error-first", "fault-error-in-stream:after=1,code=500", attempts=(2,)),
    FailoverScenario("cut-complete", "fault-cut", attempts=(2,), kinds=COMPLETE),
    FailoverScenario("reset-complete", "fault-reset", attempts=(2,), kinds=COMPLETE),
    FailoverScenario("truncated-complete", "fault-truncated-length", attempts=(2,), kinds=COMPLETE),
    FailoverScenario("stall-complete", "fault-stall", with_timeout(idle=0.4), kinds=COMPLETE),
    FailoverScenario("long-prompt", "fault-context-length", {**FALL_BACK, "context_window": 8192}),
    FailoverScenario(
        "long-prompt-always",
        "fault-context-length",
        {"fallbacks": ["small"], "context_window": 8192, "context_overflow": "always"},
    ),
    FailoverScenario("long-prompt-unknown", "fault-context-length", {"fallbacks": ["continues"], **WITHOUT_WINDOWS}),
    FailoverScenario("our-401", "fault-status:code=401"),
    FailoverScenario("our-403", "fault-status:code=403"),
    FailoverScenario("refusals", "fault-status:code=503", {"fallbacks": [*REFUSING, SPARE]}, attempts=(2,)),
    FailoverScenario("long-prompt-refusals", "fault-context-length", {"fallbacks": [*REFUSING, SPARE]}),
]
ERRORS = [
    (FailoverScenario("filter", "fault-content-filter"), 400, "content_filter"),
    (FailoverScenario("bad-request", "fault-status:code=400"), 400, None),
    (FailoverScenario("not-found", "fault-status:code=404"), 404, "model_not_found"),
    (
        FailoverScenario("no-larger", "fault-context-length", {"fallbacks": ["small"], "context_window": 8192}),
        400,
        "context_length_exceeded",
    ),
]
BROKEN_STREAMS = [
    FailoverScenario("cut", "fault-cut", kinds=STREAMED),
    FailoverScenario("cut-mid-event", "fault-cut-mid-event", kinds=STREAMED),
    FailoverScenario("reset", "fault-reset", kinds=STREAMED),
    FailoverScenario("stall", "fault-stall", with_timeout(idle=0.4), kinds=STREAMED),
    FailoverScenario("error-within", "fault-error-in-stream", kinds=STREAMED),
]
CONTINUED = [
    FailoverScenario(
        f"{scenario.name}-{how}", scenario.fault, {**scenario.keys, **CONTINUE, "fallbacks": [how]}, kinds=STREAMED
    )
    for scenario in BROKEN_STREAMS
    for how in ("continues", "spare")
] + [
    FailoverScenario("refused-prefill", "fault-cut", {**CONTINUE, "fallbacks": ["refuses-prefill"]}, kinds=STREAMED),
    FailoverScenario("continued-twice", "fault-cut", {**CONTINUE, "fallbacks": ["cuts-too", SPARE]}, kinds=STREAMED),
    FailoverScenario("another-kind", "fault-cut", {**CONTINUE, "fallbacks": ["typed"]}, kinds=STREAMED),
]
NOT_CONTINUED = [
    FailoverScenario("other-text", "fault-cut", {**CONTINUE, "fallbacks": ["other-words"]}, kinds=STREAMED),
    FailoverScenario("shorter-text", "fault-cut", {**CONTINUE, "fallbacks": ["echo"]}, kinds=STREAMED),
    FailoverScenario("no-fallback", "fault-cut", CONTINUE, kinds=STREAMED),
]
MORE = [
    FailoverScenario("retry-after", "fault-status:code=429,retry_after=30", {**FALL_BACK, "max_retry_wait": 60}),
    FailoverScenario("hanging", "fault-hang", with_timeout(first_token=60)),
    FailoverScenario("failing", "fault-status:code=500"),
    FailoverScenario("keyed", "fault-status:code=500"),
    FailoverScenario("recovering", "fault-status:code=503,seconds=3", {**FALL_BACK, "cooldown": 1}, kinds=COMPLETE),
    FailoverScenario("text", "fault-cut", {**CONTINUE, "fallbacks": ["continues"]}, kinds=STREAMED),
    FailoverScenario("all-fail", "fault-status:code=500", {"fallbacks": ["fails-too"]}),
    FailoverScenario("stored", "fault-status:code=500", kinds=COMPLETE),
    FailoverScenario("all-refuse", "fault-status:code=503", {"fallbacks": ["missing", "rejects", "fails-too"]}),
    FailoverScenario("no-key", "fault-status:code=401", {"fallbacks": ["missing"]}),
    FailoverScenario("bad-key", "fault-status:code=403", kinds=COMPLETE),
    FailoverScenario("limited", "fault-status:code=429,retry_after=2", {**FALL_BACK, "retries": 2}, kinds=COMPLETE),
    FailoverScenario("logged", "fault-cut", {**CONTINUE, "fallbacks": ["missing", "continues"]}, kinds=STREAMED),
    FailoverScenario("capped", "fault-cut", {**CONTINUE, "fallbacks": ["continues"]}, kinds=STREAMED),
    FailoverScenario("stored-stream", "fault-cut", {**CONTINUE, "fallbacks": ["continues"]}, kinds=STREAMED),
]
COOLED = FailoverScenario("cooled", "fault-status:code=429")
"""For one test only, because the end of a cooldown that another test began would disturb it."""
SCENARIOS = [
    COOLED,
    *RETRIED,
    *FALLEN_BACK,
    *(scenario for scenario, *_ in ERRORS),
    *BROKEN_STREAMS,
    *CONTINUED,
    *NOT_CONTINUED,
    *MORE,
]


def fallback_models(base_url: str) -> list[dict[str, Any]]:
    """Return the models that the scenarios fall back to."""

    def forwarded(name: str, upstream_model: str, **keys: Any) -> dict[str, Any]:
        return {"name": name, "kind": "openai", "base_url": base_url, "upstream_model": upstream_model, **keys}

    return [
        forwarded(SPARE, SPARE, context_window=32_000),
        forwarded("small", "small", context_window=4096),
        forwarded("continues", "mock-prefill", assistant_prefill=True),
        forwarded("refuses-prefill", "fault-reject-prefill", assistant_prefill="prefix"),
        forwarded("cuts-too", "fault-cut:after=6"),
        forwarded("other-words", "mock-model:prefix=No. "),
        forwarded("fails-too", "fault-status:code=503,retry_after=7"),
        forwarded("missing", "fault-status:code=404"),
        forwarded("refuses-key", "fault-status:code=401", api_key_env="UPSTREAM_KEY"),
        forwarded("rejects", "fault-status:code=400"),
        forwarded("too-small", "fault-context-length", context_window=1024),
        {"name": "echo", "kind": "echo"},
        {"name": "typed", "kind": "external", "base_url": f"{base_url}/chat/completions", "upstream_model": SPARE},
        {"name": "both", "targets": [{"model": SPARE, "weight": 1}, {"model": "small", "weight": 1}]},
    ]


def write_models(path: Path, scenarios: list[FailoverScenario], base_url: str) -> str:
    entries = [scenario.entry(base_url, stream=stream) for scenario in scenarios for stream in scenario.kinds]
    path.write_text(json.dumps([*entries, *fallback_models(base_url)]))
    return str(path)


@pytest.fixture(scope="module")
def routed(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path = write_models(tmp_path_factory.mktemp("models") / "models.json", SCENARIOS, upstream.base_url)
    settings = {"MODELS_FILE": path, "UPSTREAM_KEY": "sk-of-the-server"}
    with LiveServer(settings, workers=2) as server:
        yield server


def ask(server: LiveServer, model: str, *, stream: bool, **more: Any) -> requests.Response:
    body = {"model": model, "messages": MESSAGES, "stream": stream, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=30)


def chunks_of(response: requests.Response) -> list[Any]:
    lines = [line[6:] for line in response.content.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(response: requests.Response) -> str:
    """Return the text of a complete answer. A stream has one finish reason, and `[DONE]` at its end."""
    assert response.status_code == 200, response.text
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    *chunks, end = chunks_of(response)
    assert end == "[DONE]", chunks
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def model_of(response: requests.Response) -> str:
    chunk = response.json() if not response.headers["content-type"].startswith("text/event") else chunks_of(response)[0]
    return str(chunk["model"])


def attempts_at(upstream: MockUpstream, scenario: FailoverScenario, *, stream: bool) -> int:
    return int(upstream.stats()["models"].get(scenario.upstream_model(stream=stream), 0))


def each_scenario(scenarios: list[FailoverScenario]) -> Callable[[Any], Any]:
    parameters = [
        pytest.param(scenario, stream, id=scenario.model(stream=stream))
        for scenario in scenarios
        for stream in scenario.kinds
    ]
    return pytest.mark.parametrize(("scenario", "stream"), parameters)


# Retries at the same upstream, and timeouts that allow for a slow upstream.


@each_scenario(RETRIED)
def test_the_same_upstream_answers_in_the_end(
    routed: LiveServer, upstream: MockUpstream, scenario: FailoverScenario, *, stream: bool
) -> None:
    response = ask(routed, scenario.model(stream=stream), stream=stream)
    assert text_of(response).startswith(TEXT)
    assert attempts_at(upstream, scenario, stream=stream) in scenario.attempts
    assert response.headers["x-openai-compat-upstream"] == scenario.model(stream=stream)
    attempts = int(response.headers["x-openai-compat-attempts"])
    assert attempts in ({1, *scenario.attempts} if scenario.retries_connection else scenario.attempts)
    assert response.headers["x-openai-compat-fallback"] == "false"


def test_a_retry_waits_as_long_as_retry_after_says(routed: LiveServer, upstream: MockUpstream) -> None:
    upstream.reset()
    began = time.monotonic()
    text_of(ask(routed, "429-once-complete", stream=False))
    assert time.monotonic() - began >= 0.3


def test_a_broken_event_is_logged(routed: LiveServer) -> None:
    response = ask(routed, "bad-event-streamed", stream=True)
    assert "chatcmpl-broken" not in response.text
    assert "dropped a broken event of the upstream" in routed.log()


# The fallback.


@each_scenario(FALLEN_BACK)
def test_the_fallback_answers_and_the_client_sees_no_failure(
    routed: LiveServer, upstream: MockUpstream, scenario: FailoverScenario, *, stream: bool
) -> None:
    response = ask(routed, scenario.model(stream=stream), stream=stream)
    assert text_of(response) == TEXT
    fallback = scenario.keys["fallbacks"][-1]
    assert model_of(response) == {"continues": "mock-prefill"}.get(fallback, fallback)
    assert attempts_at(upstream, scenario, stream=stream) in scenario.attempts
    assert response.headers["x-openai-compat-upstream"] == fallback
    assert response.headers["x-openai-compat-fallback"] == "true"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_a_cooldown_applies_to_all_workers(routed: LiveServer, upstream: MockUpstream, *, stream: bool) -> None:
    model = COOLED.model(stream=stream)
    wait_until(
        lambda: ask(routed, model, stream=stream).headers["x-openai-compat-attempts"] == "1", "the circuit is open"
    )
    time.sleep(0.1)  # twice the age of the state that a worker may use
    before = attempts_at(upstream, COOLED, stream=stream)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: ask(routed, model, stream=stream), range(40)))
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert attempts_at(upstream, COOLED, stream=stream) == before


def test_a_recovered_upstream_is_probed_by_one_call_and_used_again(routed: LiveServer, upstream: MockUpstream) -> None:
    scenario = FailoverScenario("recovering", "fault-status:code=503,seconds=3")
    attempts_of_fallbacks: list[str] = []
    has_recovered = threading.Event()

    def call(_: int) -> None:
        while not has_recovered.is_set():
            response = ask(routed, "recovering-complete", stream=False)
            assert text_of(response).startswith(TEXT)
            if response.headers["x-openai-compat-fallback"] == "false":
                has_recovered.set()
            else:
                attempts_of_fallbacks.append(response.headers["x-openai-compat-attempts"])

    started = time.monotonic()
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(call, range(4)))
    cooldowns = time.monotonic() - started  # of a second each
    assert "1" in attempts_of_fallbacks
    # Two attempts of each caller until the circuit opened, one probe a cooldown, and the calls after the recovery.
    assert attempts_at(upstream, scenario, stream=False) <= 4 * 2 + cooldowns + 4


# The error.


@pytest.mark.parametrize(("scenario", "status", "code"), ERRORS, ids=lambda value: getattr(value, "name", None))
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_an_error_that_no_other_target_can_avoid_is_returned_after_one_attempt(
    routed: LiveServer,
    upstream: MockUpstream,
    scenario: FailoverScenario,
    status: int,
    code: str | None,
    *,
    stream: bool,
) -> None:
    response = ask(routed, scenario.model(stream=stream), stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert attempts_at(upstream, scenario, stream=stream) == 1
    assert response.headers["x-openai-compat-attempts"] == "1"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_if_all_targets_fail_the_error_of_the_requested_model_is_returned(routed: LiveServer, *, stream: bool) -> None:
    model = f"all-fail-{'streamed' if stream else 'complete'}"
    response = ask(routed, model, stream=stream)
    assert (response.status_code, response.headers.get("retry-after")) == (500, None)
    assert response.headers["x-openai-compat-upstream"] == model
    wait_until(lambda: f"tried={model},fails-too" in last_line_of(routed, f"model={model}"), "all models are logged")


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_if_all_targets_fail_a_mistake_in_the_request_is_returned(routed: LiveServer, *, stream: bool) -> None:
    response = ask(routed, f"all-refuse-{'streamed' if stream else 'complete'}", stream=stream)
    assert response.status_code == 400
    assert response.headers["x-openai-compat-upstream"] == "rejects"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_an_error_about_this_servers_key_does_not_contain_it(routed: LiveServer, *, stream: bool) -> None:
    response = ask(routed, f"no-key-{'streamed' if stream else 'complete'}", stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_authentication_failed")
    assert response.headers["x-should-retry"] == "false"
    assert "sk-of-the-server" not in response.text


def test_a_refused_key_is_logged_as_an_error_and_opens_the_circuit(routed: LiveServer, upstream: MockUpstream) -> None:
    answers = [ask(routed, "bad-key-complete", stream=False)]
    time.sleep(0.1)  # twice the age of the state that a worker may use
    answers += [ask(routed, "bad-key-complete", stream=False) for _ in range(9)]
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert attempts_at(upstream, FailoverScenario("bad-key", "fault-status:code=403"), stream=False) == 1
    assert "ERROR" in last_line_of(routed, "'bad-key-complete' failed for this call")


# A stream that breaks after its first token.


@each_scenario(BROKEN_STREAMS)
def test_a_broken_stream_never_looks_complete(
    routed: LiveServer, upstream: MockUpstream, scenario: FailoverScenario, *, stream: bool
) -> None:
    response = ask(routed, scenario.model(stream=stream), stream=stream)
    *chunks, last = chunks_of(response)
    assert response.status_code == 200
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert TEXT.startswith("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks))
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    assert attempts_at(upstream, scenario, stream=stream) == 1


@each_scenario(CONTINUED)
@pytest.mark.parametrize("wants_usage", [True, False], ids=["usage", "plain"])
def test_another_target_continues_a_broken_stream(
    routed: LiveServer, scenario: FailoverScenario, *, stream: bool, wants_usage: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    response = ask(routed, scenario.model(stream=stream), stream=stream, **options)
    assert text_of(response) == TEXT
    chunks = chunks_of(response)[:-1]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert [bool(chunk.get("usage")) for chunk in chunks].count(True) == wants_usage
    assert [
        choice["delta"]["role"] for chunk in chunks for choice in chunk["choices"] if "role" in choice["delta"]
    ] == ["assistant"]


@each_scenario(NOT_CONTINUED)
def test_a_broken_stream_that_no_target_can_continue_ends_with_an_error(
    routed: LiveServer, scenario: FailoverScenario, *, stream: bool
) -> None:
    response = ask(routed, scenario.model(stream=stream), stream=stream)
    *chunks, last = chunks_of(response)
    assert last["error"]["code"] == "upstream_cut"
    assert TEXT.startswith("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks))


def test_a_text_completion_continues_after_the_text_that_was_sent(routed: LiveServer, upstream: MockUpstream) -> None:
    body = {"model": "text-streamed", "prompt": "a b c d e f", "stream": True}
    response = requests.post(f"{routed.base_url}/completions", json=body, timeout=30)
    *chunks, end = chunks_of(response)
    assert end == "[DONE]"
    bodies = [
        json.loads(request["body"]) for request in upstream.requests() if request["path"].endswith("/completions")
    ]
    assert bodies[-1]["prompt"].startswith("a b c d e fYou said: ")
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_access_log_names_the_model_that_completed_the_stream_and_all_attempts(routed: LiveServer) -> None:
    assert text_of(ask(routed, "logged-streamed", stream=True)) == TEXT
    wait_until(lambda: last_line_of(routed, "model=logged-streamed") != "", "the call is logged")
    line = last_line_of(routed, "model=logged-streamed")
    assert "upstream=continues" in line
    assert "attempts=3" in line
    assert "tried=logged-streamed,missing,continues" in line


def test_a_continuation_gets_the_rest_of_the_token_limit(routed: LiveServer, upstream: MockUpstream) -> None:
    ask(routed, "capped-streamed", stream=True, max_tokens=50, max_completion_tokens=50)
    bodies = [
        json.loads(request["body"]) for request in upstream.requests() if request["path"].endswith("/completions")
    ]
    assert bodies[-1]["messages"][-1]["role"] == "assistant"
    assert 1 <= bodies[-1]["max_tokens"] == bodies[-1]["max_completion_tokens"] < 50


def test_a_broken_stream_with_side_effects_is_not_continued(routed: LiveServer) -> None:
    *_, last = chunks_of(ask(routed, "stored-stream-streamed", stream=True, store=True))
    assert last["error"]["code"] == "upstream_cut"


# Endpoints, aliases, headers and shared state.


def test_while_one_call_waits_for_a_rate_limit_all_others_fall_back_at_once(
    routed: LiveServer, upstream: MockUpstream
) -> None:
    scenario = FailoverScenario("limited", "fault-status:code=429,retry_after=2")
    with ThreadPoolExecutor(21) as callers:
        first = callers.submit(ask, routed, "limited-complete", stream=False)
        upstream.wait_until(lambda stats: scenario.upstream_model(stream=False) in stats["models"])
        time.sleep(0.2)  # four times the age of the state that a worker may use
        others = list(callers.map(lambda _: ask(routed, "limited-complete", stream=False), range(20)))
        assert {answer.headers["x-openai-compat-attempts"] for answer in others} == {"1"}
        assert not first.done()
        assert attempts_at(upstream, scenario, stream=False) == 1
        assert {text_of(answer) for answer in [*others, first.result()]} == {TEXT}


def test_all_attempts_have_the_idempotency_key_of_the_call(routed: LiveServer, upstream: MockUpstream) -> None:
    headers = {"Idempotency-Key": "once-and-only-once"}
    body = {"model": "keyed-complete", "messages": MESSAGES}
    requests.post(f"{routed.base_url}/chat/completions", json=body, headers=headers, timeout=30)
    keys = [request["headers"].get("idempotency-key") for request in upstream.requests()[-3:]]
    assert keys == ["once-and-only-once"] * 3


def test_a_call_with_side_effects_is_not_repeated(routed: LiveServer, upstream: MockUpstream) -> None:
    response = ask(routed, "stored-complete", stream=False, store=True)
    assert response.status_code == 500
    assert attempts_at(upstream, FailoverScenario("stored", "fault-status:code=500"), stream=False) == 1


def test_ask_falls_back(routed: LiveServer) -> None:
    body = {"model": "failing-streamed", "messages": MESSAGES}
    response = requests.post(f"{routed.url}/ask?format=text", json=body, timeout=30)
    assert response.text == TEXT
    assert response.headers["x-openai-compat-upstream"] == SPARE


def test_embeddings_fall_back(routed: LiveServer) -> None:
    body = {"model": "failing-complete", "input": "a cat"}
    response = requests.post(f"{routed.base_url}/embeddings", json=body, timeout=30)
    assert response.json()["data"][0]["embedding"]
    assert response.headers["x-openai-compat-upstream"] == SPARE


def test_an_alias_distributes_its_calls_and_names_the_upstream(routed: LiveServer) -> None:
    answers = [ask(routed, "both", stream=False) for _ in range(40)]
    assert {model_of(answer) for answer in answers} == {SPARE, "small"}
    assert all(answer.headers["x-openai-compat-upstream"] == model_of(answer) for answer in answers)
    described = requests.get(f"{routed.base_url}/models/both", timeout=10).json()
    assert (described["id"], described["targets"]) == ("both", [SPARE, "small"])


@contextmanager
def connected(server: LiveServer, model: str, *, stream: bool) -> Iterator[socket.socket]:
    """Yield a socket on which the request was sent and nothing was read."""
    body = json.dumps({"model": model, "messages": MESSAGES, "stream": stream}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield client


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_a_client_disconnect_ends_the_wait_for_a_retry(
    routed: LiveServer, upstream: MockUpstream, *, stream: bool
) -> None:
    model = f"retry-after-{'streamed' if stream else 'complete'}"
    with connected(routed, model, stream=stream):
        upstream.wait_until(lambda stats: any(model in name for name in stats["models"]))
    # The wait of 30 s that Retry-After demands would outlast this one.
    wait_until(lambda: "status=499" in last_line_of(routed, f"model={model}"), "the wait has ended")
    assert (
        attempts_at(upstream, FailoverScenario("retry-after", "fault-status:code=429,retry_after=30"), stream=stream)
        == 1
    )


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "complete"])
def test_a_client_disconnect_before_the_first_token_aborts_the_attempt(
    routed: LiveServer, upstream: MockUpstream, *, stream: bool
) -> None:
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    aborted = upstream.stats()["requests_aborted"]
    with connected(routed, f"hanging-{'streamed' if stream else 'complete'}", stream=stream):
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
    upstream.wait_until(lambda stats: (stats["requests_open"], stats["requests_aborted"]) == (0, aborted + 1))


def last_line_of(server: LiveServer, what: str) -> str:
    return next((line for line in reversed(server.log().split("\n")) if what in line), "")


def test_servers_share_state_through_redis_and_work_without_it(upstream: MockUpstream, tmp_path: Path) -> None:
    scenario = FailoverScenario("shared", "fault-status:code=503")
    settings = {
        "MODELS_FILE": write_models(tmp_path / "models.json", [scenario], upstream.base_url),
        "UPSTREAM_KEY": "sk-1",
    }
    with running_redis(tmp_path) as redis:
        settings["SHARED_STATE_URL"] = redis.url
        with LiveServer(settings) as one, LiveServer(settings) as other:
            assert text_of(ask(one, "shared-complete", stream=False)) == TEXT
            attempts = attempts_at(upstream, scenario, stream=False)
            answer = ask(other, "shared-complete", stream=False)
            assert (text_of(answer), answer.headers["x-openai-compat-attempts"]) == (TEXT, "1")
            assert attempts_at(upstream, scenario, stream=False) == attempts == 2
            redis.stop()

            def is_logged() -> bool:
                assert [text_of(ask(server, "shared-complete", stream=False)) for server in (one, other)] == [TEXT] * 2
                return "the shared state is unavailable" in one.log() + other.log()

            wait_until(is_logged, "the failure of Redis is logged")


def test_the_shared_state_of_workers_is_removed_with_the_server(upstream: MockUpstream, tmp_path: Path) -> None:
    models = write_models(tmp_path / "models.json", [FailoverScenario("left", "fault-quota")], upstream.base_url)
    with TemporaryDirectory(dir="/tmp") as name:  # pytest's path is too long for sockets
        folder = Path(name)
        with LiveServer({"MODELS_FILE": models, "UPSTREAM_KEY": "sk-1", "TMPDIR": name}, workers=2) as server:
            assert text_of(ask(server, "left-complete", stream=False)) == TEXT
            assert len(list(folder.glob("openai-compat-*/state"))) == 1
        assert not list(folder.glob("openai-compat-*"))


def test_a_restarted_upstream_is_used_again(upstream: MockUpstream, tmp_path: Path) -> None:
    """Stop the upstream, during which the fallback answers every call, and start another one on its port."""
    with MockUpstream() as first:
        port = str(first.address[1])
        scenario = FailoverScenario(
            "away", "mock-model", {**FALL_BACK, "cooldown": 1, "base_url": first.base_url}, kinds=COMPLETE
        )
        settings = {
            "MODELS_FILE": write_models(tmp_path / "models.json", [scenario], upstream.base_url),
            "UPSTREAM_KEY": "sk-1",
        }
        with LiveServer(settings, workers=2) as server:

            def answered_by() -> str:
                response = ask(server, "away-complete", stream=False)
                assert text_of(response).startswith(TEXT)
                return response.headers["x-openai-compat-upstream"]

            assert answered_by() == "away-complete"
            first.process.terminate()
            first.process.wait(10)
            for _ in range(50):
                assert answered_by() == SPARE
            with MockUpstream("--port", port):
                wait_until(lambda: answered_by() != SPARE, "the upstream is used again")


def completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_a_call_with_side_effects_is_not_sent_again_on_a_stale_connection(tmp_path: Path) -> None:
    """The upstream closes each kept connection after it has read the second request on it."""
    received: list[bytes] = []

    def answers_once(client: socket.socket) -> None:
        received.append(read_request(client))
        client.sendall(completion("hello"))
        received.append(read_request(client))

    with RawServer(answers_once) as upstream:
        entries = [
            {
                "name": "m",
                "kind": "openai",
                "base_url": f"{upstream.url}/v1",
                "api_key_env": "K",
                "fallbacks": ["echo"],
            },
            {"name": "echo", "kind": "echo"},
        ]
        path = tmp_path / "models.json"
        path.write_text(json.dumps(entries))
        with LiveServer({"MODELS_FILE": str(path), "K": "k"}) as server:
            assert ask(server, "m", stream=False).headers["x-openai-compat-attempts"] == "1"
            resent = ask(server, "m", stream=False)
            assert (text_of(resent), resent.headers["x-openai-compat-attempts"]) == ("hello", "2")
            stored = ask(server, "m", stream=False, store=True)
            assert (text_of(stored), stored.headers["x-openai-compat-attempts"]) == ("hello", "1")
    assert sum(b'"store"' in request for request in received) == 1
