"""The Codex CLI (npm `@openai/codex`) with a scripted chat model that runs a command and writes a file.

Codex takes 300 MB, so that only `make test-extras` installs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer
from tests.support.scripted_chat import ScriptedModel, call_events, text_events
from tests.support.tools import NODE_DIR

PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made by a model\n*** End Patch\n"
MODELS = ["gpt-5.5", "my-model"]
"""A model whose tools Codex sends as items with a custom `apply_patch`, and one that it does not know."""


def find_codex() -> str:
    installed = NODE_DIR / "node_modules" / ".bin" / "codex"
    found = str(installed) if installed.exists() else shutil.which("codex")
    return found or pytest.fail("the Codex CLI is not installed (`make test-extras` installs it)", pytrace=False)


def answer(payload: dict[str, Any], turn: int) -> bytes:
    """Return a call that runs a command, then one that applies a patch if there is the tool, and then a text."""
    names = {tool["function"]["name"] for tool in payload.get("tools", [])}
    if turn == 1:
        return call_events(("exec_command", {"cmd": "echo from-the-shell"}), thought="I need exec_command.")
    if turn == 2 and "apply_patch" in names:
        return call_events(("apply_patch", {"input": PATCH}), thought="I need apply_patch.")
    return text_events("All ", "done.")


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
    scripted = ScriptedModel(answer)
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
