"""The engine of local models beside a live server with two workers, and failures of its processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.live_server import ROOT, LiveServer
from tests.support.local_models import LOADER
from tests.support.waiting import wait_until

SECONDS = 20.0


def local_server(folder: Path, entries: list[dict[str, Any]], *, workers: int = 2, **settings: str) -> LiveServer:
    """Return a server whose local models are echo models, configured by `entries`."""
    file = folder / "models.json"
    file.write_text(json.dumps(entries))
    return LiveServer({"MODELS_FILE": str(file), "LOCAL_MODEL_LOADER": LOADER, **settings}, workers=workers)


def chat(server: LiveServer, model: str, text: str = "hello there", **parameters: Any) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **parameters}
    stream = bool(parameters.get("stream"))
    return requests.post(f"{server.base_url}/chat/completions", json=body, stream=stream, timeout=SECONDS)


def after_first_chunk(stream: requests.Response) -> Generator[bytes, None, None]:
    """Wait for the first chunk and return the lines after it. Closing them disconnects."""
    lines: Generator[bytes, None, None] = stream.iter_lines()
    assert b"chat.completion.chunk" in next(line for line in lines if line and not line.startswith(b":"))
    return lines


def describe(server: LiveServer, model: str) -> dict[str, Any]:
    description: dict[str, Any] = requests.get(f"{server.base_url}/models/{model}", timeout=SECONDS).json()
    return description


def is_alive(process: int) -> bool:
    """Return True if the process runs. A zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    entries = [
        {"name": "ready", "hf_repo": f"counts={folder}/loads", "max_context_tokens": 99, "metadata": {"by": "us"}},
        {"name": "slow", "hf_repo": "slow=1"},
        {"name": "endless", "hf_repo": "slow=30"},
        {"name": "ticking", "hf_repo": "delay=0.1"},
        {"name": "narrow", "hf_repo": "delay=0.1", "max_batch": 1, "queue_limit": 1},
        {"name": "failing", "hf_repo": f"fails,counts={folder}/failures"},
        {"name": "deadly", "hf_repo": "dies"},
        {"name": "completing", "hf_repo": "kind=completions"},
        {"name": "declared", "hf_repo": f"counts={folder}/declared", "capabilities": ["completions"]},
        {"name": "echo", "kind": "echo"},
    ]
    with local_server(folder, entries, SSE_KEEPALIVE_SECONDS="0.2", LOCAL_LOAD_TIMEOUT="3") as live:
        yield live


def engine_of(server: LiveServer) -> int:
    """Return the id of the process that holds the models."""
    assert chat(server, "ready").status_code == 200
    return int(describe(server, "ready")["process"])


def test_both_workers_share_one_engine_and_one_load(server: LiveServer, folder: Path) -> None:
    assert (
        describe(server, "ready").items() >= {"state": "absent", "context_window": 99, "metadata": {"by": "us"}}.items()
    )
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda number: chat(server, "ready", f"caller {number}"), range(16)))
    assert [reply.json()["choices"][0]["message"]["content"] for reply in replies] == [
        f"caller {number}" for number in range(16)
    ]

    def workers() -> set[str]:
        reply = requests.get(f"{server.base_url}/models/ready", headers={"Connection": "close"}, timeout=SECONDS)
        seen.add((reply.headers["x-request-id"][:24], reply.json()["process"]))
        return {worker for worker, _ in seen}

    seen: set[tuple[str, int]] = set()
    wait_until(lambda: len(workers()) == 2)
    assert len({process for _, process in seen}) == 1
    assert len((folder / "loads").read_text().splitlines()) == 1
    description = describe(server, "ready")
    assert description.items() >= {"state": "ready", "capabilities": ["chat", "completions", "embeddings"]}.items()


def test_every_endpoint_reaches_the_engine(server: LiveServer) -> None:
    completion = requests.post(
        f"{server.base_url}/completions",
        json={"model": "ready", "prompt": "Once upon", "max_tokens": 5},
        timeout=SECONDS,
    )
    assert completion.json()["object"] == "text_completion"
    vectors = requests.post(f"{server.base_url}/embeddings", json={"model": "ready", "input": "x"}, timeout=SECONDS)
    assert vectors.json()["data"][0]["object"] == "embedding"
    ask = requests.post(
        f"{server.url}/ask", json={"messages": [{"role": "user", "content": "hi"}], "model": "ready"}, timeout=SECONDS
    )
    assert ask.status_code == 200, ask.text


def test_a_stream_gets_keep_alive_comments_while_its_model_loads(server: LiveServer) -> None:
    text = chat(server, "slow", stream=True).text
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert text.endswith("data: [DONE]\n\n")


def test_a_failed_load_is_reported_and_not_repeated(server: LiveServer, folder: Path) -> None:
    for _ in range(3):
        reply = chat(server, "failing")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
        assert reply.json()["error"]["message"] == "The model 'failing' has no weights."
        assert reply.headers["x-should-retry"] == "false"
    assert len((folder / "failures").read_text().splitlines()) == 1
    assert describe(server, "failing")["error"] == "The model 'failing' has no weights."


@pytest.mark.parametrize("model", ["completing", "declared"])
def test_a_model_that_cannot_chat_returns_501_and_no_retry(server: LiveServer, model: str) -> None:
    reply = chat(server, model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "chat_completions_not_available")
    assert reply.headers["x-should-retry"] == "false"
    assert describe(server, model)["capabilities"] == ["completions"]


def test_a_capability_that_the_entry_excludes_does_not_load_the_model(server: LiveServer, folder: Path) -> None:
    body = {"model": "declared", "input": "x"}
    reply = requests.post(f"{server.base_url}/embeddings", json=body, timeout=SECONDS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "embeddings_backend_unavailable")
    assert not (folder / "declared").exists()


def test_a_full_queue_refuses_calls_until_a_client_disconnects(server: LiveServer) -> None:
    text = "word " * 2000  # a stream of 200 s, longer than any wait here
    streams = [after_first_chunk(chat(server, "narrow", text, stream=True)) for _ in range(2)]
    reply = chat(server, "narrow")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_busy")
    assert int(reply.headers["Retry-After"]) > 0
    streams[0].close()
    wait_until(lambda: chat(server, "narrow", "a").status_code == 200)
    streams[1].close()


@pytest.mark.parametrize("victim", ["models", "supervisor", "both"])
def test_streams_of_a_killed_engine_end_with_an_error_and_the_next_call_is_answered(
    server: LiveServer, victim: str
) -> None:
    engine = engine_of(server)
    streams = [chat(server, "ticking", "word " * 100, stream=True) for _ in range(3)]
    lines = [after_first_chunk(stream) for stream in streams]
    victims = {"models": [engine], "supervisor": [parent_of(engine)], "both": [parent_of(engine), engine]}[victim]
    for process in victims:
        os.kill(process, signal.SIGKILL)
    for remaining in lines:
        rest = [line for line in remaining if line]
        assert json.loads(rest[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
        assert b"data: [DONE]" not in rest
    # A call that arrives while the dead engine's socket is still open gets a 503, which clients retry.
    wait_until(lambda: chat(server, "ready").status_code == 200)
    assert engine_of(server) != engine


def test_a_model_that_kills_its_engine_does_not_affect_the_workers(server: LiveServer) -> None:
    reply = chat(server, "deadly")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_stopped")
    assert "Retry-After" in reply.headers
    assert chat(server, "ready").status_code == 200
    assert chat(server, "echo").status_code == 200


def test_a_call_that_waits_too_long_for_a_load_gets_retry_after(server: LiveServer) -> None:
    reply = chat(server, "endless")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_loading")
    assert int(reply.headers["Retry-After"]) > 0
    assert "x-should-retry" not in reply.headers
    assert describe(server, "endless")["state"] == "loading"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_engine_ends_with_its_server(tmp_path: Path, end: signal.Signals) -> None:
    temporary = Path(tempfile.mkdtemp())  # a short path, because a socket's is limited to about 100 bytes
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], TMPDIR=str(temporary)) as server:
        engine = engine_of(server)
        supervisor = parent_of(engine)
        children = [int(pid) for pid in _children(server.process.pid)]
        server.process.send_signal(end)
        for process in children if end == signal.SIGKILL else ():
            with suppress(ProcessLookupError):
                os.kill(process, end)
        wait_until(lambda: not is_alive(engine) and not is_alive(supervisor))
    wait_until(lambda: not list(temporary.glob("openai-compat-engine-*")))
    shutil.rmtree(temporary)


def _children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def test_a_reload_with_another_configuration_starts_another_engine(tmp_path: Path) -> None:
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], workers=1) as server:
        first = engine_of(server)
        (tmp_path / "models.json").write_text(
            json.dumps([{"name": "ready", "hf_repo": "x"}, {"name": "another", "hf_repo": "x"}])
        )
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: chat(server, "another").status_code == 200)
        assert describe(server, "another")["process"] != first


def test_the_engine_survives_a_reload_with_the_same_configuration(tmp_path: Path) -> None:
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], workers=1) as server:
        engine = engine_of(server)
        workers = _children(server.process.pid)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not set(workers) & set(_children(server.process.pid)))
        assert engine_of(server) == engine


def test_preloaded_models_are_loaded_without_a_call(tmp_path: Path) -> None:
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], PRELOAD_MODELS="ready") as server:
        wait_until(lambda: describe(server, "ready")["state"] == "ready")


@pytest.mark.parametrize("setting", ["true", "false"])
def test_embeddings_can_be_turned_off(tmp_path: Path, setting: str) -> None:
    settings = {"ENABLE_EMBEDDINGS_BACKEND": setting}
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], workers=1, **settings) as server:
        body = {"model": "ready", "input": "x"}
        reply = requests.post(f"{server.base_url}/embeddings", json=body, timeout=SECONDS)
    assert reply.status_code == (200 if setting == "true" else 501)
    assert setting == "true" or reply.json()["error"]["code"] == "embeddings_backend_unavailable"


def test_without_torch_the_server_runs_and_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
    )
    (tmp_path / "models.json").write_text(
        json.dumps([{"name": "local", "hf_repo": "x"}, {"name": "e", "kind": "echo"}])
    )
    environment = {"MODELS_FILE": str(tmp_path / "models.json"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with LiveServer(environment) as server:
        reply = chat(server, "local")
        assert chat(server, "e").status_code == 200
        described = requests.get(f"{server.base_url}/models/local", timeout=SECONDS).json()
    assert (described["state"], described["error"]) == ("failed", reply.json()["error"]["message"])
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
    assert "pip install -r requirements-local.txt" in reply.json()["error"]["message"]
    assert reply.headers["x-should-retry"] == "false"


def test_a_missing_loader_is_an_error_of_its_models_only(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps([{"name": "ready", "hf_repo": "x"}]))
    environment = {"MODELS_FILE": str(tmp_path / "models.json"), "LOCAL_MODEL_LOADER": "nowhere:load"}
    with LiveServer(environment) as server:
        reply = chat(server, "ready")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
        assert requests.get(f"{server.url}/healthz", timeout=SECONDS).status_code == 200
