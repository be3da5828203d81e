"""Servers of local models, this one and `transformers serve`, started with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.paths import INSTALLED, ROOT
from bench.processes import ProcessTree

SERVING_PACKAGES: Final = INSTALLED / "transformers-serving"


@dataclass(frozen=True)
class Site:
    """Folder with the weights, the port of the server, and a working folder."""

    weights: Path
    port: int
    folder: Path


@dataclass(frozen=True)
class Server:
    """A command, its environment, and the name under which the server offers the model."""

    command: list[str]
    environ: dict[str, str]
    model: str


def ours(**options: Any) -> Callable[[Site], Server]:
    """Return a factory of this server with one model of these options."""
    return lambda site: our_server(site, [{"name": "smol", "hf_repo": str(site.weights), **options}])


def our_server(site: Site, models: list[dict[str, Any]], workers: int = 1) -> Server:
    """Write the models file and return this server."""
    file = site.folder / "models.json"
    file.write_text(json.dumps(models))
    environ = {"MODELS_FILE": str(file), "INCLUDE_DEFAULT_MODELS": "false", "PORT": str(site.port)}
    command = [sys.executable, "-m", "openai_compat", "serve", "--workers", str(workers)]
    return Server(command, {**environ, "PYTHONPATH": str(ROOT), "HOST": "127.0.0.1"}, "smol")


def transformers_serve(*flags: str) -> Callable[[Site], Server]:
    """Return a factory of `transformers serve`.

    It installs the packages that the command needs in addition to this project's into a folder of their own.
    """

    def start(site: Site) -> Server:
        if not SERVING_PACKAGES.is_dir():
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
            packages = ["fastapi", "uvicorn", "openai", "python-multipart"]
            subprocess.run([*pip, "--target", str(SERVING_PACKAGES), *packages], check=True)
        program = str(Path(sys.executable).with_name("transformers"))
        command = [program, "serve", str(site.weights), *flags, "--host", "127.0.0.1", "--port", str(site.port)]
        return Server(command, {"PYTHONPATH": str(SERVING_PACKAGES)}, str(site.weights))

    return start


SYSTEMS: Final[Mapping[str, Callable[[Site], Server]]] = {
    "transformers-serve": transformers_serve(),
    "transformers-serve-continuous": transformers_serve("--continuous-batching"),
    "ours-float32": ours(dtype="float32"),
    "ours-bfloat16": ours(dtype="bfloat16"),
    "ours-int8": ours(quantize="int8"),
}


@contextmanager
def running(server: Server, folder: Path) -> Iterator[ProcessTree]:
    """Run a server for the `with` block, without access to the Hugging Face Hub."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    environ = {**inherited, "HF_HUB_OFFLINE": "1", **server.environ}
    processes = ProcessTree(server.command, folder, environ, "server.log")
    try:
        yield processes
    finally:
        processes.stop()
