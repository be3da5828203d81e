"""`make run-local` in a new clone, which installs what its two models need and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests

from tests.support.clean_copy import make_clean_copy
from tests.support.nginx import free_port
from tests.support.snippets import run_bash
from tests.support.subprocess_server import run_server
from tests.support.tools import require_tool

pytestmark = [pytest.mark.extra("llama-cpp", "local-models"), pytest.mark.slow, pytest.mark.timeout(300)]


def test_make_run_local_serves_two_models_from_less_than_250_mb(tmp_path: Path) -> None:
    require_tool("strip")
    copy, port = make_clean_copy(tmp_path / "clone"), free_port()
    with run_server(["make", "run-local", f"ARGS=--port {port}"], port, copy, timeout=280, new_session=True) as server:
        (command,) = [line.strip() for line in server.output().splitlines() if line.strip().startswith("curl ")]
        assert json.loads(run_bash(command, tmp_path))["choices"][0]["message"]["content"]
        body = {"model": "all-minilm-l6-v2", "input": "The cat sits on the mat."}
        answer = requests.post(f"http://127.0.0.1:{port}/v1/embeddings", json=body, timeout=30).json()
        assert len(answer["data"][0]["embedding"]) == 384
    files = [path for path in (copy / ".venv").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 250_000_000
