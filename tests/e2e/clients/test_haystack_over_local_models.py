"""A pipeline whose model and embedder are local models, with one sidecar of each kind beside the workers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.local_models import LOADER
from tests.support.waiting import wait_until

pytestmark = pytest.mark.extra("haystack")

QUESTION = "Why do cats purr?"


def test_workers_and_pipelines_share_one_engine_that_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    models = [
        {"name": "local", "hf_repo": f"counts={tmp_path / 'loads'}"},
        {"name": "pets", "kind": "haystack", "documents": "pets", "generator": "local", "embedder": "local"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(models))
    settings = {"LOCAL_MODEL_LOADER": LOADER, "LOCAL_RUNTIME_DIR": str(tmp_path)}
    with LiveServer({"MODELS_FILE": "models.json", **settings}, workers=2, folder=tmp_path) as server:

        def ask(model: str) -> str:
            body = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
            reply = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=40)
            assert reply.status_code == 200, reply.text
            return str(reply.json()["choices"][0]["message"]["content"])

        # A pipeline's call starts the engine, and the workers then find it.
        first = ask("pets")
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(ask, ["pets", "local"] * 10))
    assert set(answers) == {first, QUESTION}
    assert first == f"{QUESTION}\n\nSources:\n[1] Cats (cats.md)"
    (engine,) = (tmp_path / "loads").read_text().split()
    wait_until(lambda: not Path(f"/proc/{engine}").exists(), "the engine has ended with its server")
