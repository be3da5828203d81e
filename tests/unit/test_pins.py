"""The pins of `requirements*.txt`, without which a replaced release of a dependency would be installed unnoticed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.deploy.dockerfile import parse
from tests.support.tools import ROOT, require_tool

WITHOUT_HASHES = {"requirements-local.txt"}
"""Builds of torch for CPUs and for CUDA come from several indexes. `scripts/renew-pins` has the details."""
PINS = sorted(path.name for path in ROOT.glob("requirements*.txt") if path.name not in WITHOUT_HASHES)


def unhashed(text: str) -> list[str]:
    """Return the lines of requirements, continued ones joined, that have no version or no hash."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    requirements = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert requirements
    return [line for line in requirements if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)]


@pytest.mark.parametrize("name", PINS)
def test_every_pin_has_a_version_and_hashes(name: str) -> None:
    assert unhashed((ROOT / name).read_text()) == []


def test_files_without_hashes_include_none_with_hashes() -> None:
    """One hash would require hashes for all."""
    for name in WITHOUT_HASHES:
        assert not re.search(r"^-r|--hash", (ROOT / name).read_text(), re.MULTILINE)


def test_make_installs_pins_by_hash_only() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    commands = [line for line in lines if re.search(r"-r requirements[\w.-]*\.txt", line)]
    hashed = [line for line in commands if not any(f"-r {name}" in line for name in WITHOUT_HASHES)]
    assert hashed
    assert all("$(PINNED)" in line or "--require-hashes" in line for line in hashed)


def test_make_run_local_installs_llama_cpp_by_its_pin() -> None:
    """Without the other packages of its extra, which the two models do not need."""
    command = re.search(r"<\((sed .*?)\)", (ROOT / "Makefile").read_text())
    assert command is not None
    shown = subprocess.run(["bash", "-c", command[1]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert unhashed(shown) == []
    assert [line.partition("==")[0] for line in shown.splitlines() if "==" in line] == ["xllamacpp"]


def test_the_image_installs_pins_by_hash_only() -> None:
    runs = [step.text for step in parse((ROOT / "Dockerfile").read_text()) if "pip install" in step.text]
    assert runs
    assert all("--require-hashes" in run for run in runs)


def test_the_app_for_databricks_has_hashes_for_all_of_its_packages(tmp_path: Path) -> None:
    """The platform runs `pip install -r requirements.txt`, which requires hashes for all as soon as one has some."""
    require_tool("make")
    subprocess.run(["make", "-s", "databricks-app", f"APP={tmp_path / 'app'}"], cwd=ROOT, check=True, timeout=30)
    text = (tmp_path / "app" / "requirements.txt").read_text()
    assert unhashed(text) == []
    assert {"flask==", "gunicorn==", "databricks-sdk=="} <= set(re.findall(r"^[a-z-]+==", text, re.MULTILINE))


@pytest.mark.slow
def test_pip_can_resolve_the_app_for_databricks_by_hashes(tmp_path: Path) -> None:
    """A package that the core needs on some systems only, the extra may need everywhere."""
    subprocess.run(["make", "-s", "databricks-app", f"APP={tmp_path / 'app'}"], cwd=ROOT, check=True, timeout=30)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--require-hashes", "-r"]
    done = subprocess.run([*command, tmp_path / "app" / "requirements.txt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "databricks-sdk" in done.stdout
