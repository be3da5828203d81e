"""`examples/ray-serve` on a Ray cluster of its own, with the small chat model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import yaml

from openai_compat.sidecars.llama_cpp.bundled_models import CHAT_FILE, chat_folder

from .live_server import ROOT
from .nginx import free_port
from .waiting import wait_until

EXAMPLE = ROOT / "examples" / "ray-serve"
SERVE = Path(sys.prefix) / "ray" / "bin" / "serve"
"""Ray has an environment of its own."""
START_SECONDS = 120.0
STOP_SECONDS = 30.0


@contextmanager
def running_ray_serve(template: Path) -> Iterator[str]:
    """Yield the URL of a replica with two slots of 1,024 tokens, which ends with the `with` block."""
    port = free_port()
    config = yaml.safe_load((EXAMPLE / "serve.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"] = {
        "gguf_file": str(chat_folder() / CHAT_FILE), "chat_template_file": str(template), "slots": 2, "window": 1024,
        "threads": 1,
    }  # fmt: skip
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 1}
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
        with (
            (Path(folder) / "log").open("w") as log,
            subprocess.Popen([SERVE, "run", file], cwd=EXAMPLE, env=environ, stdout=log, stderr=log) as process,
        ):
            try:
                wait_until(lambda: _answers(f"{url}/v1/models"), lambda: Path(log.name).read_text(), START_SECONDS)
                yield url
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop Serve and the cluster that it has started. A busy cluster may never finish, but ends with its parent."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
