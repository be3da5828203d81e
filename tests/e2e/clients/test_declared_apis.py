"""The worked examples of docs/guides/custom-http-apis.md in front of APIs of six shapes: streams, errors, requests."""

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
    """The rows as the page shows them: the last of each name."""
    blocks = [
        block for section in read_sections(ROOT / "docs" / "guides" / "custom-http-apis.md") for block in section.blocks
    ]
    rows = {
        row["name"]: row
        for block in blocks
        if block.language == "yaml"
        for row in yaml.safe_load(block.text.replace(HOST, apis.url))
    }
    path = tmp_path_factory.mktemp("declared") / "models.yaml"
    path.write_text(yaml.safe_dump(list(rows.values())))
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
def test_the_official_client_gets_each_answer_whole_and_as_a_stream(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=[USER])
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (TEXT, "stop")
    chunks = list(client.chat.completions.create(model=model, messages=[USER], stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(pieces) == TEXT
    assert len(pieces) > 3 or model == "oracle"  # bare text comes in the pieces in which it arrives
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_usage_is_the_apis_own(server: LiveServer) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    for model, prompt in (("helpdesk", 3), ("parlour", 6), ("lines", 5), ("claude", 4)):
        assert ask(server, model).json()["usage"]["prompt_tokens"] == prompt
        *_, last, _done = ask(server, model, **asked).text.strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["usage"]["prompt_tokens"] == prompt


def test_what_goes_out_is_what_is_declared(server: LiveServer, apis: FakeChatAPIs) -> None:
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
    asked = apis.requests[-1]
    assert (asked.method, asked.body) == ("GET", "")
    assert parse_qs(urlsplit(asked.path).query) == {"q": ["Bye now"], "key": [KEY], "tone": ["gr&ave"]}

    ask(server, "parlour", messages=conversation)
    says = [("guest", "Hi"), ("host", "Hello!"), ("guest", "Bye now")]
    assert json.loads(apis.requests[-1].body) == {"chat": [{"speaker": who, "says": text} for who, text in says]}

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
def test_each_error_means_what_is_declared(
    server: LiveServer, model: str, status: int, type_: str, code: str | None, retry: str | None, stream: bool
) -> None:
    reply = ask(server, model, messages=[{"role": "user", "content": "busy?"}], stream=stream)
    error = reply.json()["error"]
    expected = 400 if status == 422 else status
    assert (reply.status_code, error["type"], error["code"]) == (expected, type_, code)
    assert reply.headers.get("retry-after") == retry


def test_a_key_that_is_refused_is_the_operators_to_mend(file: Path) -> None:
    with LiveServer({"MODELS_FILE": str(file), "APIS_KEY": "outdated-key"}) as server:
        for model in MODELS:
            reply = ask(server, model)
            assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_authentication_failed")
        assert "outdated-key" not in server.log()


def test_nothing_is_lost_in_silence(server: LiveServer) -> None:
    assert ask(server, "helpdesk", temperature=0.5).headers["x-openai-compat-adapted"] == "temperature=dropped"
    assert "x-openai-compat-adapted" not in ask(server, "lines", temperature=0.5).headers
    two = [{"role": "user", "content": "One"}, USER]
    told = ask(server, "typing", messages=two).headers["x-openai-compat-adapted"]
    assert told == "messages=last_user_message"
    for parameters in ({"stop": "x"}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"n": 2}):
        error = ask(server, "helpdesk", **parameters).json()["error"]
        assert (error["param"], error["code"]) == (next(iter(parameters)), "unsupported_parameter")
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    reply = ask(server, "oracle", messages=[{"role": "user", "content": image}])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages")


def test_ids_are_told(server: LiveServer) -> None:
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
    def test_it_shows_each_step_and_no_secret(self, file: Path, model: str) -> None:
        done = self.check(file, "--model", model, "--message", TEXT, "--stream")
        assert done.returncode == 0, done.stderr
        assert f"content: {json.dumps(TEXT, ensure_ascii=False)}" in done.stdout
        assert KEY not in done.stdout
        assert re.search(r"\*\*\*", done.stdout)
        if model != "oracle":
            assert re.search(r"^    (text|delta): \S.* -> \"", done.stdout, re.MULTILINE)

    def test_a_key_in_the_address_is_one_too(self, tmp_path: Path) -> None:
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

    def test_no_answer_is_told_as_such(self, file: Path) -> None:
        done = self.check(file, "--model", "helpdesk", "--message", "busy?")
        assert done.returncode == 1
        assert "No answer: Too many questions." in done.stdout
        assert "errors.when: status == 'failed' -> true" in done.stdout
        assert 'errors.code: reason.code -> "QUOTA"' in done.stdout
        assert "the client gets: 429 rate_limit_error, code QUOTA\n  retry-after: 2" in done.stdout

    @pytest.mark.parametrize("model", ["typing", "lines", "claude"])
    def test_an_error_of_its_own_status_is_shown_as_well(self, file: Path, model: str) -> None:
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

    def test_a_whole_request_is_judged_and_mapped(self, file: Path, tmp_path: Path) -> None:
        asked: dict[str, Any] = {"messages": [USER, {"role": "assistant", "content": "Cold."}, USER], "temperature": 1}
        (tmp_path / "asked.json").write_text(json.dumps(asked))
        done = self.check(file, "--model", "helpdesk", "--request", f"@{tmp_path / 'asked.json'}")
        assert done.returncode == 0, done.stderr
        assert '"text": "Cold."' in done.stdout
        assert "x-openai-compat-adapted: temperature=dropped\n  x-openai-compat-id-ticket: t-17" in done.stdout
        refused = self.check(file, "--model", "helpdesk", "--request", json.dumps({**asked, "stop": "x"}))
        assert (refused.returncode, "Unsupported parameter: 'stop'" in refused.stdout) == (1, True)
        for wrong in ('{"messages": "x"}', "@/nowhere"):
            assert self.check(file, "--model", "helpdesk", "--request", wrong).returncode == 2

    def test_of_a_long_stream_the_end_is_shown(self, file: Path) -> None:
        done = self.check(file, "--model", "claude", "--message", "word " * 100, "--stream")
        assert 'finish_reason: stop_reason || delta.stop_reason -> "end_turn"' in done.stdout
        assert len(done.stdout.splitlines()) < 80

    def test_the_model_must_be_named_where_there_are_several(self, file: Path) -> None:
        done = self.check(file)
        assert done.returncode == 2
        assert "--model must name one of" in done.stderr


def test_every_problem_of_an_adapter_is_told_with_its_place(tmp_path: Path) -> None:
    row = {
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
    file.write_text(yaml.safe_dump([row, {**row, "name": "ssrf", "request": {"url": "https://{{ user }}/x"}}]))
    command = [sys.executable, "-m", "openai_compat", "check-config"]
    environment = plain_environment({"MODELS_FILE": str(file), "PYTHONPATH": str(ROOT)})
    told = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False).stderr
    for place in (
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
        assert place in told, told
