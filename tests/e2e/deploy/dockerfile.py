"""A Dockerfile parser, and a builder that runs the steps in a folder, for tests without Docker.

The root of the image is a folder, below which absolute paths are mapped. The `python` of the base image is that of this
machine. Users are not switched.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from openai_compat.config import settings_table

NEEDS_AN_IMAGE = ("useradd", "chown")
"""Commands that would change the machine instead of a folder."""

OUR_PATHS = re.compile(r"(?<![\w./-])/(venv|app|tmp)\b")


@dataclass(frozen=True)
class Step:
    instruction: str
    options: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def parse(text: str) -> list[Step]:
    without_comments = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = without_comments.replace("\\\n", "").splitlines()
    return [_parse_line(line) for line in lines if line.strip()]


def _parse_line(line: str) -> Step:
    instruction, rest = line.strip().split(None, 1)
    options = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        options[match[1]] = match[2]
        rest = rest[match.end() :]
    return Step(instruction, options, rest.strip())


@dataclass
class Image:
    """An image. The current stage is in the folder `root`, because a virtual environment cannot be moved."""

    context: Path
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path("/")
    stage: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    """Default values of `ARG`, which `FROM` may use."""

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def build(self, steps: list[Step]) -> None:
        for step in steps:
            method = getattr(self, "_" + step.instruction.lower(), None)
            if method is not None:
                method(step)

    def inside(self, path: str | Path) -> Path:
        """Return the path on this machine of a path in the image."""
        return self.root / str(self.workdir / path).lstrip("/")

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        env = {**self.env, **environment}
        program = shutil.which(command[0], path=env["PATH"])
        assert program, f"{command[0]} is not in the image"
        return subprocess.Popen([program, *command[1:]], cwd=self.inside("."), env=env)

    def _arg(self, step: Step) -> None:
        name, value = step.text.split("=", 1)
        self.arguments[name] = value

    def _from(self, step: Step) -> None:
        base, *name = re.split(r"(?i)\s+as\s+", Template(step.text).substitute(self.arguments))
        if self.root.exists():
            self.root.rename(self.folder / self.stage)
        self.stage, self.workdir = (name or ["final"])[0], Path("/")
        self.env = _environment(_python_of(base, self.folder / "base"))
        self.inside("/tmp").mkdir(parents=True)  # noqa: S108 - the image's /tmp, not ours

    def _env(self, step: Step) -> None:
        for word in step.words:
            name, value = word.split("=", 1)
            self.env[name] = self._mapped(value).replace("$PATH", self.env["PATH"])

    def _workdir(self, step: Step) -> None:
        self.workdir = self.workdir / step.text
        self.inside(".").mkdir(parents=True)

    def _copy(self, step: Step) -> None:
        *sources, target = step.words
        for source in sources:
            origin = self._origin(step) / source.lstrip("/")
            into = self.inside(target) / origin.name if target.endswith("/") else self.inside(target)
            if origin.is_dir():
                shutil.copytree(origin, into, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, into)

    def _origin(self, step: Step) -> Path:
        return self.folder / step.options["from"] if "from" in step.options else self.context

    def _run(self, step: Step) -> None:
        if step.words[0] not in NEEDS_AN_IMAGE:
            subprocess.run(["/bin/sh", "-ec", self._mapped(step.text)], cwd=self.inside("."), env=self.env, check=True)

    def _mapped(self, text: str) -> str:
        return OUR_PATHS.sub(lambda match: f"{self.root}/{match[1]}", text)


def _environment(python_folder: Path) -> dict[str, str]:
    """Return the environment without the settings of the server and Python."""
    removed = {name for setting in settings_table.SETTINGS for name in setting.names} | {"VIRTUAL_ENV"}
    env = {k: v for k, v in os.environ.items() if k not in removed and not k.startswith("PYTHON")}
    return {**env, "PATH": f"{python_folder}:/usr/bin:/bin"}


def _python_of(base: str, folder: Path) -> Path:
    """Return a folder with a `python` of the base image's version, or of the running version if that is missing."""
    version = re.match(r"python:(3\.\d+)-slim", base)
    assert version, f"unknown base image {base}"
    found = shutil.which(f"python{version[1]}")
    runs = found and subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0
    python = found if runs else Path(sys.base_prefix) / "bin" / "python3"
    folder.mkdir(exist_ok=True)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (folder / "python").chmod(0o755)
    return folder
