"""The engine of local models beside a live gunicorn with two workers: one for both, and what happens when parts die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contracts.backend_contract import wait_until
from tests.support.live_server import ROOT, LiveServer
from tests.support.local_models import LOADER

SECONDS = 20.0


def local_server(folder: Path, rows: list[dict[str, Any]], *, workers: int = 2, **settings: str) -> LiveServer:
    """A server whose local models are what `rows` make of the echo model."""
    file = folder / "models.json"
    file.write_text(json.dumps(rows))
    return LiveServer({"MODELS_FILE": str(file), "LOCAL_MODEL_LOADER": LOADER, **settings}, workers=workers)


def ask(server: LiveServer, model: str, text: str = "hello there", **more: Any) -> requests.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    stream = bool(more.get("stream"))
    return requests.post(f"{server.base_url}/chat/completions", json=body, stream=stream, timeout=SECONDS)


def begun(stream: requests.Response) -> Generator[bytes, None, None]:
    """The lines that follow the first chunk, which has come. Closing or dropping them hangs up."""
    lines: Generator[bytes, None, None] = stream.iter_lines()
    assert b"chat.completion.chunk" in next(line for line in lines if line and not line.startswith(b":"))
    return lines


def facts_of(server: LiveServer, model: str) -> dict[str, Any]:
    facts: dict[str, Any] = requests.get(f"{server.base_url}/models/{model}", timeout=SECONDS).json()
    return facts


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended and is not yet buried does not."""
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
    rows = [
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
    with local_server(folder, rows, SSE_KEEPALIVE_SECONDS="0.2", LOCAL_LOAD_TIMEOUT="3") as live:
        yield live


def engine_of(server: LiveServer) -> int:
    """The process that holds the models."""
    assert ask(server, "ready").status_code == 200
    return int(facts_of(server, "ready")["process"])


def test_one_engine_loads_once_for_the_callers_of_both_workers(server: LiveServer, folder: Path) -> None:
    assert (
        facts_of(server, "ready").items() >= {"state": "absent", "context_window": 99, "metadata": {"by": "us"}}.items()
    )
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda number: ask(server, "ready", f"caller {number}"), range(16)))
    assert [reply.json()["choices"][0]["message"]["content"] for reply in replies] == [
        f"caller {number}" for number in range(16)
    ]

    def workers() -> set[str]:
        reply = requests.get(f"{server.base_url}/models/ready", headers={"Connection": "close"}, timeout=SECONDS)
        seen.add((reply.headers["x-request-id"][:24], reply.json()["process"]))
        return {worker for worker, _ in seen}

    seen: set[tuple[str, int]] = set()
    wait_until(lambda: len(workers()) == 2, SECONDS)
    assert len({process for _, process in seen}) == 1
    assert len((folder / "loads").read_text().splitlines()) == 1
    facts = facts_of(server, "ready")
    assert facts.items() >= {"state": "ready", "capabilities": ["chat", "completions", "embeddings"]}.items()


def test_all_doors_lead_to_it(server: LiveServer) -> None:
    completion = requests.post(
        f"{server.base_url}/completions",
        json={"model": "ready", "prompt": "Once upon", "max_tokens": 5},
        timeout=SECONDS,
    )
    assert completion.json()["object"] == "text_completion"
    vectors = requests.post(f"{server.base_url}/embeddings", json={"model": "ready", "input": "x"}, timeout=SECONDS)
    assert vectors.json()["data"][0]["object"] == "embedding"
    asked = requests.post(
        f"{server.url}/ask", json={"messages": [{"role": "user", "content": "hi"}], "model": "ready"}, timeout=SECONDS
    )
    assert asked.status_code == 200, asked.text


def test_a_stream_that_waits_for_its_model_hears_comments(server: LiveServer) -> None:
    text = ask(server, "slow", stream=True).text
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert text.endswith("data: [DONE]\n\n")


def test_a_failed_load_is_told_and_not_repeated(server: LiveServer, folder: Path) -> None:
    for _ in range(3):
        reply = ask(server, "failing")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
        assert reply.json()["error"]["message"] == "The model 'failing' has no weights."
        assert reply.headers["x-should-retry"] == "false"
    assert len((folder / "failures").read_text().splitlines()) == 1
    assert facts_of(server, "failing")["error"] == "The model 'failing' has no weights."


@pytest.mark.parametrize("model", ["completing", "declared"])
def test_a_model_that_cannot_chat_says_so_for_good(server: LiveServer, model: str) -> None:
    reply = ask(server, model)
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "chat_completions_not_available")
    assert reply.headers["x-should-retry"] == "false"
    assert facts_of(server, model)["capabilities"] == ["completions"]


def test_what_a_row_rules_out_loads_nothing(server: LiveServer, folder: Path) -> None:
    body = {"model": "declared", "input": "x"}
    reply = requests.post(f"{server.base_url}/embeddings", json=body, timeout=SECONDS)
    assert (reply.status_code, reply.json()["error"]["code"]) == (501, "embeddings_backend_unavailable")
    assert not (folder / "declared").exists()


def test_a_full_queue_refuses_and_a_caller_who_leaves_makes_room(server: LiveServer) -> None:
    streams = [begun(ask(server, "narrow", "word " * 200, stream=True)) for _ in range(2)]
    reply = ask(server, "narrow")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_busy")
    assert int(reply.headers["Retry-After"]) > 0
    streams[0].close()
    began = time.monotonic()
    wait_until(lambda: ask(server, "narrow", "a").status_code == 200, SECONDS)
    assert time.monotonic() - began < 10, "its place was kept to the end of its twenty seconds"
    streams[1].close()


@pytest.mark.parametrize("victim", ["models", "supervisor", "both"])
def test_killed_in_the_middle_streams_say_so_and_the_next_call_is_answered(server: LiveServer, victim: str) -> None:
    engine = engine_of(server)
    streams = [ask(server, "ticking", "word " * 100, stream=True) for _ in range(3)]
    lines = [begun(stream) for stream in streams]
    victims = {"models": [engine], "supervisor": [parent_of(engine)], "both": [parent_of(engine), engine]}[victim]
    for process in victims:
        os.kill(process, signal.SIGKILL)
    for of_stream in lines:
        rest = [line for line in of_stream if line]
        assert json.loads(rest[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_cut"
        assert b"data: [DONE]" not in rest
    # A call that comes while the dead engine's socket is still open is told to come again, as clients then do.
    wait_until(lambda: ask(server, "ready").status_code == 200, SECONDS)
    assert engine_of(server) != engine


def test_a_model_that_kills_its_engine_takes_no_worker_along(server: LiveServer) -> None:
    reply = ask(server, "deadly")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_stopped")
    assert "Retry-After" in reply.headers
    assert ask(server, "ready").status_code == 200
    assert ask(server, "echo").status_code == 200


def test_whoever_waits_for_too_long_is_told_when_to_come_again(server: LiveServer) -> None:
    reply = ask(server, "endless")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_loading")
    assert int(reply.headers["Retry-After"]) > 0
    assert "x-should-retry" not in reply.headers
    assert facts_of(server, "endless")["state"] == "loading"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_engine_ends_with_its_server_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    temporary = Path(tempfile.mkdtemp())  # a short path: a socket's address is no longer than a hundred bytes
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], TMPDIR=str(temporary)) as server:
        engine = engine_of(server)
        supervisor = parent_of(engine)
        children = [int(pid) for pid in _children(server.process.pid)]
        server.process.send_signal(how)
        for process in children if how == signal.SIGKILL else ():
            with suppress(ProcessLookupError):
                os.kill(process, how)
        wait_until(lambda: not is_alive(engine) and not is_alive(supervisor), SECONDS)
    wait_until(lambda: not list(temporary.glob("openai-compat-engine-*")), SECONDS)
    shutil.rmtree(temporary)


def _children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def test_a_reload_brings_another_configuration_and_its_engine(tmp_path: Path) -> None:
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], workers=1) as server:
        first = engine_of(server)
        (tmp_path / "models.json").write_text(
            json.dumps([{"name": "ready", "hf_repo": "x"}, {"name": "another", "hf_repo": "x"}])
        )
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(server, "another").status_code == 200, SECONDS)
        assert facts_of(server, "another")["process"] != first


def test_the_engine_lives_through_a_reload_of_the_same_configuration(tmp_path: Path) -> None:
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], workers=1) as server:
        engine = engine_of(server)
        workers = _children(server.process.pid)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not set(workers) & set(_children(server.process.pid)), SECONDS)
        assert engine_of(server) == engine


def test_what_is_preloaded_is_loaded_before_anyone_asks(tmp_path: Path) -> None:
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], PRELOAD_MODELS="ready") as server:
        wait_until(lambda: facts_of(server, "ready")["state"] == "ready", SECONDS)


@pytest.mark.parametrize("setting", ["true", "false"])
def test_embeddings_can_be_turned_off(tmp_path: Path, setting: str) -> None:
    settings = {"ENABLE_EMBEDDINGS_BACKEND": setting}
    with local_server(tmp_path, [{"name": "ready", "hf_repo": "x"}], workers=1, **settings) as server:
        body = {"model": "ready", "input": "x"}
        reply = requests.post(f"{server.base_url}/embeddings", json=body, timeout=SECONDS)
    assert reply.status_code == (200 if setting == "true" else 501)
    assert setting == "true" or reply.json()["error"]["code"] == "embeddings_backend_unavailable"


def test_without_its_libraries_the_server_runs_and_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
    )
    (tmp_path / "models.json").write_text(
        json.dumps([{"name": "local", "hf_repo": "x"}, {"name": "e", "kind": "echo"}])
    )
    environment = {"MODELS_FILE": str(tmp_path / "models.json"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with LiveServer(environment) as server:
        reply = ask(server, "local")
        assert ask(server, "e").status_code == 200
        described = requests.get(f"{server.base_url}/models/local", timeout=SECONDS).json()
    assert (described["state"], described["error"]) == ("failed", reply.json()["error"]["message"])
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
    assert "pip install -r requirements-local.txt" in reply.json()["error"]["message"]
    assert reply.headers["x-should-retry"] == "false"


def test_a_loader_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps([{"name": "ready", "hf_repo": "x"}]))
    environment = {"MODELS_FILE": str(tmp_path / "models.json"), "LOCAL_MODEL_LOADER": "nowhere:load"}
    with LiveServer(environment) as server:
        reply = ask(server, "ready")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
        assert requests.get(f"{server.url}/healthz", timeout=SECONDS).status_code == 200
