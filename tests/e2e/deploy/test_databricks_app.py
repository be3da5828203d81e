"""`deploy/databricks/app.yaml`, with its command, environment and folder as in Databricks Apps."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
import yaml

from tests.support.fake_databricks import CLIENT_ID, Workspace
from tests.support.nginx import DEPLOY, free_port
from tests.support.subprocess_server import run_server
from tests.support.tools import ROOT

RESOURCES = {"serving-endpoint": "databricks-meta-llama-3-3-70b-instruct"}
"""The resources that the app's owner has connected."""


@pytest.mark.extra("databricks")
def test_the_app_answers_from_its_endpoint(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    subprocess.run(["make", "-s", "databricks-app", f"APP={folder}"], cwd=ROOT, check=True, timeout=30)
    app: dict[str, Any] = yaml.safe_load((folder / "app.yaml").read_text())
    port = free_port()
    with Workspace() as workspace:
        environment = {
            "DATABRICKS_APP_PORT": str(port),
            "DATABRICKS_HOST": workspace.url,
            "DATABRICKS_CLIENT_ID": CLIENT_ID,
            "DATABRICKS_CLIENT_SECRET": workspace.client_secret,
            **{variable["name"]: variable.get("value") or RESOURCES[variable["valueFrom"]] for variable in app["env"]},
        }
        command = [sys.executable if word == "python" else word for word in app["command"]]
        with run_server(command, port, folder, environment) as server:
            health = requests.get(f"{server.url}/api/v1/healthcheck", timeout=10).json()
            assert (health["status"], health["service"]) == ("healthy", "openai-compatible-api")
            with openai.OpenAI(base_url=f"{server.url}/api/v1", api_key="any", max_retries=0) as client:
                messages: Any = [{"role": "user", "content": "Hello there"}]
                (model,) = client.models.list()
                stream = client.chat.completions.create(model=model.id, messages=messages, stream=True)
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there"
        assert workspace.bodies[-1]["model"] == RESOURCES["serving-endpoint"]
    shutil.rmtree(folder)


def test_the_apps_requirements_are_those_of_the_core_and_of_the_extra() -> None:
    names = {line.split("==")[0] for name in ("", "-databricks") for line in _pins(ROOT / f"requirements{name}.txt")}
    assert {"flask", "gunicorn", "databricks-sdk"} <= names
    assert "requirements-databricks.txt" in (ROOT / "Makefile").read_text()
    assert (DEPLOY / "databricks" / "app.yaml").exists()


def _pins(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "==" in line]
