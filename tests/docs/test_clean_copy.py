"""`make run` in a new clone, the command that it prints, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clean_copy import make_clean_copy
from tests.support.nginx import free_port
from tests.support.snippets import plain_environment, run_bash
from tests.support.subprocess_server import SubprocessServer, run_server
from tests.support.tools import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clean_copy(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def server(copy: Path) -> Iterator[SubprocessServer]:
    port = free_port()
    command = ["make", "run", f"ARGS=--port {port}"]
    with run_server(command, port, copy, timeout=200, new_session=True) as server:
        yield server


def test_the_printed_command_works(server: SubprocessServer, tmp_path: Path) -> None:
    output = server.output()
    assert "mock-gpt-model" in output
    (command,) = [line.strip() for line in output.splitlines() if line.strip().startswith("curl ")]
    answer = json.loads(run_bash(command, tmp_path))
    assert answer["choices"][0]["message"]["content"]


def test_make_run_adds_only_the_environment(server: SubprocessServer, copy: Path) -> None:
    known = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split())
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    added = {name for name in found - known if not name.startswith(".venv/") and "__pycache__" not in name}
    assert not added


def test_make_help_lists_the_targets(copy: Path) -> None:
    """`make test` would run this test again, so that it is a dry run."""
    shown = make(copy, "help")
    for target in ("run", "test", "test-extras", "lint", "types", "docs"):
        assert f"make {target} " in shown
    assert "-m pytest" in make(copy, "--dry-run", "test")


def make(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["make", *words], cwd=folder, env=plain_environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def test_ctrl_c_stops_the_server_without_a_traceback(copy: Path) -> None:
    """The second start installs nothing, so it is quick."""
    port = free_port()
    with run_server(["make", "run", f"ARGS=--port {port}"], port, copy, timeout=20, new_session=True) as server:
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does, to all processes of the session
        server.process.wait(10)
        assert "Traceback" not in server.output()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_an_invalid_setting_is_reported_and_the_server_does_not_start(copy: Path) -> None:
    environment = plain_environment({"PORT": "eighty", "LOG_FORMAT": "xml"})
    done = subprocess.run(["make", "run"], cwd=copy, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "PORT must be" in done.stderr
    assert "LOG_FORMAT must be" in done.stderr


def to_name(text: str) -> str:
    """Return a package's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def test_make_sbom_lists_what_make_run_has_installed(server: SubprocessServer, copy: Path) -> None:
    make(copy, "sbom")
    sbom = json.loads((copy / "dist" / "sbom.json").read_text())
    listed = {(to_name(component["name"]), component["version"]) for component in sbom["components"]}
    command = [copy / ".venv/bin/pip", "list", "--format=json", "--disable-pip-version-check"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=plain_environment()).stdout
    installed = {(to_name(package["name"]), package["version"]) for package in json.loads(shown)}
    assert sbom["bomFormat"] == "CycloneDX"
    assert {(name, version) for name, version in installed if name not in {"pip", "setuptools"}} <= listed
