"""A reader who does what a section of the documentation shows, block by block, in an empty folder.

What is not as on the reader's machine: the ports, the addresses of other people's servers (played by the mock upstream
and by a small chat API), gunicorn started without `make` (which has a test of its own), nginx without root. Docker and
kubectl are not run: the files that their commands name must exist.
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
"""In an output that is shown: whatever comes here. As a key of a JSON object: and others."""
CHANGING = frozenset({"created", "timestamp"})
START = re.compile(r"(?:[A-Z_]+=\S+\s+)*(?:make run(?:-haystack)?|\.venv/bin/gunicorn wsgi:app)\Z")
ERROR = re.compile(r'"error":|HTTP/1.1 [45]\d\d|\A[45]\d\d\Z')
OUR_FILES = re.compile(r"(?:deploy|examples)/[\w./-]+|(?<=--env-file[ =])\S+")


class World:
    """The servers that are there for all readers."""

    def __init__(self, echo: LiveServer, upstream: MockUpstream, chat_api: RecordingAPI, apis: FakeChatAPIs) -> None:
        self.echo, self.upstream, self.chat_api, self.apis = echo, upstream, chat_api, apis

    def localised(self, text: str) -> str:
        """`text` with the addresses of others replaced by those of their stand-ins."""
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


class Reader:
    """Follows one section."""

    def __init__(self, section: Section, folder: Path, world: World) -> None:
        self._section, self._folder, self._world = section, folder, world
        self._server = world.echo
        self._replacements: dict[str, str] = {}
        self._output: str | None = None
        self._stack = ExitStack()
        shutil.copy(ROOT / ".env.example", folder)

    def follow(self) -> None:
        """Runs every block; the first that does not work fails the test."""
        with self._stack:
            blocks = self._section.blocks
            for block, following in zip(blocks, [*blocks[1:], None], strict=True):
                self._lets_curl_fail(following)
                try:
                    self._do(block)
                except (AssertionError, RuntimeError) as error:
                    raise AssertionError(f"{block.place}: {error}\nThe server's log:\n{self._server.log()}") from error

    def _lets_curl_fail(self, shown: Block | None) -> None:
        """An answer of status 400 or more is a failure, unless it is what is shown."""
        is_shown = shown is not None and ERROR.search(shown.text)
        (self._folder / ".curlrc").write_text("" if is_shown else "fail-with-body\n")

    def _do(self, block: Block) -> None:
        if block.file_name:
            (self._folder / block.file_name).write_text(self._world.localised(block.text) + "\n")
        elif block.language == "bash":
            self._output = self._command(block.text)(block.text)
        elif block.language == "python":
            self._output = run_python(self._here(block.text), self._folder)
        elif block.language == "javascript":
            self._output = run_javascript(self._here(block.text), self._folder)
        elif block.language:
            assert self._output is not None, "nothing was run that could have said this"
            assert_as_shown(block, self._output)
            self._output = None

    def _command(self, text: str) -> Callable[[str], str]:
        program = shlex.split(text.replace("\\\n", " "), comments=True)
        if START.match(" ".join(program)):
            return self._start
        if "mock-upstream" in program:
            return self._start_mock
        if {"docker", "kubectl", "databricks"} & set(program):
            return check_files
        if program[-2:-1] == ["make"] and program[-1] in {"frontend", "run-local"}:
            return check_target  # tests/e2e starts them
        return self._start_nginx if program[:2] == ["sudo", "nginx"] else self._run

    def _here(self, text: str) -> str:
        text = text.replace("localhost:8000", f"localhost:{self._server.port}")
        for shown, here in self._replacements.items():
            text = text.replace(shown, here)
        return self._world.localised(text).replace(".venv/bin/python ", f"PYTHONPATH={ROOT} {sys.executable} ")

    def _run(self, text: str) -> str:
        return run_bash(self._here(text), self._folder, {"CURL_HOME": str(self._folder)})

    def _start(self, text: str) -> str:
        words = shlex.split(self._world.localised(text.replace("\\\n", " ")), comments=True)
        settings = dict(word.split("=", 1) for word in words[:-2])
        dot_env = self._folder / ".env"
        if "OPENAI_API_KEY" in settings or (dot_env.exists() and "\nOPENAI_API_KEY=" in dot_env.read_text()):
            settings.setdefault("OPENAI_BASE_URL", self._world.upstream.base_url)
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
    """Fails where a command names a file of this project that is not there."""
    for name in OUR_FILES.findall(text):
        assert name == ".env" or (ROOT / name).exists(), f"there is no {name}"
    return ""


def check_target(text: str) -> str:
    """Fails where there is no such target in the Makefile."""
    run_bash(text.replace("make ", "make --dry-run --silent "), ROOT)
    return ""


def assert_as_shown(block: Block, output: str) -> None:
    """The output is what the block shows, with `…` for what may be anything."""
    if block.language == "json":
        shown, came = json.loads(block.text), json.loads(output)
        assert _is_like(shown, came), f"shown is\n{block.text}\nbut it says\n{json.dumps(came, indent=2)}"
    else:
        pattern = ".*?".join(re.escape(part) for part in block.text.strip().split(ANYTHING))
        assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"shown is\n{block.text}\nbut it says\n{output}"


def _is_like(shown: Any, came: Any, key: str = "") -> bool:
    if isinstance(shown, dict) and isinstance(came, dict):
        has_others = ANYTHING in shown
        named = shown.keys() - {ANYTHING}
        if not (named <= came.keys() if has_others else named == came.keys()):
            return False
        return all(_is_like(shown[name], came[name], name) for name in named)
    if isinstance(shown, list) and isinstance(came, list):
        return len(shown) == len(came) and all(map(_is_like, shown, came))
    if isinstance(shown, str) and isinstance(came, str) and (ANYTHING in shown or key in CHANGING):
        pattern = ".*?".join(re.escape(part) for part in shown.split(ANYTHING))
        return key in CHANGING or bool(re.fullmatch(pattern, came, re.DOTALL))
    return type(shown) is type(came) and (key in CHANGING or shown == came)
