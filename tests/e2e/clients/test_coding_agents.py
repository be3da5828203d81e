"""opencode, Cline and Continue (npm) with a scripted chat model that reads a file and writes another.

The three take 900 MB, so that only `make test-extras` installs them.
"""

from __future__ import annotations

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
from tests.support.scripted_chat import ScriptedModel, call_events, text_events
from tests.support.tools import NODE_DIR

KEY = "key-of-the-caller"
PROMPT = "Copy in.txt to out.txt."
Call = tuple[str, dict[str, Any]]
ROWS: dict[str, dict[str, Any]] = {"forwarded": {}, "emulated": {"tools": "prompt"}}
"""A row whose upstream calls tools, and one whose upstream has only text."""


@dataclass(frozen=True)
class Agent:
    """A coding agent: its program, its tools for reading and writing a file, and how it is set up and run."""

    program: str
    read: Callable[[str], Call]
    write: Callable[[str, str], Call]
    commands: Callable[[str, str, Path], list[list[str]]]


def opencode_commands(url: str, model: str, home: Path) -> list[list[str]]:
    options = {"baseURL": url, "apiKey": KEY}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {model: {}}}
    config = {"provider": {"ours": provider}, "autoupdate": False}
    folder = home / ".config" / "opencode"
    folder.mkdir(parents=True)
    (folder / "opencode.json").write_text(json.dumps(config))
    return [["opencode", "run", "--auto", "--model", f"ours/{model}", PROMPT]]


def cline_commands(url: str, model: str, home: Path) -> list[list[str]]:
    account = ["--provider", "openai", "--apikey", KEY, "--modelid", model, "--baseurl", url]
    return [["cline", "auth", *account], ["cline", "--auto-approve", "true", PROMPT]]


def continue_commands(url: str, model: str, home: Path) -> list[list[str]]:
    entry = {"name": "ours", "provider": "openai", "model": model, "apiBase": url, "apiKey": KEY, "roles": ["chat"]}
    file = home / "config.yaml"
    file.write_text(json.dumps({"name": "ours", "version": "1.0.0", "schema": "v1", "models": [entry]}))
    return [["cn", "--config", str(file), "--auto", "--print", PROMPT]]


AGENTS = [
    Agent(
        "opencode",
        read=lambda path: ("read", {"filePath": path}),
        write=lambda path, text: ("write", {"filePath": path, "content": text}),
        commands=opencode_commands,
    ),
    Agent(
        "cline",
        read=lambda path: ("read_files", {"files": [{"path": path}]}),
        write=lambda path, text: ("editor", {"path": path, "new_text": text}),
        commands=cline_commands,
    ),
    Agent(
        "cn",
        read=lambda path: ("Read", {"filepath": path}),
        write=lambda path, text: ("Write", {"filepath": path, "content": text}),
        commands=continue_commands,
    ),
]


def is_result(message: dict[str, Any]) -> bool:
    return message["role"] == "tool" or "<tool_response" in str(message["content"])


def describes_tools(payload: dict[str, Any]) -> bool:
    """Return True if the system prompt describes tools. It does not in the calls that make a title."""
    return "<tool_call>" in str(payload["messages"][0]["content"])


def copying(agent: Agent, work: Path) -> Callable[[dict[str, Any], int], bytes]:
    """Return the script of a model that reads `in.txt`, writes its text to `out.txt`, and ends with a text."""

    def answer(payload: dict[str, Any], turn: int) -> bytes:
        has_tools = bool(payload.get("tools"))
        if not has_tools and not describes_tools(payload):
            return text_events("A title")
        results = [str(message["content"]) for message in payload["messages"] if is_result(message)]
        if not results:
            return to_events(agent.read(str(work / "in.txt")), has_tools)
        if len(results) == 1:
            text = SECRET if SECRET in results[0] else "nothing"
            return to_events(agent.write(str(work / "out.txt"), text), has_tools)
        return text_events("All ", "done.")

    return answer


def to_events(call: Call, has_tools: bool) -> bytes:
    """Return the answer that makes a call, in parts of three characters if the model has only text."""
    if has_tools:
        return call_events(call)
    text = f"I use {call[0]}.\n<tool_call>\n{json.dumps({'name': call[0], 'arguments': call[1]})}\n</tool_call>"
    return text_events(*(text[at : at + 3] for at in range(0, len(text), 3)))


def environment(home: Path) -> dict[str, str]:
    """Return variables for the installed agents, without reports to their makers and without a daemon of Cline's."""
    programs = str(NODE_DIR / "node_modules" / ".bin")
    settings = {
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "CLINE_SESSION_BACKEND_MODE": "local",
        "CONTINUE_CLI_ENABLE_TELEMETRY": "0",
        "DO_NOT_TRACK": "1",
    }
    return {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), **settings}


def run(command: list[str], work: Path, variables: dict[str, str]) -> str:
    """Run a command without a person who could be asked for permission, and return its output."""
    if shutil.which(command[0], path=variables["PATH"]) is None:
        pytest.fail(f"{command[0]} is not installed (`make test-extras` installs it)", pytrace=False)
    done = subprocess.run(
        command, cwd=work, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return create_folders(tmp_path)


def run_agent(agent: Agent, scripted: ScriptedModel, row: dict[str, Any], folders: tuple[Path, Path]) -> None:
    """Run the agent with the scripted model behind a row. Fail unless it copies the file."""
    work, home = folders
    with scripted.server:
        entry = {"name": "local-model", "kind": "openai", "base_url": f"{scripted.server.url}/v1", **row}
        file = home / "models.json"
        file.write_text(json.dumps([entry]))
        with LiveServer({"MODELS_FILE": str(file), "API_KEYS": KEY}) as server:
            commands = agent.commands(server.base_url, "local-model", home)
            outputs = [run(command, work, environment(home)) for command in commands]
            log = server.log()
    assert "All done." in outputs[-1], log
    assert (work / "out.txt").read_text().strip() == SECRET


@pytest.mark.slow
@pytest.mark.extra("clients")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.program)
def test_an_agent_reads_a_file_and_writes_another(agent: Agent, row: str, folders: tuple[Path, Path]) -> None:
    scripted = ScriptedModel(copying(agent, folders[0]))
    run_agent(agent, scripted, ROWS[row], folders)
    assert ("tools" in scripted.requests[-1]) == (row == "forwarded")


@pytest.mark.slow
@pytest.mark.extra("clients")
@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.program)
def test_an_agent_repeats_a_turn_with_an_invalid_call(agent: Agent, folders: tuple[Path, Path]) -> None:
    script, invalid = copying(agent, folders[0]), []

    def answer(payload: dict[str, Any], turn: int) -> bytes:
        if invalid or not describes_tools(payload):
            return script(payload, turn)
        invalid.append(turn)
        return text_events(f'<tool_call>{{"name": "{agent.read("")[0]}", "arguments": {{}}}}</tool_call>')

    run_agent(agent, ScriptedModel(answer), ROWS["emulated"], folders)
    assert invalid
