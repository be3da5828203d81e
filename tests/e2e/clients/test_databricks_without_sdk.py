"""Kind `databricks` without the extra, with which personal tokens work and service principals do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.fake_databricks import CLIENT_ID, PERSONAL_TOKEN, Workspace
from tests.support.live_server import LiveServer
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which an empty package hides the SDK, if it is installed."""
    (tmp_path / "databricks").mkdir()
    (tmp_path / "databricks" / "__init__.py").touch()
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


def test_a_personal_token_works(environment: dict[str, str]) -> None:
    with Workspace() as workspace:
        settings = {
            "DATABRICKS_HOST": workspace.url,
            "DATABRICKS_TOKEN": PERSONAL_TOKEN,
            "DATABRICKS_ENDPOINTS": "echo",
            **environment,
        }
        with LiveServer(settings) as server:
            body = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
            assert requests.post(f"{server.base_url}/chat/completions", json=body, timeout=30).status_code == 200


def test_the_error_for_a_service_principal_names_the_extra(environment: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "DATABRICKS_HOST": "ws.test",
        "DATABRICKS_CLIENT_ID": CLIENT_ID,
        "DATABRICKS_CLIENT_SECRET": "s",
        "DATABRICKS_ENDPOINTS": "echo",
    }
    done = subprocess.run(
        [sys.executable, "-m", "openai_compat", "check-config"],
        cwd=tmp_path,
        env=plain_environment({**settings, **environment}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "openai-compat[databricks]" in done.stderr
