"""Hooks with every kind of model, streamed and not, and errors of hooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.fake_databricks import PERSONAL_TOKEN, Workspace
from tests.support.live_server import LiveServer
from tests.support.local_models import LOADER
from tests.support.mock_upstream import MockUpstream
from tests.support.recording_api import RecordingAPI
from tests.support.tools import has_extra

HOOKS = """
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path


def ask_for_more(request, call):
    request["messages"].append({"role": "user", "content": f"more from {call.model}"})


class Changes:
    def __init__(self, change):
        self.change = change

    def __call__(self, delta, call):
        return replace(delta, content=self.change(delta.content)) if delta.content else delta


shout = Changes(str.upper)
whisper = lambda delta, call: Changes(str.lower)(delta, call)


def _sign(mark, reply, call):
    with Path("seen.jsonl").open("a") as file:
        file.write(json.dumps([call.model, reply["choices"][0]["message"]["content"]]) + "\\n")
    return {**reply, "mark": mark}


sign = partial(_sign, "signed")


def sleep(request, call):
    Path("asleep").touch()
    while not Path("awake").exists():
        time.sleep(0.01)


def forget_messages(request, call):
    return {"model": request["model"]}


def spoil_messages(request, call):
    return {**request, "messages": ["Hello"]}


def want_stream(request, call):
    return {**request, "stream": not request.get("stream")}


def say_text(delta, call):
    return "text"


def give_list(reply, call):
    return [reply]


def break_late(delta, call):
    if "four" in (delta.content or ""):
        raise ValueError("private words")
    return delta
"""
QUESTION: Any = [{"role": "user", "content": "One two three four five"}]
ALL_HOOKS: dict[str, Any] = {
    "before_request": "rules:ask_for_more",
    "on_delta": "rules:shout",
    "after_reply": "rules:sign",
}
KINDS = ("echo", "external", "external-complete", "openai", "databricks", "huggingface")
HAYSTACK_KINDS = ("haystack", "haystack-over-hooks")
each_kind = pytest.mark.parametrize(
    "kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.extra("haystack")) for kind in HAYSTACK_KINDS)]
)
FAULTY_HOOKS = {
    "forgets": {"before_request": "rules:forget_messages"},
    "spoils": {"before_request": "rules:spoil_messages"},
    "says-text": {"on_delta": "rules:say_text"},
    "gives-list": {"after_reply": "rules:give_list"},
    "breaks-late": {"on_delta": "rules:break_late"},
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def folder(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "rules.py").write_text(HOOKS)
    with RecordingAPI("It is sunny.") as api, RecordingAPI("It is cold.", streams=False) as slow, Workspace() as dbx:
        forwarded = {"kind": "openai", "base_url": upstream.base_url, "upstream_model": "mock-model"}
        endpoints = f"{dbx.url}/serving-endpoints"
        kinds: dict[str, dict[str, Any]] = {
            "echo": {"kind": "echo"},
            "external": {"kind": "external", "base_url": api.url},
            "external-complete": {"kind": "external", "base_url": slow.url},
            "openai": forwarded,
            "databricks": {"kind": "databricks", "base_url": endpoints, "api_key_env": "DBX", "upstream_model": "echo"},
            "huggingface": {"hf_repo": "x"},
        }
        if has_extra("haystack"):
            kinds["haystack"] = {"kind": "haystack", "generator": "plain-echo"}
            kinds["haystack-over-hooks"] = {"kind": "haystack", "generator": "whispers"}
        entries = [{"name": name, **kind, "hooks": ALL_HOOKS} for name, kind in kinds.items()]
        entries += [{"name": "plain-echo", "kind": "echo"}]
        entries += [{"name": "whispers", "kind": "echo", "hooks": {"on_delta": "rules:whisper"}}]
        entries += [{"name": name, "kind": "echo", "hooks": hooks} for name, hooks in FAULTY_HOOKS.items()]
        entries += [{"name": f"{name}-openai", **forwarded, "hooks": hooks} for name, hooks in FAULTY_HOOKS.items()]
        for name, kind in kinds.items():
            entries.append({"name": f"{name}-wants-stream", **kind, "hooks": {"before_request": "rules:want_stream"}})
        entries += [{"name": "sleeps", "kind": "echo", "hooks": {"before_request": "rules:sleep"}}]
        (folder / "models.json").write_text(json.dumps(entries))
        yield folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    settings = {
        "MODELS_FILE": "models.json",
        "LOCAL_MODEL_LOADER": LOADER,
        "LOCAL_RUNTIME_DIR": str(folder),
        "DBX": PERSONAL_TOKEN,
        "SSE_KEEPALIVE_SECONDS": "0.3",
    }
    with LiveServer(settings, folder=folder) as server:
        yield server


def ask(server: LiveServer, model: str, **more: Any) -> requests.Response:
    body = {"model": model, "messages": QUESTION, **more}
    return requests.post(f"{server.base_url}/chat/completions", json=body, timeout=30)


def text_of(server: LiveServer, model: str) -> str:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(model=model, messages=QUESTION, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@each_kind
def test_each_kind_runs_all_hooks(server: LiveServer, folder: Path, kind: str) -> None:
    texts = {"external": "IT IS SUNNY.", "external-complete": "IT IS COLD.", "openai": "YOU SAID: MORE FROM OPENAI"}
    expected = texts.get(kind, f"MORE FROM {kind.upper()}")
    answer = ask(server, kind).json()
    assert (answer["choices"][0]["message"]["content"], answer["mark"]) == (expected, "signed")
    assert text_of(server, kind) == expected
    seen = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    assert seen[-2:] == [[kind, expected], [kind, expected]]


@each_kind
def test_a_hook_does_not_change_how_the_answer_is_sent(server: LiveServer, kind: str) -> None:
    """A hook cannot change `stream`."""
    model = f"{kind}-wants-stream"
    assert ask(server, model).json()["choices"][0]["message"]["content"]
    assert text_of(server, model)


@pytest.mark.parametrize("kind", ["", "-openai"])
@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("forgets", "the hook rules:forget_messages produced a request without messages"),
        ("spoils", "the hook rules:spoil_messages produced invalid messages"),
        ("says-text", "the hook rules:say_text returned a str, not a ChatDelta"),
        ("gives-list", "the hook rules:give_list returned a list, not a dict"),
        ("breaks-late", "the hook rules:break_late failed"),
    ],
)
def test_an_error_of_a_hook_is_logged_and_hidden_from_the_client(
    server: LiveServer, model: str, named: str, kind: str
) -> None:
    reply = ask(server, model + kind)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert named in server.log()
    assert "private words" not in reply.text


@pytest.mark.parametrize("model", ["breaks-late", "breaks-late-openai"])
def test_an_error_of_a_hook_in_a_stream_ends_it_with_an_error_event(
    server: LiveServer, upstream: MockUpstream, model: str
) -> None:
    text = ask(server, model, stream=True).text
    assert '"content":' in text
    assert '"code":"internal_error"' in text.replace('": "', '":"')
    assert "[DONE]" not in text
    upstream.wait_until(lambda stats: stats["requests_open"] == 0)


def test_a_slow_hook_does_not_block_other_calls_and_its_stream_gets_comments(server: LiveServer, folder: Path) -> None:
    body = {"model": "sleeps", "messages": QUESTION, "stream": True}
    with requests.post(f"{server.base_url}/chat/completions", json=body, stream=True, timeout=30) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith(b":")
        assert (folder / "asleep").exists()
        assert ask(server, "plain-echo").status_code == 200
        (folder / "awake").touch()
        assert [line for line in lines if line][-1] == b"data: [DONE]"
