"""The command line, as a person meets it: what is wrong is said in a sentence, before anything starts."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from openai_compat import cli
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


def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--host", "127.0.0.1", "--port", str(port), folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("words", [("--port", "99999"), ("--port", "http"), ("--workers", "0")])
def test_a_wrong_option_is_told(words: tuple[str, str], tmp_path: Path) -> None:
    done = run("serve", *words, folder=tmp_path)
    assert done.returncode == 2
    assert f"argument {words[0]}: must be a whole number from" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_wrong_setting_is_told(command: str, tmp_path: Path) -> None:
    done = run(command, folder=tmp_path, PORT="eighty", MODELS_FILE="nowhere.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "PORT must be a whole number" in done.stderr
    assert "MODELS_FILE: nowhere.yaml cannot be read" in done.stderr


def test_check_config_reads_dot_env_and_shows_no_key(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        'OPENAI_API_KEY="sk-secret" # ours\nOPENAI_BASE_URL=https://me:pass@gpu.test/v1?key=hidden\n'
    )
    done = run("check-config", folder=tmp_path)
    assert done.returncode == 0
    assert "https://gpu.test/v1\n" in done.stdout
    assert "sk-secret" not in done.stdout
    assert "pass" not in done.stdout
    assert "hidden" not in done.stdout


def test_a_config_of_the_folder_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("SETTINGS = ['someone else']\n")
    done = run("check-config", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    port = free_port()
    command = [sys.executable, "-m", "openai_compat", "serve", "--port", str(port)]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        assert "mock-gpt-model" in server.output()


def test_gunicorn_without_our_file_is_told_to_take_it(tmp_path: Path) -> None:
    """It looks for one in the folder where it is started; without one, its worker cuts long streams."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "wsgi:app"]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        assert server.output().count("WARNING") == 1
        assert f"-c {ROOT / 'openai_compat/server/gunicorn_conf.py'}" in server.output()
    command += ["-c", str(ROOT / "gunicorn.conf.py")]
    with run_server(command, port, tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        assert "WARNING" not in server.output()


def test_the_command_in_the_banner_can_be_pasted_and_names_the_key() -> None:
    settings = environment.load({"API_KEYS": "a,b", "DEFAULT_MODEL": "mock-gpt-model"})
    (line,) = [line for line in cli.to_banner(settings, "0.0.0.0", 80).splitlines() if "curl" in line]  # noqa: S104
    words = shlex.split(line)
    assert words[1] == "http://localhost:80/v1/chat/completions"
    assert "Authorization: Bearer YOUR_KEY" in words
    assert json.loads(words[-1])["model"] == "mock-gpt-model"


def test_the_banner_says_what_a_local_model_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"name": "writer", "hf_repo": "x"}, {"name": "e", "kind": "echo"}]))

    def lines(missing: str | None) -> list[str]:
        monkeypatch.setattr("openai_compat.backends.huggingface.engine_config.missing_extra", lambda: missing)
        settings = environment.load({"MODELS_FILE": str(file), "INCLUDE_DEFAULT_MODELS": "false"})
        return cli.to_banner(settings, "localhost", 80).splitlines()

    (lacking,) = [line for line in lines("torch") if "requirements-local.txt" in line]
    assert lacking.split()[0] == "writer"
    assert not any("requirements" in line for line in lines(None))


def test_an_address_in_brackets_is_told(tmp_path: Path) -> None:
    done = run("serve", "--host", "[::]", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --host: must be a name or an address, without port or brackets, not '[::]'" in done.stderr


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert to_address("::1", 80) == "[::1]:80"
    assert to_address("127.0.0.1", 80) == "127.0.0.1:80"


def test_it_serves_on_ipv6(tmp_path: Path) -> None:
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


def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_progress("1/2")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show_progress("2/2")
    show_progress("")
    assert capsys.readouterr() == ("", "\r\033[K2/2\r\033[K")
