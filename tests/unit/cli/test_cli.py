"""The command line as a user runs it: errors are sentences, and come before anything starts."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from openai_compat.cli import COMMANDS, main
from openai_compat.cli.check_config import to_banner
from openai_compat.config import environment
from openai_compat.core.validators import to_address
from openai_compat.tools.progress import show_progress
from tests.support.nginx import free_port
from tests.support.snippets import plain_environment
from tests.support.subprocess_server import run_server
from tests.support.tools import ROOT


def run(*words: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "openai_compat", *words],
        cwd=folder,
        env=plain_environment({"PYTHONPATH": str(ROOT), **settings}),
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_a_port_in_use_is_reported_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--host", "127.0.0.1", "--port", str(port), folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_the_help_lists_every_command_without_importing_one(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")} >= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: openai-compat {command}" in capsys.readouterr().out


def test_an_unknown_command_is_reported_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["server"])
    assert ended.value.code == 2
    assert "invalid choice: 'server' (choose from" in capsys.readouterr().err


SERVES = """\
import os, sys
from openai_compat.cli import main

def execv(path, arguments):
    started = " ".join(arguments)
    modules = [name for name in sys.modules if name.startswith("openai_compat.")]
    print(started, *sorted(modules), sep="\\n")
    sys.exit(0)

os.execv = execv
main(["serve", "--host", "127.0.0.1", "--port", "0"])
"""


def test_serve_imports_no_tool_and_no_sidecar(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVES],
        cwd=tmp_path,
        env=plain_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "gunicorn --config" in done.stdout, done.stderr
    modules = [line for line in done.stdout.splitlines() if line.startswith("openai_compat.")]
    assert "openai_compat.cli.serve" in modules
    prefixes = ("openai_compat.tools", "openai_compat.sidecars", "openai_compat.cli.models", "openai_compat.cli.pipe")
    assert [module for module in modules if module.startswith(prefixes)] == []


def test_check_config_prints_a_line_for_each_former_name(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "- {name: a, kind: echo, fallbacks: [b], longest_wait: 1}\n- {name: b, kind: echo}\n"
    )
    former = {"MODEL_REGISTRY_PATH": "models.yaml", "QUEUE_TIMEOUT": "3"}
    done = run("check-config", folder=tmp_path, **former)
    assert done.returncode == 0
    assert sorted(done.stderr.splitlines()) == [
        "MODEL_REGISTRY_PATH is now MODELS_FILE",
        "QUEUE_TIMEOUT is now REQUEST_QUEUE_TIMEOUT",
        "model 'a': longest_wait is now max_retry_wait",
    ]
    wrong = run("check-config", folder=tmp_path, **former, PORT="eighty")
    assert wrong.returncode == 2
    assert "PORT must be a whole number" in wrong.stderr
    assert "QUEUE_TIMEOUT is now REQUEST_QUEUE_TIMEOUT" in wrong.stderr


def test_former_names_are_silent_when_the_server_starts(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "openai_compat", "serve", "--port", str(port)]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT), "QUEUE_TIMEOUT": "3"}) as server:
        assert "QUEUE_TIMEOUT" not in server.output()


@pytest.mark.parametrize("words", [("--port", "99999"), ("--port", "http"), ("--workers", "0")])
def test_a_wrong_option_is_reported(words: tuple[str, str], tmp_path: Path) -> None:
    done = run("serve", *words, folder=tmp_path)
    assert done.returncode == 2
    assert f"argument {words[0]}: must be a whole number from" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_wrong_settings_are_reported(command: str, tmp_path: Path) -> None:
    done = run(command, folder=tmp_path, PORT="eighty", MODELS_FILE="nowhere.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "PORT must be a whole number" in done.stderr
    assert "MODELS_FILE: nowhere.yaml cannot be read" in done.stderr


def test_check_config_reads_dot_env_and_prints_no_key(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        'OPENAI_API_KEY="sk-secret" # ours\nOPENAI_BASE_URL=https://me:pass@gpu.test/v1?key=hidden\n'
    )
    done = run("check-config", folder=tmp_path)
    assert done.returncode == 0
    assert "https://gpu.test/v1\n" in done.stdout
    assert "sk-secret" not in done.stdout
    assert "pass" not in done.stdout
    assert "hidden" not in done.stdout


def test_a_config_module_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("SETTINGS = ['someone else']\n")
    done = run("check-config", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    port = free_port()
    command = [sys.executable, "-m", "openai_compat", "serve", "--port", str(port)]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        assert "mock-gpt-model" in server.output()


def test_gunicorn_without_the_configuration_file_logs_how_to_use_it(tmp_path: Path) -> None:
    """gunicorn looks for a file in the working directory. Without one, its default worker cuts long streams."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "wsgi:app"]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        assert server.output().count("WARNING") == 1
        assert f"-c {ROOT / 'openai_compat/server/gunicorn_conf.py'}" in server.output()
    command += ["-c", str(ROOT / "gunicorn.conf.py")]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        assert "WARNING" not in server.output()


def test_the_command_in_the_banner_can_be_pasted_and_has_a_key() -> None:
    settings = environment.load({"API_KEYS": "a,b", "DEFAULT_MODEL": "mock-gpt-model"})
    (line,) = [line for line in to_banner(settings, "0.0.0.0", 80).splitlines() if "curl" in line]  # noqa: S104
    words = shlex.split(line)
    assert words[1] == "http://localhost:80/v1/chat/completions"
    assert "Authorization: Bearer YOUR_KEY" in words
    assert json.loads(words[-1])["model"] == "mock-gpt-model"


def test_the_banner_shows_the_aliases() -> None:
    settings = environment.load({"MODEL_ALIASES": "claude-*=mock-gpt-model"})
    lines = [line.split() for line in to_banner(settings, "localhost", 80).splitlines()]
    assert ["claude-*", "another", "name", "of", "mock-gpt-model"] in lines


def test_the_banner_names_the_extra_that_a_local_model_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"name": "writer", "hf_repo": "x"}, {"name": "e", "kind": "echo"}]))

    def lines(missing: str | None) -> list[str]:
        monkeypatch.setattr("openai_compat.backends.local.engine_config.missing_extra", lambda: missing)
        settings = environment.load({"MODELS_FILE": str(file), "INCLUDE_DEFAULT_MODELS": "false"})
        return to_banner(settings, "localhost", 80).splitlines()

    (lacking,) = [line for line in lines("torch") if "requirements-local.txt" in line]
    assert lacking.split()[0] == "writer"
    assert not any("requirements" in line for line in lines(None))


def test_an_address_in_brackets_is_refused(tmp_path: Path) -> None:
    done = run("serve", "--host", "[::]", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --host: must be a name or an address, without port or brackets, not '[::]'" in done.stderr


def test_an_ipv6_address_gets_brackets() -> None:
    assert to_address("::1", 80) == "[::1]:80"
    assert to_address("127.0.0.1", 80) == "127.0.0.1:80"


def test_the_server_listens_on_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    command = [sys.executable, "-m", "openai_compat", "serve", "--port", str(port)]
    with run_server(command, port, tmp_path, {"HOST": "::1", "PYTHONPATH": str(ROOT)}, host="[::1]") as server:
        assert f"http://[::1]:{port}/v1" in server.output()
        with urllib.request.urlopen(f"http://[::1]:{port}/v1/models", timeout=5) as reply:
            assert reply.status == 200


def test_progress_is_printed_only_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_progress("1/2")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show_progress("2/2")
    show_progress("")
    assert capsys.readouterr() == ("", "\r\033[K2/2\r\033[K")
