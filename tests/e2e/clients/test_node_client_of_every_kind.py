"""The official Node client with models of all kinds whose answers are translated."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.fake_chat_apis import KEY, FakeChatAPIs
from tests.support.fake_databricks import PERSONAL_TOKEN, Workspace
from tests.support.live_server import LiveServer
from tests.support.recording_api import RecordingAPI
from tests.support.tools import NODE_DIR, has_extra, require_node

TEXT = "Cats purr when they are content"
MODELS = ("databricks", "declared", "declared-complete", "external")
HAYSTACK_MODELS = ("haystack", "documents")
each_model = pytest.mark.parametrize(
    "model", [*MODELS, *(pytest.param(model, marks=pytest.mark.extra("haystack")) for model in HAYSTACK_MODELS)]
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    node = require_node()
    models = [*MODELS, *(HAYSTACK_MODELS if has_extra("haystack") else ())]
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "pets").mkdir()
    (folder / "pets" / "cats.md").write_text("# Cats\n\nCats purr when they are content.")
    with FakeChatAPIs() as apis, RecordingAPI(TEXT, streams=False) as api, Workspace() as workspace:
        entries: list[dict[str, Any]] = [
            {"name": "echo", "kind": "echo"},
            {"name": "databricks", "kind": "databricks", "upstream_model": "echo"},
            {
                "name": "declared",
                "kind": "external",
                "base_url": f"{apis.url}/parlour",
                "headers": {"authorization": "Key ${KEY}"},
                "request": {"body": {"chat": "{{ conversation[].{says: text} }}"}},
                "reply": {"format": "sse", "text": "event == 'token' && data", "done": "event == 'end'"},
            },
            {
                "name": "declared-complete",
                "kind": "external",
                "base_url": api.url,
                "request": {"body": {"prompt": "{{ last_user_message }}"}},
                "reply": {"text": "data.answer"},
            },
            {"name": "external", "kind": "external", "base_url": api.url},
            {"name": "haystack", "kind": "haystack", "generator": "echo"},
            {"name": "documents", "kind": "haystack", "generator": "echo", "documents": "pets"},
        ]
        entries = [entry for entry in entries if entry["name"] in ("echo", *models)]
        (folder / "models.json").write_text(json.dumps(entries))
        databricks = {"DATABRICKS_HOST": workspace.url, "DATABRICKS_TOKEN": PERSONAL_TOKEN}
        settings = {**databricks, "KEY": KEY, "MODELS_FILE": "models.json"}
        with LiveServer(settings, workers=2, folder=folder) as server:
            command = [node, NODE_DIR / "kinds.mjs", server.url, *models]
            done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@each_model
def test_complete_and_streamed_answers_have_the_same_text(answers: dict[str, Any], model: str) -> None:
    answer = answers[model]
    complete, streamed = (answer[how]["choices"][0] for how in ("complete", "streamed"))
    expected = TEXT + ("\n\nSources:\n[1] Cats (cats.md)" if model == "documents" else "")
    assert complete["message"]["content"] == streamed["message"]["content"] == "".join(answer["deltas"]) == expected
    assert complete["finish_reason"] == streamed["finish_reason"] == "stop"
    assert answer["streamed"]["model"] == model
    assert len(answer["deltas"]) >= 6


@each_model
def test_usage_and_errors_are_reported(answers: dict[str, Any], model: str) -> None:
    assert answers[model]["streamed"]["usage"]["total_tokens"] > 0
    assert answers[model]["refused"] == {"status": 400, "param": "messages"}
