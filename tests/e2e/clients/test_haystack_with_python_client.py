"""Pipelines behind a live gunicorn with two workers, asked by the official client."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.tools import require_extra

KEYS = ("key-one", "key-two")
FACTORIES = """\
import time
from pathlib import Path

from haystack import Pipeline, component
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret


@component
class Computes:
    \"\"\"Computes until a file is there, and holds the interpreter as such work does.\"\"\"

    @component.output_types(replies=list[str])
    def run(self, query: str):
        Path(query, "started").touch()
        while not Path(query, "done").exists():
            sum(range(1000))
        return {"replies": ["computed"]}


@component
class Tells:
    \"\"\"Says who it is, and which process it is in.\"\"\"

    @component.output_types(replies=list[str])
    def run(self, messages: list[ChatMessage]):
        import os
        return {"replies": [f"{os.getpid()} {len(messages)}"]}


def computes():
    pipeline = Pipeline()
    pipeline.add_component("computes", Computes())
    return pipeline


def own_address():
    address = Path("address.txt").read_text()
    pipeline = Pipeline()
    generator = OpenAIChatGenerator(api_key=Secret.from_token("k"), api_base_url=address, model="fault-hang")
    pipeline.add_component("llm", generator)
    return pipeline


def tells():
    pipeline = Pipeline()
    pipeline.add_component("tells", Tells())
    return pipeline
"""


@pytest.fixture(scope="module")
def mock_behind() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(mock_behind: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    require_extra("haystack")
    folder = tmp_path_factory.mktemp("haystack")
    (folder / "my_factories.py").write_text(FACTORIES)
    (folder / "documents").mkdir()
    (folder / "documents" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    (folder / "address.txt").write_text(mock_behind.base_url)
    behind = {"kind": "haystack", "base_url": mock_behind.base_url}
    rows = [
        {"name": "echo", "kind": "echo"},
        {"name": "slow", "kind": "echo", "delay": 0.02},
        {"name": "plain", "kind": "haystack", "generator": "echo"},
        {"name": "drip", "kind": "haystack", "generator": "slow"},
        {"name": "cats", "kind": "haystack", "generator": "echo", "documents": "documents"},
        {"name": "hang", **behind, "upstream_model": "fault-hang"},
        {"name": "hang-by-itself", "kind": "haystack", "factory": "my_factories:own_address"},
        {"name": "computes", "kind": "haystack", "factory": "my_factories:computes"},
        {"name": "tells", "kind": "haystack", "factory": "my_factories:tells"},
    ]
    (folder / "models.json").write_text(json.dumps(rows))
    environment = {"MODELS_FILE": "models.json", "API_KEYS": ",".join(KEYS), "SSE_KEEPALIVE_SECONDS": "1"}
    with LiveServer(environment, workers=2, folder=folder) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key=KEYS[0], max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, model: str, text: str, **more: Any) -> str:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)
    return answer.choices[0].message.content or ""


def fresh(server: LiveServer, key: str = KEYS[0]) -> openai.OpenAI:
    """A client with no connection yet: the kernel gives each new one to either of the workers."""
    return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0)


def ask_once(server: LiveServer, model: str, text: str) -> str:
    """On a connection that is closed afterwards: a worker that is to stop waits for those that are open."""
    with fresh(server) as client:
        return ask(client, model, text)


def test_the_official_client_streams_through_it(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "one two three"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert pieces == ["one", " two", " three"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_a_token_arrives_when_it_was_produced(client: openai.OpenAI) -> None:
    """The model takes 2 s for 100 tokens; what is held back to the end would come all at once."""
    with client.chat.completions.create(
        model="drip", messages=[{"role": "user", "content": "word " * 100}], stream=True
    ) as stream:
        arrivals = [time.monotonic() for chunk in stream if chunk.choices[0].delta.content]
    assert len(arrivals) >= 100
    assert arrivals[-1] - arrivals[0] > 1.0


def test_documents_are_cited_in_the_clients_own_types(client: openai.OpenAI) -> None:
    question: Any = [{"role": "user", "content": "Why do cats purr?"}]
    message = client.chat.completions.create(model="cats", messages=question).choices[0].message
    assert message.content is not None
    assert message.annotations is not None
    citation = message.annotations[0].url_citation
    assert (citation.title, citation.url) == ("Cats", "cats.md")
    assert message.content[citation.start_index : citation.end_index] == "[1] Cats (cats.md)"
    with client.chat.completions.create(model="cats", messages=question, stream=True) as stream:
        deltas = [chunk.choices[0].delta.model_dump() for chunk in stream]
    streamed = [note for delta in deltas for note in delta.get("annotations") or ()]
    assert streamed == [note.model_dump() for note in message.annotations]
    assert "".join(delta["content"] or "" for delta in deltas) == message.content


def test_twenty_callers_share_a_pipeline_and_get_their_own_answers(server: LiveServer) -> None:
    def call(number: int) -> list[str]:
        with fresh(server) as client:
            texts = [f"caller {number} asks {turn} with some more words" for turn in range(3)]
            return [(ask(client, "drip", text) == text and text) or "mixed up" for text in texts]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(call, range(20)))
    assert "mixed up" not in {answer for of_caller in answers for answer in of_caller}
    with ThreadPoolExecutor(20) as pool:
        processes = set(pool.map(lambda _: ask_once(server, "tells", "Hi").split()[0], range(20)))
    assert len(processes) == 1


def test_a_conversation_goes_on_whichever_worker_answers(server: LiveServer) -> None:
    counts = []
    for turn in range(8):
        with fresh(server) as client:
            named: Any = [{"extra_headers": {"x-conversation-id": "c-1"}}, {"extra_body": {"conversation_id": "c-1"}}]
            counts.append(int(ask(client, "tells", "Hi", **named[turn % 2]).split()[1]))
    assert counts == [1, 3, 5, 7, 9, 11, 13, 15]


def test_another_key_has_another_conversation(server: LiveServer) -> None:
    named = {"extra_body": {"conversation_id": "mine"}}
    seen = []
    for key in (*KEYS, *KEYS):
        with fresh(server, key) as client:
            seen.append(int(ask(client, "tells", "Hi", **named).split()[1]))
    assert seen == [1, 1, 3, 3]


@pytest.mark.parametrize("model", ["hang", "hang-by-itself"])
@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
def test_a_caller_that_hangs_up_before_the_first_token_ends_the_call_to_the_model(
    server: LiveServer, mock_behind: MockUpstream, is_streamed: bool, model: str
) -> None:
    mock_behind.reset()
    body = json.dumps({"model": model, "stream": is_streamed, "messages": [{"role": "user", "content": "Hi"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEYS[0]}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.sendall((head + body).encode())
        mock_behind.wait_until(lambda stats: stats["requests_open"] == 1, 15.0)
    mock_behind.wait_until(lambda stats: stats["requests_open"] == 0, 2.0)


def test_a_pipeline_that_computes_holds_up_nobody_else(server: LiveServer, tmp_path: Path) -> None:
    """Both workers answer while it computes, echo and other pipelines alike."""
    with ThreadPoolExecutor(1) as pool, fresh(server) as client:
        computing = pool.submit(ask, client, "computes", str(tmp_path))
        try:
            wait_until((tmp_path / "started").exists)
            for _ in range(6):
                with fresh(server) as other:
                    assert ask(other, "echo", "Hi") == "Hi"
                    assert ask(other, "plain", "Hi") == "Hi"
            assert not computing.done()
        finally:
            (tmp_path / "done").touch()
        assert computing.result() == "computed"


def test_a_pipeline_is_described(server: LiveServer) -> None:
    described = requests.get(
        f"{server.base_url}/models/cats", headers={"Authorization": f"Bearer {KEYS[0]}"}, timeout=30
    ).json()
    assert described["documents"] == {"files": 1, "passages": 1}
    pipeline = described["pipeline"]
    assert pipeline["components"]["retriever"]["outputs"] == {"documents": "list[Document]"}
    assert {"sender": "retriever.documents", "receiver": "generator.documents"} in pipeline["connections"]
    assert pipeline["inputs"]["query"] == ["retriever.query"]
    assert pipeline["outputs"] == {"answer": "generator.replies", "documents": "retriever.documents"}


def test_a_process_that_is_killed_cuts_its_streams_and_is_started_again(client: openai.OpenAI) -> None:
    process = int(ask(client, "tells", "Hi").split()[0])
    with client.chat.completions.create(
        model="drip", messages=[{"role": "user", "content": "word " * 500}], stream=True
    ) as stream:
        next(iter(stream))
        os.kill(process, signal.SIGKILL)
        with pytest.raises(openai.APIError) as cut:
            list(stream)
    assert cut.value.code == "upstream_cut"
    assert int(ask(client, "tells", "Hi").split()[0]) != process


@pytest.mark.slow
def test_it_is_started_once_renewed_by_a_reload_and_ends_with_its_server(tmp_path: Path) -> None:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "cats.md").write_text("Cats purr.")
    rows = [
        {"name": "echo", "kind": "echo"},
        {"name": "tells", "kind": "haystack", "factory": "my_factories:tells"},
        {"name": "pets", "kind": "haystack", "documents": "documents", "generator": "echo"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(rows))
    with LiveServer({"MODELS_FILE": "models.json"}, workers=2, folder=tmp_path) as server:
        with ThreadPoolExecutor(20) as pool:
            first = set(pool.map(lambda _: ask_once(server, "tells", "Hi").split()[0], range(20)))
        assert len(first) == 1, "twenty first calls to two workers started more than one"
        (process,) = first
        assert "Sources" not in ask_once(server, "pets", "bark")
        (tmp_path / "documents" / "dogs.md").write_text("Dogs bark.")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "dogs.md" in ask_once(server, "pets", "bark"))
        wait_until(lambda: not is_running(process))
        renewed = ask_once(server, "tells", "Hi").split()[0]
    wait_until(lambda: not is_running(renewed))


def is_running(process: str) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "zombie" not in status.read_text()
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.05)
