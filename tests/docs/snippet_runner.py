"""Runner of the commands and programs in a section of the documentation, block by block, in an empty folder.

Ports differ, the mock upstream and a chat API stand in for the servers of others, gunicorn starts without `make`, and
nginx without root. Docker, kubectl and Claude Code do not run, but the files in their commands must exist.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.docs.markdown import Block, Section
from tests.support.fake_chat_apis import HOST, FakeChatAPIs
from tests.support.live_server import LiveServer
from tests.support.mock_upstream import MockUpstream
from tests.support.nginx import nginx_in_front_of
from tests.support.recording_api import RecordingAPI
from tests.support.snippets import run_bash, run_javascript, run_python
from tests.support.tools import ROOT

ANYTHING = "…"
"""In a shown output, any text. As a key of a JSON object, any further keys."""
VARIABLE_KEYS = frozenset({"created", "timestamp"})
START_COMMAND = re.compile(r"(?:[A-Z_]+=\S+\s+)*(?:make run(?:-haystack)?|\.venv/bin/gunicorn wsgi:app)\Z")
ERROR_RESPONSE = re.compile(r'"error":|HTTP/1.1 [45]\d\d|\A[45]\d\d\Z')
PROJECT_FILES = re.compile(r"(?:deploy|examples)/[\w./-]+|(?<=--env-file[ =])\S+")


class DocsEnvironment:
    """Servers that all sections share."""

    def __init__(self, echo: LiveServer, upstream: MockUpstream, chat_api: RecordingAPI, apis: FakeChatAPIs) -> None:
        self.echo, self.upstream, self.chat_api, self.apis = echo, upstream, chat_api, apis

    def localize(self, text: str) -> str:
        """Return the text with the addresses of external servers replaced by those of their stand-ins."""
        for address, stand_in in {
            "https://api.openai.com/v1": self.upstream.base_url,
            "https://my-resource.openai.azure.com": self.upstream.url,
            "https://my-workspace.cloud.databricks.com": self.upstream.url,
            "http://localhost:11434/v1": self.upstream.base_url,
            "http://gpu-server:8000/v1": self.upstream.base_url,
            "http://localhost:9001": self.upstream.url,
            "https://chat.example.com/api/ask": self.chat_api.url,
            HOST: self.apis.url,
        }.items():
            text = text.replace(address, stand_in)
        return text


class SnippetRunner:
    """Runner of one section."""

    def __init__(self, section: Section, folder: Path, docs: DocsEnvironment) -> None:
        self._section, self._folder, self._docs = section, folder, docs
        self._server = docs.echo
        self._replacements: dict[str, str] = {}
        self._output: str | None = None
        self._stack = ExitStack()
        shutil.copy(ROOT / ".env.example", folder)

    def run(self) -> None:
        """Run every block, and fail at the first that does not work."""
        with self._stack:
            blocks = self._section.blocks
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                self._configure_curl(following)
                try:
                    self._run_block(block)
                except (AssertionError, RuntimeError) as error:
                    raise AssertionError(f"{block.place}: {error}\nThe server's log:\n{self._server.log()}") from error

    def _configure_curl(self, shown: Block | None) -> None:
        """Let curl fail for a status of 400 or more, unless such a response is shown."""
        is_shown = shown is not None and ERROR_RESPONSE.search(shown.text)
        (self._folder / ".curlrc").write_text("" if is_shown else "fail-with-body\n")

    def _run_block(self, block: Block) -> None:
        if block.file_name:
            (self._folder / block.file_name).write_text(self._docs.localize(block.text) + "\n")
        elif block.language == "bash":
            self._output = self._command(block.text)(block.text)
        elif block.language == "python":
            self._output = run_python(self._localize(block.text), self._folder)
        elif block.language == "javascript":
            self._output = run_javascript(self._localize(block.text), self._folder)
        elif block.language:
            assert self._output is not None, "no command before this output"
            assert_as_shown(block, self._output)
            self._output = None

    def _command(self, text: str) -> Callable[[str], str]:
        program = shlex.split(text.replace("\\\n", " "), comments=True)
        if START_COMMAND.match(" ".join(program)):
            return self._start
        if "mock-upstream" in program:
            return self._start_mock
        if {"docker", "kubectl", "databricks", "claude"} & set(program):
            return check_files
        if program[-2:-1] == ["make"] and program[-1] in {"frontend", "run-local"}:
            return check_target  # tests/e2e starts them
        return self._start_nginx if program[:2] == ["sudo", "nginx"] else self._run_shell

    def _localize(self, text: str) -> str:
        text = text.replace("localhost:8000", f"localhost:{self._server.port}")
        for shown, actual in self._replacements.items():
            text = text.replace(shown, actual)
        return self._docs.localize(text).replace(".venv/bin/python ", f"PYTHONPATH={ROOT} {sys.executable} ")

    def _run_shell(self, text: str) -> str:
        return run_bash(self._localize(text), self._folder, {"CURL_HOME": str(self._folder)})

    def _start(self, text: str) -> str:
        words = shlex.split(self._docs.localize(text.replace("\\\n", " ")), comments=True)
        settings = dict(word.split("=", 1) for word in words[:-2])
        dot_env = self._folder / ".env"
        if "OPENAI_API_KEY" in settings or (dot_env.exists() and "\nOPENAI_API_KEY=" in dot_env.read_text()):
            settings.setdefault("OPENAI_BASE_URL", self._docs.upstream.base_url)
        self._server = self._stack.enter_context(LiveServer(settings, folder=self._folder))
        return ""

    def _start_mock(self, text: str) -> str:
        options = text.partition("mock-upstream")[2].replace("--port 9001", "").split()
        upstream = self._stack.enter_context(MockUpstream(*options))
        self._replacements["http://localhost:9001"] = upstream.url
        return ""

    def _start_nginx(self, text: str) -> str:
        check_files(text)
        nginx = self._stack.enter_context(nginx_in_front_of(self._server.url))
        self._replacements["http://localhost/"] = f"{nginx.url}/"
        return ""


def check_files(text: str) -> str:
    """Fail if a command names a file that the project lacks."""
    for name in PROJECT_FILES.findall(text):
        assert name == ".env" or (ROOT / name).exists(), f"there is no {name}"
    return ""


def check_target(text: str) -> str:
    """Fail if the Makefile has no such target."""
    run_bash(text.replace("make ", "make --dry-run --silent "), ROOT)
    return ""


def assert_as_shown(block: Block, output: str) -> None:
    """Fail unless the output is as the block shows, with `…` for any text."""
    if block.language == "json":
        shown, actual = json.loads(block.text), json.loads(output)
        assert _is_like(shown, actual), f"shown is\n{block.text}\nbut the output is\n{json.dumps(actual, indent=2)}"
    else:
        pattern = ".*?".join(re.escape(part) for part in block.text.strip().split(ANYTHING))
        assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"shown is\n{block.text}\nbut the output is\n{output}"


def _is_like(shown: Any, actual: Any, key: str = "") -> bool:
    if isinstance(shown, dict) and isinstance(actual, dict):
        has_others = ANYTHING in shown
        named = shown.keys() - {ANYTHING}
        if not (named <= actual.keys() if has_others else named == actual.keys()):
            return False
        return all(_is_like(shown[name], actual[name], name) for name in named)
    if isinstance(shown, list) and isinstance(actual, list):
        return len(shown) == len(actual) and all(map(_is_like, shown, actual))
    if isinstance(shown, str) and isinstance(actual, str) and (ANYTHING in shown or key in VARIABLE_KEYS):
        pattern = ".*?".join(re.escape(part) for part in shown.split(ANYTHING))
        return key in VARIABLE_KEYS or bool(re.fullmatch(pattern, actual, re.DOTALL))
    return type(shown) is type(actual) and (key in VARIABLE_KEYS or shown == actual)
