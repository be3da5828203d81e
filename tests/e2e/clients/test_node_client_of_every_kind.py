"""The official Node client streams through every kind that is no peer of OpenAI's protocol as it stands."""

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
MODELS = ("databricks", "declared", "declared-whole", "external")
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
        rows: list[dict[str, Any]] = [
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
                "name": "declared-whole",
                "kind": "external",
                "base_url": api.url,
                "request": {"body": {"prompt": "{{ last_user_message }}"}},
                "reply": {"text": "data.answer"},
            },
            {"name": "external", "kind": "external", "base_url": api.url},
            {"name": "haystack", "kind": "haystack", "generator": "echo"},
            {"name": "documents", "kind": "haystack", "generator": "echo", "documents": "pets"},
        ]
        rows = [row for row in rows if row["name"] in ("echo", *models)]
        (folder / "models.json").write_text(json.dumps(rows))
        databricks = {"DATABRICKS_HOST": workspace.url, "DATABRICKS_TOKEN": PERSONAL_TOKEN}
        settings = {**databricks, "KEY": KEY, "MODELS_FILE": "models.json"}
        with LiveServer(settings, workers=2, folder=folder) as server:
            command = [node, NODE_DIR / "kinds.mjs", server.url, *models]
            done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr.decode()
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@each_model
def test_it_reads_the_same_whole_and_streamed(answers: dict[str, Any], model: str) -> None:
    answer = answers[model]
    whole, streamed = (answer[how]["choices"][0] for how in ("whole", "streamed"))
    expected = TEXT + ("\n\nSources:\n[1] Cats (cats.md)" if model == "documents" else "")
    assert whole["message"]["content"] == streamed["message"]["content"] == "".join(answer["pieces"]) == expected
    assert whole["finish_reason"] == streamed["finish_reason"] == "stop"
    assert answer["streamed"]["model"] == model
    assert len(answer["pieces"]) >= 6


@each_model
def test_usage_and_errors_are_there(answers: dict[str, Any], model: str) -> None:
    assert answers[model]["streamed"]["usage"]["total_tokens"] > 0
    assert answers[model]["refused"] == {"status": 400, "param": "messages"}
