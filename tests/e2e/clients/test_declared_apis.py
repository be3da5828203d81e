"""The examples of docs/guides/custom-http-apis.md, with the fake APIs that they declare."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import openai
import pytest
import requests
import yaml

from tests.docs.markdown import read_sections
from tests.support.fake_chat_apis import HOST, KEY, FakeChatAPIs
from tests.support.live_server import LiveServer
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT

MODELS = ("helpdesk", "typing", "parlour", "lines", "oracle", "claude")
TEXT = "How is the weather in Zürich? 🏔"
USER: Any = {"role": "user", "content": TEXT}


@pytest.fixture(scope="module")
def apis() -> Iterator[FakeChatAPIs]:
    with FakeChatAPIs() as apis:
        yield apis


@pytest.fixture(scope="module")
def file(apis: FakeChatAPIs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models file with the last shown model config of each name."""
    blocks = [
        block for section in read_sections(ROOT / "docs" / "guides" / "custom-http-apis.md") for block in section.blocks
    ]
    entries = {
        entry["name"]: entry
        for block in blocks
        if block.language == "yaml"
        for entry in yaml.safe_load(block.text.replace(HOST, apis.url))
    }
    path = tmp_path_factory.mktemp("declared") / "models.yaml"
    path.write_text(yaml.safe_dump(list(entries.values())))
    return path


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[LiveServer]:
    with LiveServer({"MODELS_FILE": str(file), "APIS_KEY": KEY}) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def ask(server: LiveServer, model: str, **more: Any) -> requests.Response:
    body = {"model": model, "messages": [USER], **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)


@pytest.mark.parametrize("model", MODELS)
def test_the_official_client_gets_complete_and_streamed_answers(client: openai.OpenAI, model: str) -> None:
    complete = client.chat.completions.create(model=model, messages=[USER])
    assert (complete.choices[0].message.content, complete.choices[0].finish_reason) == (TEXT, "stop")
    chunks = list(client.chat.completions.create(model=model, messages=[USER], stream=True))
    deltas = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(deltas) == TEXT
    assert len(deltas) > 3 or model == "oracle"  # bare text is split as it arrives
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_usage_is_that_of_the_api(server: LiveServer) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for model, prompt in (("helpdesk", 3), ("parlour", 6), ("lines", 5), ("claude", 4)):
        assert ask(server, model).json()["usage"]["prompt_tokens"] == prompt
        *_, last, _done = ask(server, model, **options).text.strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["usage"]["prompt_tokens"] == prompt


def test_requests_are_built_as_declared(server: LiveServer, apis: FakeChatAPIs) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}, {"type": "text", "text": " now"}]},
    ]
    ask(server, "helpdesk", messages=conversation, max_completion_tokens=7)
    turns = [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Hello!"}]
    assert json.loads(apis.requests[-1].body) == {"question": "Bye now", "earlier": turns, "maxLength": 7}
    assert apis.requests[-1].headers["x-key"] == KEY

    ask(server, "typing", messages=conversation, metadata={"tone": "gr&ave"})
    request = apis.requests[-1]
    assert (request.method, request.body) == ("GET", "")
    assert parse_qs(urlsplit(request.path).query) == {"q": ["Bye now"], "key": [KEY], "tone": ["gr&ave"]}

    ask(server, "parlour", messages=conversation)
    turns_of_parlour = [("guest", "Hi"), ("host", "Hello!"), ("guest", "Bye now")]
    assert json.loads(apis.requests[-1].body) == {
        "chat": [{"speaker": speaker, "says": text} for speaker, text in turns_of_parlour]
    }

    ask(server, "lines", messages=conversation, stop=["x"], stream=True)
    assert apis.requests[-1].path == "/lines/stream"
    assert json.loads(apis.requests[-1].body) == {
        "turns": [*({"by": turn["role"], "says": turn["text"]} for turn in turns), {"by": "user", "says": "Bye now"}],
        "style": {"until": ["x"]},
    }

    ask(server, "oracle", messages=conversation)
    assert parse_qs(apis.requests[-1].body) == {
        "prompt": ["User: Hi\nAssistant: Hello!\nUser: Bye now"],
        "tone": ["Be brief."],
    }

    ask(server, "claude", messages=conversation, stop="x")
    sent = json.loads(apis.requests[-1].body)
    assert (sent["model"], sent["system"], sent["max_tokens"]) == ("claude-sonnet", "Be brief.", 1024)
    assert (sent["stop_sequences"], sent["stream"]) == (["x"], False)
    assert "temperature" not in sent


@pytest.mark.parametrize(
    ("model", "status", "type_", "code", "retry"),
    [
        ("helpdesk", 429, "rate_limit_error", "QUOTA", "2"),
        ("typing", 503, "server_error", "overloaded", "2"),
        ("parlour", 429, "rate_limit_error", "rate_limit_exceeded", None),
        ("lines", 422, "invalid_request_error", None, None),
        ("oracle", 429, "rate_limit_error", "rate_limit_exceeded", "9"),
        ("claude", 503, "server_error", "overloaded_error", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_mapped_as_declared(
    server: LiveServer, model: str, status: int, type_: str, code: str | None, retry: str | None, stream: bool
) -> None:
    reply = ask(server, model, messages=[{"role": "user", "content": "busy?"}], stream=stream)
    error = reply.json()["error"]
    expected = 400 if status == 422 else status
    assert (reply.status_code, error["type"], error["code"]) == (expected, type_, code)
    assert reply.headers.get("retry-after") == retry


def test_a_rejected_key_of_the_server_is_a_502(file: Path) -> None:
    with LiveServer({"MODELS_FILE": str(file), "APIS_KEY": "outdated-key"}) as server:
        for model in MODELS:
            reply = ask(server, model)
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_authentication_failed")
        assert "outdated-key" not in server.log()


def test_dropped_parameters_are_reported_and_required_ones_rejected(server: LiveServer) -> None:
    assert ask(server, "helpdesk", temperature=0.5).headers["x-openai-compat-adapted"] == "temperature=dropped"
    assert "x-openai-compat-adapted" not in ask(server, "lines", temperature=0.5).headers
    two = [{"role": "user", "content": "One"}, USER]
    reply = ask(server, "typing", messages=two)
    assert reply.headers["x-openai-compat-adapted"] == "messages=last_user_message"
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert ask(server, "helpdesk", tools=tools).headers["x-openai-compat-adapted"] == "tools=dropped"
    for parameters in ({"stop": "x"}, {"n": 2}):
        error = ask(server, "helpdesk", **parameters).json()["error"]
        assert (error["param"], error["code"]) == (next(iter(parameters)), "unsupported_parameter")
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    reply = ask(server, "oracle", messages=[{"role": "user", "content": image}])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")


def test_ids_are_response_headers(server: LiveServer) -> None:
    assert ask(server, "helpdesk").headers["x-openai-compat-id-ticket"] == "t-17"
    for stream in (False, True):
        assert ask(server, "parlour", stream=stream).headers["x-openai-compat-id-table"] == "t-4"
        assert ask(server, "claude", stream=stream).headers["x-openai-compat-id-message"] == "msg_1"


class TestCheckAdapter:
    def check(self, file: Path, *options: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "openai_compat", "check-adapter", str(file), *options]
        environment = plain_environment({"APIS_KEY": key, "PYTHONPATH": str(ROOT)})
        return subprocess.run(command, env=environment, cwd=file.parent, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize("model", MODELS)
    def test_each_step_is_shown_without_secrets(self, file: Path, model: str) -> None:
        done = self.check(file, "--model", model, "--message", TEXT, "--stream")
        assert done.returncode == 0, done.stderr
        assert f"content: {json.dumps(TEXT, ensure_ascii=False)}" in done.stdout
        assert KEY not in done.stdout
        assert re.search(r"\*\*\*", done.stdout)
        if model != "oracle":
            assert re.search(r"^    (text|delta): \S.* -> \"", done.stdout, re.MULTILINE)

    def test_a_key_in_the_url_is_redacted(self, tmp_path: Path) -> None:
        file = tmp_path / "models.yaml"
        file.write_text(yaml.safe_dump([{"name": "a", "kind": "external", "base_url": "http://a.test/?k=${APIS_KEY}"}]))
        done = self.check(file, "--dry-run")
        assert (done.returncode, "POST http://a.test/?k=***" in done.stdout) == (0, True)

    def test_a_dry_run_sends_nothing(self, file: Path, apis: FakeChatAPIs) -> None:
        before = len(apis.requests)
        done = self.check(file, "--model", "claude", "--dry-run")
        assert done.returncode == 0
        assert '"max_tokens": 1024' in done.stdout
        assert "without a value, so left out: stop && [stop][], system_prompt, temperature" in done.stdout
        assert len(apis.requests) == before

    def test_a_failed_call_is_shown(self, file: Path) -> None:
        done = self.check(file, "--model", "helpdesk", "--message", "busy?")
        assert done.returncode == 1
        assert "No answer: Too many questions." in done.stdout
        assert "errors.when: status == 'failed' -> true" in done.stdout
        assert 'errors.code: reason.code -> "QUOTA"' in done.stdout
        assert "the client gets: 429 rate_limit_error, code QUOTA\n  retry-after: 2" in done.stdout

    @pytest.mark.parametrize("model", ["typing", "lines", "claude"])
    def test_an_error_response_is_shown(self, file: Path, model: str) -> None:
        done = self.check(file, "--model", model, "--message", "busy?")
        assert done.returncode == 1
        shown = {
            "typing": (
                "503 text/plain, an error",
                "come back later",
                "header x-come-back -> 2",
                "gets: 503 server_error",
            ),
            "lines": (
                "422 application/json, an error",
                'errors.message: errors[0].title -> "I do',
                "gets: 400 invalid",
            ),
            "claude": (
                "529 application/json",
                'errors.code: error.type -> "overloaded_error"',
                "gets: 503 server_error",
            ),
        }
        for line in shown[model]:
            assert line in done.stdout

    def test_a_request_is_validated_and_mapped(self, file: Path, tmp_path: Path) -> None:
        request: dict[str, Any] = {
            "messages": [USER, {"role": "assistant", "content": "Cold."}, USER],
            "temperature": 1,
        }
        (tmp_path / "request.json").write_text(json.dumps(request))
        done = self.check(file, "--model", "helpdesk", "--request", f"@{tmp_path / 'request.json'}")
        assert done.returncode == 0, done.stderr
        assert '"text": "Cold."' in done.stdout
        assert "x-openai-compat-adapted: temperature=dropped\n  x-openai-compat-id-ticket: t-17" in done.stdout
        rejected = self.check(file, "--model", "helpdesk", "--request", json.dumps({**request, "stop": "x"}))
        assert (rejected.returncode, "Unsupported parameter: 'stop'" in rejected.stdout) == (1, True)
        for wrong in ('{"messages": "x"}', "@/nowhere"):
            assert self.check(file, "--model", "helpdesk", "--request", wrong).returncode == 2

    def test_a_long_stream_is_shortened_to_its_end(self, file: Path) -> None:
        done = self.check(file, "--model", "claude", "--message", "word " * 100, "--stream")
        assert 'finish_reason: stop_reason || delta.stop_reason -> "end_turn"' in done.stdout
        assert len(done.stdout.splitlines()) < 80

    def test_the_model_must_be_named_if_there_are_several(self, file: Path) -> None:
        done = self.check(file)
        assert done.returncode == 2
        assert "--model must name one of" in done.stderr


def test_all_errors_of_a_declaration_are_reported(tmp_path: Path) -> None:
    entry = {
        "name": "wrong",
        "kind": "external",
        "base_url": "https://test.com/chatting",
        "request": {
            "method": "FETCH",
            "body": {"a": ["{{ x[ }}"]},
            "form": {},
            "query": [],
            "bodyy": 1,
            "headers": {"a b": "c"},
        },
        "reply": {"text": "data..answer", "format": "xml", "usage": {"tokens": "n"}, "finish_reasons": {"a": "b"}},
        "errors": {"rate_limit": ["QUOTA"], "overload": 503, "retry_after": {"unit": "h"}, "when": 3},
    }
    file = tmp_path / "models.yaml"
    file.write_text(yaml.safe_dump([entry, {**entry, "name": "ssrf", "request": {"url": "https://{{ user }}/x"}}]))
    command = [sys.executable, "-m", "openai_compat", "check-config"]
    environment = plain_environment({"MODELS_FILE": str(file), "PYTHONPATH": str(ROOT)})
    errors = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False).stderr
    for error in (
        "model 'wrong': request: unknown key 'bodyy'",
        "model 'wrong': request: has a body and a form",
        "model 'wrong': request.method must be one of",
        "model 'wrong': request.query must be a mapping",
        "model 'wrong': request.headers.a b: not a valid header name",
        "model 'wrong': request.body.a[0]: 'x[' is not a JMESPath expression",
        "model 'wrong': reply.format must be one of",
        "model 'wrong': reply.text: 'data..answer' is not a JMESPath expression",
        "model 'wrong': reply.usage: unknown key 'tokens'",
        "model 'wrong': reply.finish_reasons.a must be one of",
        "model 'wrong': errors.rate_limit: has codes",
        "model 'wrong': errors.overload must be a list",
        "model 'wrong': errors.retry_after must have either",
        "model 'wrong': errors.retry_after.unit must be one of",
        "model 'wrong': errors.when must be a JMESPath expression",
        "model 'ssrf': request.url",
    ):
        assert error in errors, errors
