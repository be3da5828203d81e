"""Memory of a running stream whose prompt is long."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from tests.integration.web.conftest import MakeClient
from tests.support.mock_upstream import MockUpstream

PROMPT = "a" * 1_000_000
"""A prompt of 1 MB, which outweighs everything else that a stream takes."""


def test_a_running_response_keeps_its_prompt_no_more_often_than_a_chat(
    make_client: MakeClient, upstream: MockUpstream, tmp_path: Path
) -> None:
    models = tmp_path / "models.json"
    row = {"name": "m", "kind": "openai", "base_url": upstream.base_url, "upstream_model": "mock-model"}
    translated = {"responses": "translated", "profile": {"translate_responses": True}}
    models.write_text(json.dumps([{**row, **translated}]))
    client = make_client(MODELS_FILE=str(models))
    chat = {"messages": [{"role": "user", "content": PROMPT}]}
    response = {"input": PROMPT, "store": False}
    for path, body in (("chat/completions", chat), ("responses", response)):  # the first calls import what they need
        taken_by_stream(client, path, body)
    assert taken_by_stream(client, "responses", response) < 1.1 * taken_by_stream(client, "chat/completions", chat)


def taken_by_stream(client: FlaskClient, path: str, body: dict[str, Any]) -> int:
    """Return the bytes that a stream takes which has begun, those of the test client's request included."""
    tracemalloc.start()
    try:
        stream = client.post(f"/v1/{path}", json={"model": "m", "stream": True, **body})
        assert next(stream.iter_encoded()).startswith((b"data: ", b"event: "))
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        stream.close()
