"""The Codex CLI (npm `@openai/codex`) with a scripted chat model that runs a command and writes a file.

Codex takes 300 MB, so that only `make test-extras` installs it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer
from tests.support.raw_server import RawServer, read_request
from tests.support.tools import NODE_DIR

PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made by a model\n*** End Patch\n"
MODELS = ["gpt-5.5", "my-model"]
"""A model whose tools Codex sends as items with a custom `apply_patch`, and one that it does not know."""


def find_codex() -> str:
    installed = NODE_DIR / "node_modules" / ".bin" / "codex"
    found = str(installed) if installed.exists() else shutil.which("codex")
    return found or pytest.fail("the Codex CLI is not installed (`make test-extras` installs it)", pytrace=False)


def chunk(delta: Any, finish_reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": choices}).encode() + b"\n\n"


class ScriptedModel:
    """A chat model that thinks, runs a command, applies a patch if it has the tool, and ends with a text."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.server = RawServer(self._answer)

    def _answer(self, client: socket.socket) -> None:
        payload = json.loads(read_request(client).partition(b"\r\n\r\n")[2])
        self.requests.append(payload)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        client.sendall(self._next(payload) + b"data: [DONE]\n\n")

    def _next(self, payload: dict[str, Any]) -> bytes:
        turn = len(self.requests)
        names = {tool["function"]["name"] for tool in payload.get("tools", [])}
        if turn == 1:
            return self._call("exec_command", {"cmd": "echo from-the-shell"})
        if turn == 2 and "apply_patch" in names:
            return self._call("apply_patch", {"input": PATCH})
        return chunk({"role": "assistant", "content": "All "}) + chunk({"content": "done."}) + chunk({}, "stop")

    def _call(self, name: str, arguments: dict[str, str]) -> bytes:
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": f"call_{len(self.requests)}", "type": "function", "function": function}
        thought = chunk({"role": "assistant", "reasoning_content": f"I need {name}."})
        return thought + chunk({"tool_calls": [call]}) + chunk({}, "tool_calls")


def run_codex(codex: str, server: LiveServer, model: str, home: Path, work: Path) -> subprocess.CompletedProcess[str]:
    provider = f'name = "ours"\nbase_url = "{server.base_url}"\nwire_api = "responses"\nenv_key = "OUR_KEY"\n'
    config = f'model = "{model}"\nmodel_provider = "ours"\n[model_providers.ours]\n{provider}'
    (home / "config.toml").write_text(config)
    command = [codex, "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "Do it."]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), "OUR_KEY": "any"}
    return subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
    )


@pytest.mark.slow
@pytest.mark.extra("clients")
@pytest.mark.parametrize("model", MODELS)
def test_codex_runs_a_command_and_applies_a_patch(model: str, tmp_path: Path) -> None:
    codex = find_codex()
    home, work, file = tmp_path / "home", tmp_path / "work", tmp_path / "models.json"
    home.mkdir()
    work.mkdir()
    scripted = ScriptedModel()
    with scripted.server:
        row = {"name": model, "kind": "openai", "base_url": f"{scripted.server.url}/v1", "responses": "translated"}
        file.write_text(json.dumps([row]))
        with LiveServer({"MODELS_FILE": str(file)}) as server:
            done = run_codex(codex, server, model, home, work)
    assert (done.returncode, done.stdout.strip()) == (0, "All done."), done.stderr
    _, second, *_ = scripted.requests
    thought, output = second["messages"][-2:]
    assert thought["reasoning_content"] == "I need exec_command."
    assert (output["role"], "from-the-shell" in output["content"]) == ("tool", True)
    if model == "gpt-5.5":
        assert (work / "made.txt").read_text() == "made by a model\n"
