"""Pipelines behind gunicorn with two workers, called by the official Python client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.extra("haystack")

KEYS = ("key-one", "key-two")
ADMIN_KEY = "admin-key"
FACTORIES = """\
import time
from pathlib import Path

from haystack import Pipeline, component
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret


@component
class Computes:
    \"\"\"Computes in Python until a file exists.\"\"\"

    @component.output_types(replies=list[str])
    def run(self, query: str):
        Path(query, "started").touch()
        while not Path(query, "done").exists():
            sum(range(1000))
        return {"replies": ["computed"]}


@component
class ProcessInfo:
    \"\"\"Answers with its process id and the number of messages.\"\"\"

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


def process_info():
    pipeline = Pipeline()
    pipeline.add_component("process_info", ProcessInfo())
    return pipeline
"""


@pytest.fixture(scope="module")
def mock() -> Iterator[MockUpstream]:
    with MockUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(mock: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("haystack")
    (folder / "my_factories.py").write_text(FACTORIES)
    (folder / "documents").mkdir()
    (folder / "documents" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    (folder / "address.txt").write_text(mock.base_url)
    over_mock = {"kind": "haystack", "base_url": mock.base_url}
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "slow", "kind": "echo", "delay": 0.02},
        {"name": "plain", "kind": "haystack", "generator": "echo"},
        {"name": "drip", "kind": "haystack", "generator": "slow"},
        {"name": "stall", **over_mock, "upstream_model": "fault-stall:after=3"},
        {"name": "cats", "kind": "haystack", "generator": "echo", "documents": "documents"},
        {"name": "hang", **over_mock, "upstream_model": "fault-hang"},
        {"name": "hang-by-itself", "kind": "haystack", "factory": "my_factories:own_address"},
        {"name": "computes", "kind": "haystack", "factory": "my_factories:computes"},
        {"name": "process-info", "kind": "haystack", "factory": "my_factories:process_info"},
    ]
    (folder / "models.json").write_text(json.dumps(models))
    keys = {"API_KEYS": ",".join(KEYS), "ADMIN_API_KEY": ADMIN_KEY}
    environment = {"MODELS_FILE": "models.json", "SSE_KEEPALIVE_SECONDS": "1", **keys}
    with LiveServer(environment, workers=2, folder=folder) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key=KEYS[0], max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, model: str, text: str, **more: Any) -> str:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)
    return answer.choices[0].message.content or ""


def new_client(server: LiveServer, key: str = KEYS[0]) -> openai.OpenAI:
    """Return a client without connections. The kernel assigns each new connection to either worker."""
    return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0)


def ask_once(server: LiveServer, model: str, text: str) -> str:
    """Ask on a new connection and close it. A stopping worker waits for open connections."""
    with new_client(server) as client:
        return ask(client, model, text)


def test_the_official_client_streams_an_answer_with_usage(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "one two three"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    contents = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert contents == ["one", " two", " three"]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_tokens_arrive_while_the_model_produces_them(client: openai.OpenAI, mock: MockUpstream) -> None:
    """The model sends two tokens and then nothing, so that a buffering server would not forward them."""
    mock.reset()
    messages: Any = [{"role": "user", "content": "Hi"}]
    with client.chat.completions.create(model="stall", messages=messages, stream=True) as stream:
        tokens = (chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content)
        assert [next(tokens), next(tokens)] == ["You", " said:"]
        assert mock.stats()["requests_open"] == 1


def test_metrics_show_the_running_calls_of_pipelines(server: LiveServer, client: openai.OpenAI) -> None:
    def scrape() -> str:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return requests.get(f"{server.url}/metrics", headers=headers, timeout=20).text

    messages: Any = [{"role": "user", "content": "Hi"}]
    wait_until(lambda: 'openai_compat_local_model_calls{model="stall"} 1\n' not in scrape())  # of the test before
    with client.chat.completions.create(model="stall", messages=messages, stream=True) as stream:
        next(iter(stream))
        shown = scrape()
    assert 'openai_compat_local_model_calls{model="stall"} 1\n' in shown
    assert 'openai_compat_local_model_loaded{model="stall"} 1\n' in shown
    assert re.search(r'^openai_compat_sidecar_resident_memory_bytes\{sidecar="haystack"\} \d{7,}$', shown, re.MULTILINE)
    wait_until(lambda: 'openai_compat_local_model_calls{model="stall"} 0\n' in scrape())


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


def test_twenty_concurrent_callers_get_their_own_answers_from_one_process(server: LiveServer) -> None:
    def call(number: int) -> list[str]:
        with new_client(server) as client:
            texts = [f"caller {number} asks {turn} with some more words" for turn in range(3)]
            return [(ask(client, "drip", text) == text and text) or "mixed up" for text in texts]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(call, range(20)))
    assert "mixed up" not in {answer for answers_of_caller in answers for answer in answers_of_caller}
    with ThreadPoolExecutor(20) as pool:
        processes = set(pool.map(lambda _: ask_once(server, "process-info", "Hi").split()[0], range(20)))
    assert len(processes) == 1


def test_a_conversation_continues_on_every_worker(server: LiveServer) -> None:
    counts = []
    for turn in range(8):
        with new_client(server) as client:
            options: Any = [{"extra_headers": {"x-conversation-id": "c-1"}}, {"extra_body": {"conversation_id": "c-1"}}]
            counts.append(int(ask(client, "process-info", "Hi", **options[turn % 2]).split()[1]))
    assert counts == [1, 3, 5, 7, 9, 11, 13, 15]


def test_each_api_key_has_its_own_conversations(server: LiveServer) -> None:
    options = {"extra_body": {"conversation_id": "mine"}}
    counts = []
    for key in (*KEYS, *KEYS):
        with new_client(server, key) as client:
            counts.append(int(ask(client, "process-info", "Hi", **options).split()[1]))
    assert counts == [1, 1, 3, 3]


@pytest.mark.parametrize("model", ["hang", "hang-by-itself"])
@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "non-streaming"])
def test_a_disconnect_before_the_first_token_ends_the_call_to_the_model(
    server: LiveServer, mock: MockUpstream, is_streamed: bool, model: str
) -> None:
    mock.reset()
    body = json.dumps({"model": model, "stream": is_streamed, "messages": [{"role": "user", "content": "Hi"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEYS[0]}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.sendall((head + body).encode())
        mock.wait_until(lambda stats: stats["requests_open"] == 1)
    mock.wait_until(lambda stats: stats["requests_open"] == 0)


def test_keep_alive_comments_are_sent_before_the_first_token(server: LiveServer) -> None:
    body = {"model": "hang", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with requests.post(
        f"{server.base_url}/chat/completions", json=body, headers=headers, stream=True, timeout=30
    ) as reply:
        assert reply.status_code == 200
        assert next(reply.iter_lines()).startswith(b":")


def test_a_computing_pipeline_does_not_block_other_models(server: LiveServer, tmp_path: Path) -> None:
    """Both workers answer for the echo model and for another pipeline while it computes."""
    with ThreadPoolExecutor(1) as pool, new_client(server) as client:
        computing = pool.submit(ask, client, "computes", str(tmp_path))
        try:
            wait_until((tmp_path / "started").exists)
            for _ in range(6):
                with new_client(server) as other:
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


def test_a_killed_sidecar_truncates_its_streams_and_is_restarted(client: openai.OpenAI) -> None:
    process = ask(client, "process-info", "Hi").split()[0]
    with client.chat.completions.create(
        model="drip", messages=[{"role": "user", "content": "word " * 500}], stream=True
    ) as stream:
        next(iter(stream))
        os.kill(int(process), signal.SIGKILL)
        with pytest.raises(openai.APIError) as error:
            list(stream)
    assert error.value.code == "upstream_cut"
    wait_until(lambda: not is_running(process))  # until then a call may reach the process that ends
    assert ask(client, "process-info", "Hi").split()[0] != process


@pytest.mark.slow
def test_the_sidecar_starts_once_is_replaced_by_a_reload_and_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "cats.md").write_text("Cats purr.")
    models = [
        {"name": "echo", "kind": "echo"},
        {"name": "process-info", "kind": "haystack", "factory": "my_factories:process_info"},
        {"name": "pets", "kind": "haystack", "documents": "documents", "generator": "echo"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(models))
    with LiveServer({"MODELS_FILE": "models.json"}, workers=2, folder=tmp_path) as server:
        with ThreadPoolExecutor(20) as pool:
            first = set(pool.map(lambda _: ask_once(server, "process-info", "Hi").split()[0], range(20)))
        assert len(first) == 1, "twenty concurrent first calls to two workers started more than one sidecar"
        (process,) = first
        assert "Sources" not in ask_once(server, "pets", "bark")
        (tmp_path / "documents" / "dogs.md").write_text("Dogs bark.")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "dogs.md" in ask_once(server, "pets", "bark"))
        wait_until(lambda: not is_running(process))
        replacement = ask_once(server, "process-info", "Hi").split()[0]
    wait_until(lambda: not is_running(replacement))


def is_running(process: str) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "zombie" not in status.read_text()
    except OSError:
        return False
