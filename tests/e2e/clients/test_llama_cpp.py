"""Models that llama.cpp serves beside two workers, as `make run-local` has them, called by the official client."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from openai import APIStatusError, AsyncOpenAI, BadRequestError, OpenAI

from openai_compat.cli import main
from openai_compat.sidecars.llama_cpp.bundled_models import CHAT_FILE, CHAT_MODEL, EMBEDDING_MODEL, chat_folder, entries
from tests.support.live_server import ROOT, LiveServer
from tests.support.tool_history import WEATHER, tool_history
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.extra("llama-cpp", "local-models"), pytest.mark.slow]

SECONDS = 60.0
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
STORY: Any = [{"role": "user", "content": "Write a very long story about the sea."}]
CAT = "The cat sits on the mat."
CAT_VECTOR = [0.13418, -0.0329, -0.0248, 0.04144]
"""The first dimensions of transformers' embedding of `CAT`."""


def smollm2(name: str, **keys: Any) -> dict[str, Any]:
    file = str(chat_folder() / CHAT_FILE)
    return {"name": name, "kind": "llama_cpp", "gguf_file": file, "max_context_tokens": 1024, **keys}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("llama-cpp")
    (folder / "broken.gguf").write_bytes((chat_folder() / CHAT_FILE).read_bytes()[:5_000_000])
    template = str(ROOT / "tests" / "support" / "chatml_tools.jinja")
    models = [
        *entries(folder),
        smollm2("tooled", chat_template_file=template, temperature=0),
        smollm2("narrow", max_batch=1, queue_limit=1, threads=1),
        {"name": "broken", "kind": "llama_cpp", "gguf_file": str(folder / "broken.gguf")},
    ]
    (folder / "models.json").write_text(json.dumps(models))
    with LiveServer({"MODELS_FILE": str(folder / "models.json")}, workers=2) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", timeout=SECONDS, max_retries=0) as client:
        yield client


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the command of each process."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if stat[0] != "Z":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(entry.name)] = (int(stat[1]), command)
    return found


def model_processes(server: LiveServer) -> list[int]:
    """Return the processes of llama.cpp below a server."""
    running = processes()
    family = {server.process.pid}
    for _ in range(5):
        family |= {process for process, (parent, _) in running.items() if parent in family}
    return [process for process in family if running[process][1].rstrip().endswith("sidecars.llama_cpp")]


def raw_chat(server: LiveServer, model: str, messages: Any = STORY, **parameters: Any) -> requests.Response:
    body = {"model": model, "messages": messages, **parameters}
    stream = bool(parameters.get("stream"))
    return requests.post(f"{server.base_url}/chat/completions", json=body, stream=stream, timeout=SECONDS)


def describe(server: LiveServer, model: str) -> dict[str, Any]:
    description: dict[str, Any] = requests.get(f"{server.base_url}/models/{model}", timeout=SECONDS).json()
    return description


def test_both_workers_share_one_process_of_a_model(server: LiveServer, client: OpenAI) -> None:
    def ask(_: int) -> str:
        answer = client.chat.completions.create(model=CHAT_MODEL, messages=FRANCE, temperature=0, max_tokens=30)
        return answer.choices[0].message.content or ""

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert all(answers)
    (process,) = model_processes(server)
    assert b"GOMP_SPINCOUNT=10000" in (Path("/proc") / str(process) / "environ").read_bytes().split(b"\0")
    state = client.models.retrieve(CHAT_MODEL).model_dump()
    assert state.items() >= {"state": "ready", "capabilities": ["chat", "completions"], "context_window": 4096}.items()
    assert state["memory_bytes"] > 100_000_000


def test_a_stream_has_the_text_of_the_complete_answer(client: OpenAI) -> None:
    request: Any = {"model": CHAT_MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 30, "logprobs": True}
    complete = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == complete.choices[0].message.content
    assert "".join(token.token for token in complete.choices[0].logprobs.content).startswith(text)
    assert chunks[-1].usage.completion_tokens == complete.usage.completion_tokens


def test_answers_match_a_schema(client: OpenAI) -> None:
    properties = {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 120}}
    schema = {"type": "object", "properties": properties, "required": ["name", "age"], "additionalProperties": False}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    question: Any = [{"role": "user", "content": "Invent a person."}]
    answer = client.chat.completions.create(
        model=CHAT_MODEL, messages=question, response_format=wanted, n=4, temperature=1, max_tokens=200
    )
    assert len(answer.choices) == 4
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content or ""), schema)


@pytest.mark.parametrize("choice", ["auto", {"type": "function", "function": {"name": "get_weather"}}])
def test_calls_a_tool(client: OpenAI, choice: Any) -> None:
    request: Any = {"model": "tooled", "messages": tool_history(), "tools": [WEATHER], "tool_choice": choice}
    answer = client.chat.completions.create(**request, max_tokens=60)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Madrid"})


def test_streams_the_arguments_of_a_tool_call_in_parts(client: OpenAI) -> None:
    request: Any = {"model": "tooled", "messages": tool_history(), "tools": [WEATHER], "max_tokens": 60}
    chunks = list(client.chat.completions.create(**request, stream=True))
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    parts = [delta.function.arguments or "" for delta in deltas if delta.function]
    assert json.loads("".join(parts)) == {"city": "Madrid"}
    assert len([part for part in parts if part]) > 1
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.extra("clients")
def test_the_agents_sdk_completes_a_tool_loop(server: LiveServer) -> None:
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    asked: list[str] = []

    async def invoke(_context: Any, arguments: str) -> str:
        asked.append(json.loads(arguments)["city"])
        return "Sunny, 20 degrees"

    async def run() -> str:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=SECONDS) as client:
            model = agents.OpenAIChatCompletionsModel(model="tooled", openai_client=client)
            settings = agents.ModelSettings(max_tokens=60)
            name, description, schema = WEATHER["function"].values()
            tool = agents.FunctionTool(name, description, schema, invoke, strict_json_schema=False)
            agent = agents.Agent(name="a", model=model, tools=[tool], model_settings=settings)
            result = await agents.Runner.run(agent, to_items(tool_history()))
            return str(result.final_output)

    assert "Madrid" in asyncio.run(run())
    assert asked == ["Madrid"]


def to_items(history: list[Any]) -> list[Any]:
    """Return the conversation in the form of the Responses API, which the SDK takes."""
    items: list[Any] = []
    for message in history:
        if message["role"] == "tool":
            output = {"call_id": message["tool_call_id"], "output": message["content"]}
            items.append({"type": "function_call_output", **output})
        elif "tool_calls" in message:
            (call,) = message["tool_calls"]
            items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
        else:
            items.append(message)
    return items


def test_drops_tools_without_a_template_for_them(client: OpenAI) -> None:
    request: Any = {"model": CHAT_MODEL, "messages": FRANCE, "tools": [WEATHER], "max_tokens": 5}
    reply = client.chat.completions.with_raw_response.create(**request)
    assert reply.headers["x-openai-compat-adapted"] == "tools=dropped"
    assert reply.parse().choices[0].message.content
    with pytest.raises(BadRequestError) as refusal:
        client.chat.completions.create(**request, tool_choice="required")
    assert refusal.value.param == "tool_choice"


def test_refuses_a_prompt_that_is_too_long(client: OpenAI) -> None:
    question: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(BadRequestError, match=r"prompt is too long: \d+ tokens > 4096 maximum") as refusal:
        client.chat.completions.create(model=CHAT_MODEL, messages=question)
    assert refusal.value.code == "context_length_exceeded"


def test_embeddings_are_those_of_transformers(client: OpenAI) -> None:
    reply = client.embeddings.with_raw_response.create(model=EMBEDDING_MODEL, input=[CAT, "word " * 800])
    vector, of_long = (item.embedding for item in reply.parse().data)
    assert vector[:4] == pytest.approx(CAT_VECTOR, abs=1e-3)
    assert reply.headers["x-truncated-inputs"] == "1"
    assert math.hypot(*of_long) == pytest.approx(1, abs=1e-3)
    short = client.embeddings.create(model=EMBEDDING_MODEL, input=CAT, dimensions=64).data[0].embedding
    assert len(short) == 64
    assert math.hypot(*short) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "endpoint", "code"),
    [
        (CHAT_MODEL, "embeddings", "embeddings_backend_unavailable"),
        (EMBEDDING_MODEL, "completions", "completions_not_available"),
    ],
)
def test_refuses_what_the_model_cannot_do(server: LiveServer, model: str, endpoint: str, code: str) -> None:
    body = {"model": model, "input": "x", "prompt": "x"}
    reply = requests.post(f"{server.base_url}/{endpoint}", json=body, timeout=SECONDS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, code)


def test_a_damaged_file_is_reported_without_its_path(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as failure:
        client.chat.completions.create(model="broken", messages=FRANCE)
    assert (failure.value.status_code, failure.value.code) == (503, "model_unavailable")
    assert "llama.cpp could not load the model 'broken'" in failure.value.message
    assert "/" not in failure.value.message.partition("message")[2].partition("type")[0]


def test_a_full_queue_refuses_calls_until_a_client_disconnects(server: LiveServer) -> None:
    endless = {"ignore_eos": True, "max_tokens": 900, "stream": True}
    running = raw_chat(server, "narrow", **endless)
    lines = running.iter_lines()  # the connection is closed with it
    assert next(lines)
    with ThreadPoolExecutor(1) as pool:
        queued = pool.submit(raw_chat, server, "narrow", FRANCE, max_tokens=1)
        wait_until(lambda: describe(server, "narrow").get("callers") == 2)
        refused = raw_chat(server, "narrow")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_busy")
        assert int(refused.headers["Retry-After"]) > 0
        running.close()
        assert queued.result().status_code == 200


def test_a_stream_continues_while_the_prompt_of_another_call_is_processed(server: LiveServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        stream = raw_chat(server, "tooled", stream=True, ignore_eos=True, max_tokens=900)
        lines = (line for line in stream.iter_lines() if line)
        assert next(lines)
        long: Any = [{"role": "user", "content": "word " * 900}]
        other = pool.submit(raw_chat, server, "tooled", long, max_tokens=1)
        wait_until(lambda: describe(server, "tooled").get("callers") == 2)
        received = 0
        while not other.done():
            next(lines)
            received += 1
        stream.close()
        assert other.result().status_code == 200
    assert received >= 5  # one after each part of the prompt; as a whole it lets through one or two


def test_streams_of_a_killed_process_end_with_an_error_and_the_next_call_is_answered(server: LiveServer) -> None:
    assert raw_chat(server, "tooled", max_tokens=1).status_code == 200
    stream = raw_chat(server, "tooled", stream=True, ignore_eos=True, max_tokens=900)
    lines = stream.iter_lines()
    assert next(lines)
    killed = model_processes(server)
    for process in killed:
        os.kill(process, signal.SIGKILL)
    rest = [line for line in lines if line]
    assert json.loads(rest[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
    assert b"data: [DONE]" not in rest
    assert raw_chat(server, "tooled", max_tokens=1).status_code == 200
    assert not set(killed) & set(model_processes(server))


def test_an_idle_model_makes_room_and_all_processes_end_with_a_killed_server(tmp_path: Path) -> None:
    temporary = tempfile.mkdtemp()  # a short path, because a socket's is limited to about 100 bytes
    models = [smollm2("first", max_batch=1), smollm2("second", max_batch=1), smollm2("huge", max_context_tokens=8192)]
    (tmp_path / "models.json").write_text(json.dumps(models))
    settings = {"LOCAL_MEMORY_BYTES": "350000000", "PRELOAD_MODELS": "first", "TMPDIR": temporary}
    with LiveServer({"MODELS_FILE": str(tmp_path / "models.json"), **settings}) as server:

        def state(model: str) -> str:
            return str(describe(server, model)["state"])

        wait_until(lambda: state("first") == "ready")
        assert raw_chat(server, "second", max_tokens=1).status_code == 200
        assert (state("first"), state("second")) == ("absent", "ready")
        refused = raw_chat(server, "huge", max_tokens=1)
        assert refused.status_code == 503
        assert "LOCAL_MEMORY_BYTES allows 350 MB" in refused.json()["error"]["message"]
        (model,) = model_processes(server)
        for process, (parent, _) in processes().items():
            if parent == server.process.pid:
                os.kill(process, signal.SIGKILL)
        server.process.kill()
        wait_until(lambda: model not in processes())


def test_the_command_loads_a_model_as_a_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models.json").write_text(json.dumps([smollm2("writer", max_batch=1)]))
    monkeypatch.setenv("MODELS_FILE", str(tmp_path / "models.json"))
    assert main(["models", "load", "writer"]) == 0
    assert "context window       1024" in capfd.readouterr().out
