"""Claude Code (npm `@anthropic-ai/claude-code`) with a scripted chat model that reads a file and writes another.

Claude Code takes 400 MB, so that only `make test-extras` installs it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_folders import SECRET, create_folders
from tests.support.live_server import LiveServer
from tests.support.scripted_chat import ScriptedModel, call_events, chunk, text_events
from tests.support.tools import NODE_DIR

KEY = "key-of-the-caller"
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")
"""A PNG of one red pixel."""
Answer = Callable[[dict[str, Any], int], bytes]


def find_claude() -> str:
    installed = NODE_DIR / "node_modules" / ".bin" / "claude"
    found = str(installed) if installed.exists() else shutil.which("claude")
    return found or pytest.fail("Claude Code is not installed (`make test-extras` installs it)", pytrace=False)


@dataclass(frozen=True)
class Run:
    """A finished run, with the calls that the model received and the result that Claude Code printed."""

    status: int
    result: dict[str, Any]
    requests: list[dict[str, Any]]
    log: str


def copying(work: Path) -> Answer:
    """Return the script of a model that reads `in.txt`, writes its text to `out.txt`, and ends with a text."""

    def answer(payload: dict[str, Any], turn: int) -> bytes:
        results = [message["content"] for message in payload["messages"] if message["role"] == "tool"]
        if not payload.get("tools"):
            return text_events("A title")
        if not results:
            return call_events(("Read", {"file_path": str(work / "in.txt")}), thought="I need the file.")
        if len(results) == 1:
            text = SECRET if SECRET in str(results[0]) else "nothing"
            return call_events(("Write", {"file_path": str(work / "out.txt"), "content": text}))
        return text_events("All ", "done.")

    return answer


def run_claude(work: Path, home: Path, answer: Answer) -> Run:
    """Run one prompt in `work`, without a person who could be asked for permission."""
    claude = find_claude()
    scripted = ScriptedModel(answer)
    with scripted.server:
        row = {"name": "local-model", "kind": "openai", "base_url": f"{scripted.server.url}/v1"}
        file = home / "models.json"
        file.write_text(json.dumps({"models": [row], "model_aliases": {"claude-*": "local-model"}}))
        with LiveServer({"MODELS_FILE": str(file), "API_KEYS": KEY}) as server:
            done = subprocess.run(
                [claude, "-p", "Copy in.txt to out.txt.", "--output-format", "json", "--allowedTools", "Read,Write"],
                cwd=work, env=environment(server, home), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=100, check=False,
            )  # fmt: skip
            log = server.log()
    assert done.stdout, f"{done.stderr}\n{log}"
    return Run(done.returncode, json.loads(done.stdout), scripted.requests, log)


def environment(server: LiveServer, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "ANTHROPIC_MODEL": "claude-sonnet-4-5",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return create_folders(tmp_path)


@pytest.mark.slow
@pytest.mark.extra("clients")
def test_claude_code_reads_a_file_and_writes_another(folders: tuple[Path, Path]) -> None:
    work, home = folders
    run = run_claude(work, home, copying(work))
    assert (run.status, run.result["result"], run.result["is_error"]) == (0, "All done.", False), run.log
    assert (work / "out.txt").read_text() == SECRET
    assert all(request["stream"] for request in run.requests)
    assert {request["model"] for request in run.requests} == {"local-model"}
    assert "x-anthropic-billing-header" not in json.dumps(run.requests)


@pytest.mark.slow
@pytest.mark.extra("clients")
def test_claude_code_repeats_a_turn_that_was_cut(folders: tuple[Path, Path]) -> None:
    work, home = folders
    script, cuts = copying(work), []

    def answer(payload: dict[str, Any], turn: int) -> bytes:
        whole = script(payload, turn)
        if b'"Write"' not in whole or cuts:
            return whole
        cuts.append(turn)
        return chunk({"role": "assistant", "content": "I write "}) + chunk({"content": "half a sen"})

    run = run_claude(work, home, answer)
    assert cuts
    assert "half a sen" not in json.dumps(run.requests[-1])
    assert (run.status, run.result["result"], run.result["is_error"]) == (0, "All done.", False), run.log
    assert (work / "out.txt").read_text() == SECRET


@pytest.mark.slow
@pytest.mark.extra("clients")
def test_the_model_gets_the_results_of_parallel_calls_and_sees_an_image(folders: tuple[Path, Path]) -> None:
    work, home = folders
    (work / "pixel.png").write_bytes(PIXEL)
    paths = [str(work / name) for name in ("pixel.png", "in.txt")]

    def answer(payload: dict[str, Any], turn: int) -> bytes:
        if any(message["role"] == "tool" for message in payload["messages"]):
            return text_events("All ", "done.")
        return call_events(*(("Read", {"file_path": path}) for path in paths))

    run = run_claude(work, home, answer)
    assert (run.status, run.result["result"]) == (0, "All done."), run.log
    messages = run.requests[-1]["messages"]
    first = next(index for index, message in enumerate(messages) if message.get("tool_calls"))
    calls = [call["id"] for call in messages[first]["tool_calls"]]
    results = messages[first + 1 : first + 3]
    assert [(result["role"], result["tool_call_id"]) for result in results] == [("tool", id) for id in calls]
    assert SECRET in str(results[1]["content"])
    (images,) = [message for message in messages[first + 3 :] if "image_url" in json.dumps(message)]
    assert images["role"] == "user"
    (image,) = [part for part in images["content"] if part["type"] == "image_url"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
