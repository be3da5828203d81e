"""docs/guides/routing.md's table, row by row: an upstream with that fault, real sockets, gunicorn with two workers.

Every row has a model of its own, streamed and not, so that no cooldown of one is another's. `spare` is healthy, and the
`model` of an answer tells who gave it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.redis_server import running_redis

MESSAGES = [{"role": "user", "content": "one two three four five six"}]
TEXT = "You said: one two three four five six"
SPARE = "spare"
FALL_BACK: dict[str, Any] = {"fallbacks": [SPARE]}
CONTINUES: dict[str, Any] = {"on_stream_break": "continue"}


@dataclass(frozen=True)
class Row:
    """A row of the table: the upstream's fault, the keys of the route, and how often the upstream is asked."""

    name: str
    fault: str
    keys: dict[str, Any] = field(default_factory=lambda: FALL_BACK)
    tries: tuple[int, ...] = (1,)
    is_refused_connection: bool = False
    has_kept_connection: bool = False
    """The fault looks like a kept connection that was closed meanwhile: the transport tries a new one by itself."""
    kinds: tuple[bool, ...] = (True, False)

    def model(self, *, stream: bool) -> str:
        return f"{self.name}-{'streamed' if stream else 'whole'}"

    def upstream_model(self, *, stream: bool) -> str:
        """No two the same: faults with `times` are counted by it."""
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


def impatient(**timeout: float) -> dict[str, Any]:
    return {**FALL_BACK, "timeout": timeout}


STREAMED, WHOLE = (True,), (False,)
RECOVERS = [
    Row("429-once", "fault-status:code=429,retry_after=0.3,times=1", tries=(2,)),
    Row("503-once", "fault-status:code=503,times=1", tries=(2,)),
    Row("500-once", "fault-status:code=500,times=1", tries=(2,)),
    Row("reset-once", "fault-reset-before:times=1", tries=(2,), has_kept_connection=True),
    Row("close-once", "fault-close-before:times=1", tries=(2,), has_kept_connection=True),
    Row("broken-json-once", "fault-bad-json:times=1", tries=(2,)),
    Row("patience", "fault-slow-first:delay=0.6", impatient(first_token=20)),
    Row("no-done", "fault-no-done"),
    Row("no-end", "fault-no-end"),
    Row("bad-event", "fault-bad-json-event"),
    Row("no-usage", "fault-no-usage"),
]
FALLS_BACK = [
    Row("429-later", "fault-status:code=429,retry_after=60"),
    Row("429-always", "fault-status:code=429", tries=(2, 3, 4)),
    Row("503-always", "fault-status:code=503", {**FALL_BACK, "retries": 3}, tries=(2, 3, 4)),
    Row("503-named", "fault-status:code=503,retry_after=0.2", tries=(2, 3, 4)),
    Row("quota", "fault-quota"),
    Row("500-always", "fault-status:code=500", tries=(2,)),
    Row("html", "fault-html-error", tries=(2,)),
    Row("reset-before", "fault-reset-before", tries=(2, 3)),
    Row("refused", "", is_refused_connection=True, tries=(0,)),
    Row("empty", "fault-empty", tries=(2,)),
    Row("broken-json", "fault-bad-json", tries=(2,)),
    Row("hang", "fault-hang", impatient(first_token=0.4)),
    Row("hang-headers", "fault-hang-headers", impatient(first_token=0.4, idle=0.4)),
    Row("slow-first", "fault-slow-first:delay=30", impatient(first_token=0.4)),
    Row("cut-after-the-role", "fault-cut:after=1", tries=(2,), kinds=STREAMED),
    Row("stall-after-the-role", "fault-stall:after=1", impatient(first_token=0.4), kinds=STREAMED),
    Row("error-first", "fault-error-in-stream:after=1,code=500", tries=(2,)),
    Row("cut-whole", "fault-cut", tries=(2,), kinds=WHOLE),
    Row("reset-whole", "fault-reset", tries=(2,), kinds=WHOLE),
    Row("short-whole", "fault-truncated-length", tries=(2,), kinds=WHOLE),
    Row("stall-whole", "fault-stall", impatient(idle=0.4), kinds=WHOLE),
    Row("long-prompt", "fault-context-length", {**FALL_BACK, "context_window": 8192}),
    Row("long-prompt-always", "fault-context-length", {"fallbacks": ["small"], "context_overflow": "always"}),
]
TOLD = [
    (Row("filter", "fault-content-filter"), 400, "content_filter"),
    (Row("bad-request", "fault-status:code=400"), 400, None),
    (Row("not-found", "fault-status:code=404"), 404, "model_not_found"),
    (Row("our-401", "fault-status:code=401"), 502, "upstream_authentication_failed"),
    (Row("our-403", "fault-status:code=403"), 502, "upstream_authentication_failed"),
    (
        Row("no-larger", "fault-context-length", {"fallbacks": ["small"], "context_window": 8192}),
        400,
        "context_length_exceeded",
    ),
]
BREAKS = [
    Row("cut", "fault-cut", kinds=STREAMED),
    Row("cut-mid-event", "fault-cut-mid-event", kinds=STREAMED),
    Row("reset", "fault-reset", kinds=STREAMED),
    Row("stall", "fault-stall", impatient(idle=0.4), kinds=STREAMED),
    Row("error-within", "fault-error-in-stream", kinds=STREAMED),
]
CONTINUED = [
    Row(f"{row.name}-{how}", row.fault, {**row.keys, **CONTINUES, "fallbacks": [how]}, kinds=STREAMED)
    for row in BREAKS
    for how in ("goes-on", "spare")
] + [
    Row("refused-prefill", "fault-cut", {**CONTINUES, "fallbacks": ["refuses-prefill"]}, kinds=STREAMED),
    Row("continued-twice", "fault-cut", {**CONTINUES, "fallbacks": ["cuts-too", SPARE]}, kinds=STREAMED),
    Row("another-kind", "fault-cut", {**CONTINUES, "fallbacks": ["typed"]}, kinds=STREAMED),
]
NOT_CONTINUED = [
    Row("says-other", "fault-cut", {**CONTINUES, "fallbacks": ["other-words"]}, kinds=STREAMED),
    Row("says-less", "fault-cut", {**CONTINUES, "fallbacks": ["echo"]}, kinds=STREAMED),
    Row("nobody", "fault-cut", CONTINUES, kinds=STREAMED),
]
MORE = [
    Row("waits", "fault-status:code=429,retry_after=30", {**FALL_BACK, "max_retry_wait": 60}),
    Row("thinks", "fault-hang", impatient(first_token=60)),
    Row("asks", "fault-status:code=500"),
    Row("keyed", "fault-status:code=500"),
    Row("returns", "fault-status:code=503,seconds=3", {**FALL_BACK, "cooldown": 1}, kinds=WHOLE),
    Row("text", "fault-cut", {**CONTINUES, "fallbacks": ["goes-on"]}, kinds=STREAMED),
    Row("all-fail", "fault-status:code=500", {"fallbacks": ["fails-too"]}),
    Row("stored", "fault-status:code=500", kinds=WHOLE),
]
COOLED = Row("cooled", "fault-status:code=429")
"""For one test alone: the cooldown that another one began would end, and be probed, in the middle of it."""
ROWS = [COOLED, *RECOVERS, *FALLS_BACK, *(row for row, *_ in TOLD), *BREAKS, *CONTINUED, *NOT_CONTINUED, *MORE]


def helpers(base_url: str) -> list[dict[str, Any]]:
    """The models that the rows fall back to."""

    def forwarded(name: str, upstream_model: str, **keys: Any) -> dict[str, Any]:
        return {"name": name, "kind": "openai", "base_url": base_url, "upstream_model": upstream_model, **keys}

    return [
        forwarded(SPARE, SPARE, context_window=32_000),
        forwarded("small", "small", context_window=4096),
        forwarded("goes-on", "mock-prefill", assistant_prefill=True),
        forwarded("refuses-prefill", "fault-reject-prefill", assistant_prefill="prefix"),
        forwarded("cuts-too", "fault-cut:after=6"),
        forwarded("other-words", "mock-model:prefix=No. "),
        forwarded("fails-too", "fault-status:code=503,retry_after=7"),
        {"name": "echo", "kind": "echo"},
        {"name": "typed", "kind": "external", "base_url": f"{base_url}/chat/completions", "upstream_model": SPARE},
        {"name": "both", "targets": [{"model": SPARE, "weight": 1}, {"model": "small", "weight": 1}]},
    ]


def write_models(path: Path, rows: list[Row], base_url: str) -> str:
    entries = [row.entry(base_url, stream=stream) for row in rows for stream in row.kinds]
    path.write_text(json.dumps([*entries, *helpers(base_url)]))
    return str(path)


@pytest.fixture(scope="module")
def routed(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    path = write_models(tmp_path_factory.mktemp("models") / "models.json", ROWS, upstream.base_url)
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
    """The text of a whole answer, and that it is one: a stream has its finish and its end mark once, at the end."""
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


def tries_at(upstream: MockUpstream, row: Row, *, stream: bool) -> int:
    return int(upstream.stats()["models"].get(row.upstream_model(stream=stream), 0))


def cases(rows: list[Row]) -> Callable[[Any], Any]:
    found = [pytest.param(row, stream, id=row.model(stream=stream)) for row in rows for stream in row.kinds]
    return pytest.mark.parametrize(("row", "stream"), found)


# One try more, or patience.


@cases(RECOVERS)
def test_the_same_upstream_answers_after_all(
    routed: LiveServer, upstream: MockUpstream, row: Row, *, stream: bool
) -> None:
    began = time.monotonic()
    response = ask(routed, row.model(stream=stream), stream=stream)
    assert text_of(response).startswith(TEXT)
    assert time.monotonic() - began < 15
    assert tries_at(upstream, row, stream=stream) in row.tries
    assert response.headers["x-openai-compat-upstream"] == row.model(stream=stream)
    attempts = int(response.headers["x-openai-compat-attempts"])
    assert attempts in ({1, *row.tries} if row.has_kept_connection else row.tries)
    assert response.headers["x-openai-compat-fallback"] == "false"


def test_the_time_that_a_429_names_is_waited(routed: LiveServer, upstream: MockUpstream) -> None:
    upstream.reset()
    began = time.monotonic()
    text_of(ask(routed, "429-once-whole", stream=False))
    assert time.monotonic() - began >= 0.3


def test_a_broken_event_is_in_the_log(routed: LiveServer) -> None:
    response = ask(routed, "bad-event-streamed", stream=True)
    assert "chatcmpl-broken" not in response.text
    assert "dropped a broken event of the upstream" in routed.log()


# The fallback.


@cases(FALLS_BACK)
def test_the_fallback_answers_and_the_client_sees_nothing_else(
    routed: LiveServer, upstream: MockUpstream, row: Row, *, stream: bool
) -> None:
    began = time.monotonic()
    response = ask(routed, row.model(stream=stream), stream=stream)
    assert text_of(response) == TEXT
    assert time.monotonic() - began < 15
    assert model_of(response) == row.keys["fallbacks"][0]
    assert tries_at(upstream, row, stream=stream) in row.tries
    assert response.headers["x-openai-compat-upstream"] == row.keys["fallbacks"][0]
    assert response.headers["x-openai-compat-fallback"] == "true"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_cooldown_keeps_the_callers_of_all_workers_away(
    routed: LiveServer, upstream: MockUpstream, *, stream: bool
) -> None:
    model = COOLED.model(stream=stream)
    deadline = time.monotonic() + 10
    while ask(routed, model, stream=stream).headers["x-openai-compat-attempts"] != "1":
        assert time.monotonic() < deadline
    time.sleep(0.1)  # twice the age of what a worker may know of the others
    before = tries_at(upstream, COOLED, stream=stream)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: ask(routed, model, stream=stream), range(40)))
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert tries_at(upstream, COOLED, stream=stream) == before


def test_an_upstream_that_comes_back_is_probed_by_one_caller_and_used_again(
    routed: LiveServer, upstream: MockUpstream
) -> None:
    row = Row("returns", "fault-status:code=503,seconds=3")
    seen: list[tuple[float, str, str]] = []

    def call(_: int) -> None:
        began = time.monotonic()
        while not (seen and seen[-1][1] == "false") and time.monotonic() - began < 20:
            response = ask(routed, "returns-whole", stream=False)
            assert text_of(response).startswith(TEXT)
            headers = response.headers
            seen.append(
                (time.monotonic() - began, headers["x-openai-compat-fallback"], headers["x-openai-compat-attempts"])
            )

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(call, range(4)))
    assert seen[-1][1] == "false", "it was not used again"
    assert len(seen) > 50
    # Before anybody knew: two tries of each of the four callers. After that a probe a second, of which one succeeded.
    assert tries_at(upstream, row, stream=False) <= 4 * 2 + 20 + 4
    assert sum(attempts == "2" for _, _, attempts in seen) <= 20


# The error.


@pytest.mark.parametrize(("row", "status", "code"), TOLD, ids=lambda value: getattr(value, "name", None))
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_what_nobody_else_can_mend_is_told_after_one_try(
    routed: LiveServer, upstream: MockUpstream, row: Row, status: int, code: str | None, *, stream: bool
) -> None:
    response = ask(routed, row.model(stream=stream), stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert tries_at(upstream, row, stream=stream) == 1
    assert response.headers["x-openai-compat-attempts"] == "1"
    assert "sk-of-the-server" not in response.text
    if status == 502:
        assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_when_everyone_fails_the_last_one_is_told(routed: LiveServer, *, stream: bool) -> None:
    response = ask(routed, f"all-fail-{'streamed' if stream else 'whole'}", stream=stream)
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.headers["x-openai-compat-upstream"] == "fails-too"


# A break in the middle.


@cases(BREAKS)
def test_a_break_in_the_middle_is_never_a_clean_end(
    routed: LiveServer, upstream: MockUpstream, row: Row, *, stream: bool
) -> None:
    response = ask(routed, row.model(stream=stream), stream=stream)
    *pieces, last = chunks_of(response)
    assert response.status_code == 200
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert TEXT.startswith("".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces))
    assert all(piece["choices"][0]["finish_reason"] is None for piece in pieces)
    assert tries_at(upstream, row, stream=stream) == 1


@cases(CONTINUED)
@pytest.mark.parametrize("wants_usage", [True, False], ids=["usage", "plain"])
def test_another_goes_on_where_it_broke(routed: LiveServer, row: Row, *, stream: bool, wants_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    response = ask(routed, row.model(stream=stream), stream=stream, **options)
    assert text_of(response) == TEXT
    chunks = chunks_of(response)[:-1]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert [bool(chunk.get("usage")) for chunk in chunks].count(True) == wants_usage
    assert [
        choice["delta"]["role"] for chunk in chunks for choice in chunk["choices"] if "role" in choice["delta"]
    ] == ["assistant"]


@cases(NOT_CONTINUED)
def test_where_nobody_can_go_on_the_break_is_told(routed: LiveServer, row: Row, *, stream: bool) -> None:
    response = ask(routed, row.model(stream=stream), stream=stream)
    *pieces, last = chunks_of(response)
    assert last["error"]["code"] == "upstream_cut"
    assert TEXT.startswith("".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces))


def test_a_text_completion_goes_on_from_its_prompt_and_what_was_sent(
    routed: LiveServer, upstream: MockUpstream
) -> None:
    body = {"model": "text-streamed", "prompt": "a b c d e f", "stream": True}
    response = requests.post(f"{routed.base_url}/completions", json=body, timeout=30)
    *chunks, end = chunks_of(response)
    assert end == "[DONE]"
    asked = [json.loads(request["body"]) for request in upstream.requests() if request["path"].endswith("/completions")]
    assert asked[-1]["prompt"].startswith("a b c d e fYou said: ")
    assert len({chunk["id"] for chunk in chunks}) == 1


# The rest.


def test_the_key_of_a_call_goes_to_everyone_who_is_asked(routed: LiveServer, upstream: MockUpstream) -> None:
    headers = {"Idempotency-Key": "once-and-only-once"}
    body = {"model": "keyed-whole", "messages": MESSAGES}
    requests.post(f"{routed.base_url}/chat/completions", json=body, headers=headers, timeout=30)
    keys = [request["headers"].get("idempotency-key") for request in upstream.requests()[-3:]]
    assert keys == ["once-and-only-once"] * 3


def test_a_call_that_leaves_something_behind_is_not_repeated(routed: LiveServer, upstream: MockUpstream) -> None:
    response = ask(routed, "stored-whole", stream=False, store=True)
    assert response.status_code == 500
    assert tries_at(upstream, Row("stored", "fault-status:code=500"), stream=False) == 1


def test_a_chat_page_has_the_fallback_too(routed: LiveServer) -> None:
    body = {"model": "asks-streamed", "messages": MESSAGES}
    response = requests.post(f"{routed.url}/ask?format=text", json=body, timeout=30)
    assert response.text == TEXT
    assert response.headers["x-openai-compat-upstream"] == SPARE


def test_embeddings_have_a_plan_too(routed: LiveServer) -> None:
    body = {"model": "asks-whole", "input": "a cat"}
    response = requests.post(f"{routed.base_url}/embeddings", json=body, timeout=30)
    assert response.json()["data"][0]["embedding"]
    assert response.headers["x-openai-compat-upstream"] == SPARE


def test_an_alias_shares_its_calls_and_says_who_answered(routed: LiveServer) -> None:
    answers = [ask(routed, "both", stream=False) for _ in range(40)]
    assert {model_of(answer) for answer in answers} == {SPARE, "small"}
    assert all(answer.headers["x-openai-compat-upstream"] == model_of(answer) for answer in answers)
    described = requests.get(f"{routed.base_url}/models/both", timeout=10).json()
    assert (described["id"], described["targets"]) == ("both", [SPARE, "small"])


@contextmanager
def connected(server: LiveServer, model: str, *, stream: bool) -> Iterator[socket.socket]:
    """A socket on which the request has been sent and nothing has been read."""
    body = json.dumps({"model": model, "messages": MESSAGES, "stream": stream}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield client


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_leaves_while_an_upstream_is_waited_for_ends_the_wait(
    routed: LiveServer, upstream: MockUpstream, *, stream: bool
) -> None:
    model = f"waits-{'streamed' if stream else 'whole'}"
    with connected(routed, model, stream=stream):
        upstream.wait_until(lambda stats: any(model in name for name in stats["models"]))
    left = time.monotonic()
    while "status=499" not in (line := last_line_of(routed, f"model={model}")):
        assert time.monotonic() - left < 5, line
        time.sleep(0.01)
    assert tries_at(upstream, Row("waits", "fault-status:code=429,retry_after=30"), stream=stream) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_leaves_before_the_first_token_takes_the_try_along(
    routed: LiveServer, upstream: MockUpstream, *, stream: bool
) -> None:
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)
    aborted = upstream.stats()["requests_aborted"]
    with connected(routed, f"thinks-{'streamed' if stream else 'whole'}", stream=stream):
        upstream.wait_until(lambda stats: stats["requests_open"] == 1)
    upstream.wait_until(lambda stats: (stats["requests_open"], stats["requests_aborted"]) == (0, aborted + 1))


def last_line_of(server: LiveServer, what: str) -> str:
    return next((line for line in reversed(server.log().split("\n")) if what in line), "")


def test_machines_share_through_a_redis_and_do_without_it(upstream: MockUpstream, tmp_path: Path) -> None:
    row = Row("shared", "fault-status:code=503")
    settings = {
        "MODELS_FILE": write_models(tmp_path / "models.json", [row], upstream.base_url),
        "UPSTREAM_KEY": "sk-1",
    }
    with running_redis(tmp_path) as redis:
        settings["SHARED_STATE_URL"] = redis.url
        with LiveServer(settings) as one, LiveServer(settings) as other:
            assert text_of(ask(one, "shared-whole", stream=False)) == TEXT
            tries = tries_at(upstream, row, stream=False)
            answer = ask(other, "shared-whole", stream=False)
            assert (text_of(answer), answer.headers["x-openai-compat-attempts"]) == (TEXT, "1")
            assert tries_at(upstream, row, stream=False) == tries == 2
            redis.stop()
            deadline = time.monotonic() + 10
            while "the shared state is unavailable" not in one.log() + other.log():
                assert [text_of(ask(server, "shared-whole", stream=False)) for server in (one, other)] == [TEXT] * 2
                assert time.monotonic() < deadline


def test_what_workers_share_goes_with_the_server(upstream: MockUpstream, tmp_path: Path) -> None:
    settings = {
        "MODELS_FILE": write_models(tmp_path / "models.json", [Row("left", "fault-quota")], upstream.base_url),
        "UPSTREAM_KEY": "sk-1",
        "TMPDIR": str(tmp_path),
    }
    with LiveServer(settings, workers=2) as server:
        assert text_of(ask(server, "left-whole", stream=False)) == TEXT
        assert [file.name for folder in tmp_path.glob("openai-compat-*") for file in folder.glob("state")] == ["state"]
    assert not list(tmp_path.glob("openai-compat-*"))


def test_an_upstream_that_is_started_again_is_used_again(upstream: MockUpstream, tmp_path: Path) -> None:
    """Between two upstreams on one port there is none: every call is answered by the fallback."""
    with MockUpstream() as first:
        port = str(first.address[1])
        row = Row("away", "mock-model", {**FALL_BACK, "cooldown": 1, "base_url": first.base_url}, kinds=WHOLE)
        settings = {
            "MODELS_FILE": write_models(tmp_path / "models.json", [row], upstream.base_url),
            "UPSTREAM_KEY": "sk-1",
        }
        with LiveServer(settings, workers=2) as server:

            def answered_by() -> str:
                response = ask(server, "away-whole", stream=False)
                assert text_of(response).startswith(TEXT)
                return response.headers["x-openai-compat-upstream"]

            assert answered_by() == "away-whole"
            first.process.terminate()
            first.process.wait(10)
            away = time.monotonic()
            while time.monotonic() - away < 2.5:
                assert answered_by() == SPARE
            with MockUpstream("--port", port):
                returned = time.monotonic()
                while answered_by() == SPARE:
                    assert time.monotonic() - returned < 15
