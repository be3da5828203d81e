"""The example `examples/haystack-rag/`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live_server import LiveServer
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT

EXAMPLE = ROOT / "examples" / "haystack-rag"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Yield a server in a folder with the project's documents, without a developer's `.env`."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("docs", "examples"):
        (folder / name).symlink_to(ROOT / name)
    with LiveServer({"MODELS_FILE": "examples/haystack-rag/models.yaml"}, folder=folder) as server:
        yield server


@pytest.mark.extra("haystack")
def test_a_question_is_answered_with_sources(server: LiveServer) -> None:
    question = "What does kind external do with a page of HTML?"
    command = [sys.executable, str(EXAMPLE / "ask.py"), question, server.base_url]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    answer, _, sources = done.stdout.partition("\n\nSources:\n")
    assert answer == question
    assert "Backends (reference/backends.md)\n" in sources
    assert "\nBackends: reference/backends.md\n" in sources


def test_its_readme_names_existing_files() -> None:
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    for name in ("models.yaml", "ask.py"):
        assert f"examples/haystack-rag/{name}" in page
        assert (EXAMPLE / name).exists()


def test_its_program_uses_a_configured_model() -> None:
    assert 'model="project-docs"' in (EXAMPLE / "ask.py").read_text(encoding="utf-8")
    assert "name: project-docs" in Path(EXAMPLE, "models.yaml").read_text(encoding="utf-8")
