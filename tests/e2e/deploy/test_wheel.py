"""The wheel, its contents and its independence of the working directory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from openai_compat.core.version import __version__
from openai_compat.web.routes import home
from openai_compat.web.routes.admin import page
from openai_compat.web.static_pages import STATIC
from tests.support.snippets import plain_environment
from tests.support.tools import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, cwd=folder)
    (wheel,) = folder.iterdir()
    return wheel


@pytest.mark.slow
def test_the_wheel_contains_the_package_only(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    metadata = f"openai_compat-{__version__}.dist-info"
    assert names == {"openai_compat", metadata}


@pytest.mark.slow
def test_an_installed_server_ignores_a_config_module_in_the_working_directory(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (tmp_path / "config.py").write_text("SETTINGS = ['someone else']\n")
    command = [sys.executable, "-m", "openai_compat", "check-config"]
    environment = plain_environment({"PYTHONPATH": str(tmp_path / "installed"), "PORT": "8123"})
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "http://localhost:8123/v1" in done.stdout


@pytest.mark.slow
def test_the_wheel_contains_the_files_of_the_pages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {STATIC / "home" / home.DOCUMENT, STATIC / "admin" / page.DOCUMENT}
    files |= {folder / name for assets in (home.ASSETS, page.ASSETS) for name, folder in assets.items()}
    assert {f"openai_compat/web/static/{file.relative_to(STATIC)}" for file in files} <= names


@pytest.mark.slow
def test_the_wheel_declares_its_types(wheel: Path) -> None:
    assert "openai_compat/py.typed" in zipfile.ZipFile(wheel).namelist()
