"""The official Node client, with the results of `node/echo.mjs` and `node/upstream.mjs`."""

from __future__ import annotations

import base64
import json
import math
import struct
import subprocess
from typing import Any

import pytest

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.tools import NODE_DIR, require_node

Results = dict[str, Any]
TEXT = "hello there"
MODEL = "mock-gpt-model"

CORRECTED = {"cut", "emptyError", "htmlError"}
"""Scenarios in which the server corrects the upstream's answer."""


def run_script(name: str, *arguments: str) -> Results:
    command = [require_node(), NODE_DIR / name, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    results: Results = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def echo(echo_server: LiveServer) -> Results:
    return run_script("echo.mjs", echo_server.url)


class TestEcho:
    def test_chat(self, echo: Results) -> None:
        answer = echo["chat"]
        assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == 2

    def test_choices_and_logprobs(self, echo: Results) -> None:
        choices = echo["choices"]["choices"]
        assert [choice["index"] for choice in choices] == [0, 1]
        assert ["".join(item["token"] for item in choice["logprobs"]["content"]) for choice in choices] == [TEXT] * 2

    def test_request_id(self, echo: Results) -> None:
        found = echo["requestID"]
        assert found["inHeader"].startswith("req_")
        assert set(found.values()) == {found["inHeader"]}

    def test_stream(self, echo: Results) -> None:
        chunks = echo["stream"]
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert deltas == [
            {"role": "assistant", "content": "", "refusal": None},
            {"content": "hello"},
            {"content": " there"},
            {},
        ]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
        assert not any("usage" in chunk for chunk in chunks)

    def test_stream_with_usage(self, echo: Results) -> None:
        *chunks, last = echo["streamWithUsage"]
        assert all(chunk["usage"] is None for chunk in chunks)
        assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 2)

    def test_stream_helper(self, echo: Results) -> None:
        found = echo["streamHelper"]
        assert "".join(found["deltas"]) == TEXT
        choice = found["completion"]["choices"][0]
        assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", TEXT)
        assert choice["finish_reason"] == "stop"

    def test_streamed_tool_call(self, echo: Results) -> None:
        choice = echo["streamedTool"]["choices"][0]
        call = choice["message"]["tool_calls"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
        assert json.loads(call["function"]["arguments"]).keys() == {"city", "days"}

    def test_tool_loop(self, echo: Results) -> None:
        found = echo["toolLoop"]
        assert found["text"] == "sunny"
        assert [given.keys() for given in found["called"]] == [{"city", "days"}]
        assert found["roles"] == ["user", "assistant", "tool", "assistant"]

    def test_structured_answer(self, echo: Results) -> None:
        assert echo["parse"].keys() == {"city"}

    def test_completions(self, echo: Results) -> None:
        assert [choice["text"] for choice in echo["completion"]["choices"]] == ["one two"] * 2 + ["three"] * 2
        assert "".join(chunk["choices"][0]["text"] for chunk in echo["completionStream"]) == "one two"

    def test_embeddings_are_decoded(self, echo: Results) -> None:
        """The client requests base64 by default."""
        found = echo["embeddings"]
        for decoded, floats, raw in zip(found["decoded"], found["floats"], found["base64"], strict=True):
            assert len(decoded["embedding"]) == 16
            assert decoded["embedding"] == pytest.approx(floats["embedding"], abs=1e-6)
            assert math.hypot(*decoded["embedding"]) == pytest.approx(1)
            assert struct.unpack("<16f", base64.b64decode(raw["embedding"])) == pytest.approx(decoded["embedding"])
        assert [item["index"] for item in found["decoded"]] == [0, 1]

    def test_models(self, echo: Results) -> None:
        assert [model["id"] for model in echo["models"]] == [MODEL]
        assert echo["model"]["id"] == MODEL

    def test_azure(self, echo: Results) -> None:
        assert echo["azure"] == TEXT

    def test_errors(self, echo: Results) -> None:
        unknown, bad, bad_stream = echo["unknownModel"], echo["badPayload"], echo["badPayloadOfStream"]
        assert (unknown["thrown"], unknown["code"], unknown["param"]) == ("NotFoundError", "model_not_found", "model")
        assert unknown["hasRequestID"]
        assert (bad["thrown"], bad["param"]) == ("BadRequestError", "messages[0].content")
        assert (bad_stream["thrown"], bad_stream["param"]) == ("BadRequestError", "n")
        assert (echo["noUpstream"]["thrown"], echo["noUpstream"]["code"]) == ("NotFoundError", "unknown_url")


@pytest.fixture(scope="module")
def direct(running_mock: MockUpstream) -> Results:
    return run_script("upstream.mjs", running_mock.url, running_mock.url)


@pytest.fixture(scope="module")
def proxied(running_mock: MockUpstream, proxy: LiveServer) -> Results:
    return run_script("upstream.mjs", proxy.url, running_mock.url)


ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "InternalServerError",
}


class TestUpstream:
    def test_the_server_behaves_like_the_upstream(self, direct: Results, proxied: Results) -> None:
        """Compare answers, streams, errors, retries and cancelled requests."""
        assert direct.keys() == proxied.keys()
        for name in direct.keys() - CORRECTED:
            assert proxied[name] == direct[name], name

    def test_only_the_expected_scenarios_throw(self, proxied: Results) -> None:
        failed = {name for name, result in proxied.items() if isinstance(result, dict) and "thrown" in result}
        rejections = {f"status {status}{of}" for status in ERRORS for of in ("", " of a stream")}
        assert failed == {*rejections, "unknownModel", "errorInStream", "cut", "htmlError"}

    def test_errors(self, proxied: Results) -> None:
        for status, kind in ERRORS.items():
            for name in (f"status {status}", f"status {status} of a stream"):
                error = proxied[name]
                assert (error["thrown"], error["status"], error["hasRequestID"]) == (kind, status, True), name
        assert proxied["unknownModel"]["code"] == "model_not_found"
        assert (proxied["errorInStream"]["thrown"], proxied["errorInStream"]["type"]) == ("APIError", "server_error")

    def test_retries(self, proxied: Results) -> None:
        text = f"You said: {TEXT}"
        assert proxied["afterRateLimit"] == {"outcome": text, "requests": 2}
        assert proxied["afterServerErrors"] == {"outcome": text, "requests": 3}
        assert (proxied["tooOften"]["outcome"]["status"], proxied["tooOften"]["requests"]) == (500, 2)
        assert (proxied["noRetry"]["outcome"]["status"], proxied["noRetry"]["requests"]) == (500, 1)

    def test_cancelled_requests_abort_the_upstream_request(self, proxied: Results) -> None:
        """The script waits until the upstream request is aborted."""
        for name in ("abortBeforeAnswer", "abortBeforeStream"):
            assert proxied[name]["outcome"]["thrown"] == "APIUserAbortError"
        assert proxied["timeout"]["outcome"]["thrown"] == "APIConnectionTimeoutError"
        assert proxied["leaveStream"] == {"outcome": ["", "You", " said:"], "open": 0}
        assert proxied["abortStream"] == {"outcome": "aborted", "open": 0}

    def test_embeddings_and_tools(self, proxied: Results) -> None:
        assert [len(item["embedding"]) for item in proxied["embeddings"]["data"]] == [16, 16]
        for choice in proxied["tools"]["choices"]:
            assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["get_weather"] * 2
        assert proxied["toolLoop"] == f"You said: {TEXT}"

    def test_a_truncated_stream_throws(self, direct: Results, proxied: Results) -> None:
        """Without the server the client takes the truncated answer for a complete one."""
        assert isinstance(direct["cut"], list)
        assert (proxied["cut"]["thrown"], proxied["cut"]["code"]) == ("APIError", "upstream_cut")

    def test_an_empty_error_is_ignored(self, direct: Results, proxied: Results) -> None:
        assert direct["emptyError"]["thrown"] == "APIError"
        assert proxied["emptyError"] == f"You said: {TEXT}"

    def test_an_html_error_page_is_an_error(self, proxied: Results) -> None:
        error = proxied["htmlError"]
        assert (error["thrown"], error["status"]) == ("InternalServerError", 502)
        assert "<" not in error["message"]
