"""The Messages API in front of chat upstreams that write their streams in unusual ways, fail, or are slow."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.messages_events import Event, parse_events, read_message
from tests.support.mock_upstream import MockUpstream
from tests.support.raw_server import RawServer, read_request
from tests.support.waiting import wait_until

EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
MESSAGES = [{"role": "user", "content": "one two three four five six"}]
HEADERS = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "x-api-key": "any"}
DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59,
    "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 4},
}  # fmt: skip


def chunk(delta: Any, finish_reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return (
        b"data: %b\n\n"
        % json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice], **fields}).encode()
    )


def calls(*entries: tuple[int, str | None, str | None, str]) -> dict[str, Any]:
    """Return a delta with parts of tool calls, each with its index, id, name and arguments."""
    return {
        "tool_calls": [
            {"index": index, **({"id": id, "type": "function"} if id else {}),
             "function": {**({"name": name} if name else {}), "arguments": arguments}}
            for index, id, name, arguments in entries
        ]
    }  # fmt: skip


def complete(status: str, body: Any, *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*lines, "Connection: close\r\n\r\n"]).encode() + data


HI = chunk({"content": "Hi"})
STOP = chunk({}, "stop")
CALLED = chunk({}, "tool_calls")
ADD_A = chunk(calls((0, "call_a", "add", '{"a":1}')))
STREAMS = {
    # vLLM sends an empty list with every text.
    "empty-calls": [chunk({"role": "assistant", "content": "", "tool_calls": []}),
                    *(chunk({"content": text, "tool_calls": []}) for text in ("Hi", " you")), STOP],
    "arguments-at-once": [ADD_A, CALLED],
    "interleaved": [chunk(calls((0, "call_a", "add", ""), (1, "call_b", "add", ""))),
                    chunk(calls((1, None, None, '{"b":'))), chunk(calls((0, None, None, '{"a":1}'))),
                    chunk(calls((1, None, None, "2}"))), CALLED],
    # Some servers give all calls the index 0.
    "same-index": [ADD_A, chunk(calls((0, "call_b", "add", '{"b":2}'))), CALLED],
    "stop-after-calls": [chunk({"content": "Let me."}), ADD_A, STOP],
    "calls-without-calls": [HI, CALLED],
    "thinks": [chunk({"reasoning_content": "Hm"}), chunk({"reasoning_content": "m."}), HI,
               chunk({}, "stop", usage=USAGE)],
    "refuses": [chunk({"refusal": "I "}), chunk({"refusal": "can't."}), STOP],
    "stopped": [HI, b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop","stop_reason":"END"}]}\n\n'],
    "length": [HI, chunk({}, "length")],
    "cut-in-call": [chunk(calls((0, "call_a", "add", '{"a":')))],
}  # fmt: skip
BUSY = {"error": {"message": "Busy.", "type": "overloaded_error"}}
REFUSALS = {
    "overloaded": complete("529 Overloaded", BUSY, "Retry-After: 7"),
    "unavailable": complete("503 Unavailable", BUSY, "x-should-retry: false"),
    "llama-cpp": complete("400 Bad Request", {
        "error": {"code": 400, "message": "the request exceeds the available context size (4096 tokens): 9000 tokens",
                  "type": "exceed_context_size_error", "n_ctx": 4096}}),
    "vllm-overflow": complete("400 Bad Request", {
        "object": "error", "type": "BadRequestError", "code": 400,
        "message": "This model's maximum context length is 4096 tokens. However, you requested 9100 tokens (9000 in "
                   "the messages, 100 in the completion)."}),
    "slow-refusal": complete("503 Unavailable", BUSY),
    "ray": complete("404 Not Found", {"error": {"message": "No such model.", "type": "NotFoundError", "code": 404}}),
    "secret": complete("400 Bad Request", {"error": {"message": "Wrong: sk-of-the-server", "type": "x"}}),
}  # fmt: skip


class Upstream:
    """An upstream whose answer the model's name chooses."""

    def __init__(self) -> None:
        self.payload: Event = {}
        self.head = b""
        self.go_on = threading.Event()
        self.server = RawServer(self._serve)

    def _serve(self, client: socket.socket) -> None:
        self.head, _, body = read_request(client).partition(b"\r\n\r\n")
        self.payload = json.loads(body)
        model = self.payload["model"]
        if model in {"slow", "slow-refusal"}:
            self.go_on.wait(20)
        if model in REFUSALS:
            client.sendall(REFUSALS[model])
            return
        blocks = STREAMS.get(model) or [chunk({"content": "Hi"}), chunk({}, "stop")]
        client.sendall(EVENTS_HEAD + b"".join(blocks) + (b"" if model == "cut-in-call" else DONE))


@pytest.fixture(scope="module")
def running() -> Iterator[Upstream]:
    upstream = Upstream()
    with upstream.server:
        yield upstream


@pytest.fixture(scope="module")
def live(running: Upstream, upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    row = {"kind": "openai", "base_url": f"{running.server.url}/v1", "api_key_env": "UPSTREAM_KEY"}
    mock = {"kind": "openai", "base_url": upstream.base_url}
    models: list[dict[str, Any]] = [{"name": name, **row} for name in (*STREAMS, *REFUSALS, "slow", "healthy")]
    models += [{"name": name, **mock} for name in ("fault-status:code=500", "fault-cut")]
    models += [
        {"name": "small", **row, "max_output_tokens": 8192, "upstream_model": "healthy"},
        {
            "name": "profiled",
            **row,
            "upstream_model": "healthy",
            "profile": {"drop": ["user"], "rename": {"max_completion_tokens": "max_tokens"}},
        },
        {"name": "routed", "targets": ["fault-status:code=500"], "fallbacks": ["thinks"], "retries": 0},
        {"name": "cut-routed", "targets": ["fault-cut"], "fallbacks": ["healthy"], "on_stream_break": "continue"},
        {
            "name": "impatient",
            **row,
            "upstream_model": "slow",
            "timeout": {"first_token": 0.3},
            "fallbacks": ["healthy"],
        },
        {"name": "echo", "kind": "echo"},
    ]
    path: Path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps(models))
    settings = {
        "MODELS_FILE": str(path), "OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "sk-of-the-server",
        "UPSTREAM_KEY": "sk-of-the-server", "SSE_KEEPALIVE_SECONDS": "0.1", "MAX_CONCURRENT_REQUESTS": "3",
        "MAX_QUEUED_REQUESTS": "0", "REQUEST_BODY_TIMEOUT": "1",
    }  # fmt: skip
    with LiveServer(settings) as server:
        yield server


def post(server: LiveServer, model: str, **fields: Any) -> requests.Response:
    payload = {"model": model, "max_tokens": 100, "messages": MESSAGES, **fields}
    return requests.post(f"{server.url}/v1/messages?beta=true", json=payload, headers=HEADERS, timeout=20)


def stream(server: LiveServer, model: str, **fields: Any) -> list[Event]:
    response = post(server, model, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert b"[DONE]" not in response.content
    return parse_events(response.content)


def error_of(response: requests.Response) -> Event:
    value = response.json()
    assert (value["type"], value["request_id"]) == ("error", response.headers["request-id"])
    error: Event = value["error"]
    assert error.keys() == {"type", "message"}
    return error


def both_of(server: LiveServer, model: str) -> Event:
    """Return the message of a stream. The upstream streams to a call that is not streamed, too."""
    streamed, whole = read_message(stream(server, model)), post(server, model).json()
    assert {**streamed, "id": ""} == {**whole, "id": ""}
    return streamed


def test_a_text_beside_empty_lists_of_calls_is_kept(live: LiveServer) -> None:
    message = both_of(live, "empty-calls")
    assert message["content"] == [{"type": "text", "text": "Hi you"}]
    assert message["stop_reason"] == "end_turn"


@pytest.mark.parametrize("model", ["interleaved", "same-index"])
def test_parallel_calls_are_told_apart(live: LiveServer, model: str) -> None:
    message = both_of(live, model)
    assert [(block["id"], block["name"], block["input"]) for block in message["content"]] == [
        ("call_a", "add", {"a": 1}), ("call_b", "add", {"b": 2}),
    ]  # fmt: skip
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("model", "types"), [("arguments-at-once", ["tool_use"]), ("stop-after-calls", ["text", "tool_use"])]
)
def test_a_call_keeps_its_arguments_and_ends_the_turn(live: LiveServer, model: str, types: list[str]) -> None:
    message = both_of(live, model)
    assert [block["type"] for block in message["content"]] == types
    assert message["content"][-1]["input"] == {"a": 1}
    assert message["stop_reason"] == "tool_use"


def test_a_stop_for_tools_without_a_call_ends_the_turn(live: LiveServer) -> None:
    assert both_of(live, "calls-without-calls")["stop_reason"] == "end_turn"


def test_thinking_and_true_usage(live: LiveServer) -> None:
    events = stream(live, "thinks")
    message = read_message(events)
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hmm.", "signature": ""}, {"type": "text", "text": "Hi"},
    ]  # fmt: skip
    assert message["usage"] == {
        "input_tokens": 10, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0, "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }  # fmt: skip
    assert events[0]["message"]["usage"]["input_tokens"] > 6
    wait_until(lambda: "completion_tokens=9" in live.log(), live.log)


@pytest.mark.parametrize(("model", "reason"), [("refuses", "refusal"), ("length", "max_tokens")])
def test_other_ends_of_answers(live: LiveServer, model: str, reason: str) -> None:
    assert both_of(live, model)["stop_reason"] == reason


def test_the_stop_sequence_that_ended_an_answer(live: LiveServer) -> None:
    message = read_message(stream(live, "stopped", stop_sequences=["END"]))
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize("model", ["cut-in-call", "fault-cut", "fault-cut-mid-event", "fault-reset"])
def test_a_truncated_stream_ends_with_one_error_and_no_message_stop(live: LiveServer, model: str) -> None:
    first, *inner, last = stream(live, model)
    assert first["type"] == "message_start"
    assert last["type"] == "error"
    assert last["error"]["type"] == "api_error"
    assert {event["type"] for event in inner} <= {"content_block_start", "content_block_delta"}


def test_an_error_in_the_upstreams_stream_is_anthropics(live: LiveServer) -> None:
    last = stream(live, "fault-error-in-stream")[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert last["request_id"].startswith("req_")


@pytest.mark.parametrize("model", ["fault-cut", "fault-empty", "fault-bad-json", "fault-reset-before"])
def test_a_broken_answer_that_is_not_streamed_has_a_status(live: LiveServer, model: str) -> None:
    response = post(live, model)
    assert (response.status_code, error_of(response)["type"]) == (502, "api_error")


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "streamed"])
@pytest.mark.parametrize(
    ("model", "status", "type_", "message"),
    [
        ("fault-status:code=429", 429, "rate_limit_error", ""),
        ("fault-status:code=401", 502, "api_error", ""),
        ("overloaded", 529, "overloaded_error", "Busy."),
        ("unavailable", 503, "overloaded_error", "Busy."),
        ("fault-context-length", 400, "invalid_request_error", "prompt is too long: 9001 tokens > 8192 maximum"),
        ("llama-cpp", 400, "invalid_request_error", "prompt is too long: 9000 tokens > 4096 maximum"),
        ("vllm-overflow", 400, "invalid_request_error", "prompt is too long: 9000 tokens > 4096 maximum"),
        ("ray", 404, "not_found_error", "No such model."),
        ("secret", 400, "invalid_request_error", "Wrong: ***"),
        ("fault-html-error", 502, "api_error", ""),
        ("fault-quota", 402, "billing_error", ""),
        ("fault-unknown", 404, "not_found_error", ""),
    ],
)
def test_refusals_of_upstreams_are_rewritten(
    live: LiveServer, model: str, status: int, type_: str, message: str, *, stream: bool
) -> None:
    response = post(live, model, stream=stream)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (status, type_)
    assert error["message"] == message or (not message and error["message"])
    assert "sk-of-the-server" not in response.text


def test_headers_about_retries_are_kept(live: LiveServer) -> None:
    assert post(live, "overloaded").headers["retry-after"] == "7"
    assert post(live, "unavailable").headers["x-should-retry"] == "false"
    assert post(live, "fault-status:code=401").headers["x-should-retry"] == "false"


def test_the_limit_is_lowered_and_told(live: LiveServer, running: Upstream) -> None:
    response = post(live, "small", max_tokens=128_000)
    assert running.payload["max_completion_tokens"] == 8192
    assert response.headers["x-openai-compat-adapted"] == "max_tokens=8192"


def test_the_upstream_sees_a_chat_call(live: LiveServer, running: Upstream) -> None:
    post(live, "healthy")
    assert running.head.startswith(b"POST /v1/chat/completions ")
    assert b"anthropic-" not in running.head.lower()


def test_a_profile_applies_to_the_translated_call(live: LiveServer, running: Upstream) -> None:
    response = post(live, "profiled", metadata={"user_id": "u"})
    assert running.payload.keys() == {"model", "messages", "max_tokens", "stream"}
    assert response.headers["x-openai-compat-adapted"] == "user=dropped, max_completion_tokens=max_tokens"


def test_a_failure_before_the_first_event_is_answered_by_the_fallback(live: LiveServer) -> None:
    response = post(live, "routed", stream=True)
    assert read_message(parse_events(response.content))["content"][1]["text"] == "Hi"
    assert response.headers["x-openai-compat-upstream"] == "thinks"
    assert read_message(parse_events(response.content))["model"] == "routed"


def test_a_cut_in_the_middle_is_no_answer_of_two_models(live: LiveServer) -> None:
    assert stream(live, "cut-routed")[-1]["type"] == "error"


def test_a_slow_first_token_is_bridged_by_pings(live: LiveServer, running: Upstream) -> None:
    running.go_on.clear()
    payload = {"model": "slow", "max_tokens": 9, "messages": MESSAGES, "stream": True}
    with requests.post(f"{live.url}/v1/messages", json=payload, stream=True, timeout=20) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(6)] == [b"event: ping", b'data: {"type":"ping"}', b""] * 2
        running.go_on.set()
        rest = b"\n".join(lines)
    assert (
        read_message(parse_events(b'event: ping\ndata: {"type":"ping"}\n\n' + rest + b"\n"))["stop_reason"]
        == "end_turn"
    )


def test_a_failure_after_pings_is_still_the_first_event(live: LiveServer, running: Upstream) -> None:
    running.go_on.clear()
    payload = {"model": "slow-refusal", "max_tokens": 9, "messages": MESSAGES, "stream": True}
    with requests.post(f"{live.url}/v1/messages", json=payload, stream=True, timeout=20) as response:
        lines = response.iter_lines()
        assert next(lines) == b"event: ping"
        running.go_on.set()
        rest = b"event: ping\n" + b"\n".join(lines) + b"\n"
    (error,) = parse_events(rest)
    assert (error["type"], error["error"]) == ("error", {"type": "overloaded_error", "message": "Busy."})


def test_the_limit_on_the_first_token_applies(live: LiveServer, running: Upstream) -> None:
    running.go_on.clear()
    assert read_message(stream(live, "impatient"))["content"] == [{"type": "text", "text": "Hi"}]
    running.go_on.set()


def test_a_client_that_hangs_up_cancels_the_upstream(live: LiveServer, upstream: MockUpstream) -> None:
    upstream.reset()
    payload = json.dumps({"model": "fault-stall", "max_tokens": 9, "messages": MESSAGES, "stream": True})
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    connection.request("POST", "/v1/messages", payload, {"Content-Type": "application/json"})
    assert connection.getresponse().read(10)
    connection.close()
    upstream.wait_until(lambda stats: stats["requests_open"] == 0 and stats["requests_aborted"] == 1)


def test_the_limit_on_concurrent_calls_has_anthropics_form(live: LiveServer, running: Upstream) -> None:
    running.go_on.clear()
    payload = {"model": "slow", "max_tokens": 9, "messages": MESSAGES, "stream": True}
    held = [requests.post(f"{live.url}/v1/messages", json=payload, stream=True, timeout=20) for _ in range(3)]
    refused = post(live, "echo")
    assert (refused.status_code, error_of(refused)["type"]) == (503, "overloaded_error")
    assert int(refused.headers["retry-after"]) >= 1
    running.go_on.set()
    for response in held:
        assert b"message_stop" in response.content


def test_a_body_that_arrives_too_slowly_gets_anthropics_error(live: LiveServer) -> None:
    head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as client:
        client.sendall(head)
        response = http.client.HTTPResponse(client)
        response.begin()
        value = json.loads(response.read())
    assert (response.status, value["error"]["type"]) == (408, "invalid_request_error")
    assert value["request_id"] == response.headers["request-id"]
