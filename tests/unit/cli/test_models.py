"""The command `models`, which lists models, downloads weights and loads models as a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.cli import main
from openai_compat.core.errors import ModelUnavailableError
from openai_compat.sidecars.huggingface.models import hub
from tests.support.local_models import LOADER


def _folder_or_nothing(model: LocalModel) -> str:
    return "folder" if Path(model.hf_repo).is_dir() else "not downloaded"


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "weights").mkdir()
    entries = [
        {"name": "here", "hf_repo": str(tmp_path / "weights"), "max_context_tokens": 77},
        {"name": "failing", "hf_repo": "fails"},
        {"name": "far", "kind": "openai", "base_url": "http://user:secret@far.test/v1"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(entries))
    monkeypatch.setenv("MODELS_FILE", str(tmp_path / "models.json"))
    monkeypatch.setenv("LOCAL_MODEL_LOADER", LOADER)
    monkeypatch.setattr("openai_compat.backends.local.engine_config.missing_extra", lambda: None)
    monkeypatch.setattr(hub, "weights_location", _folder_or_nothing)
    return tmp_path


def test_list_shows_every_model_and_where_its_weights_are(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    here, failing, far = capsys.readouterr().out.splitlines()
    assert here.split() == ["here", "huggingface", str(configured / "weights"), "(folder)"]
    assert failing.endswith("fails (not downloaded)")
    assert far.split() == ["far", "openai", "http://far.test/v1"]


def test_list_names_the_extra_of_models_whose_weights_only_the_hub_knows(
    configured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make run-local` installs llama.cpp without the hub's library."""

    def without_library(model: LocalModel) -> str:
        raise ModuleNotFoundError(name="huggingface_hub")

    monkeypatch.setattr(hub, "weights_location", without_library)
    assert main(["models", "list"]) == 0
    assert "fails (the extra 'local' is not installed)" in capsys.readouterr().out


def test_load_prints_time_context_window_and_progress(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "load", "here"]) == 0
    printed = capsys.readouterr()
    assert "here: loaded in" in printed.out
    assert "77" in printed.out
    assert "loading here" in printed.err


def test_load_prints_the_reason_of_a_failure_and_loads_the_others(
    configured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "load", "all"]) == 1
    printed = capsys.readouterr()
    assert "The model 'failing' has no weights." in printed.err
    assert "here: loaded in" in printed.out


@pytest.mark.parametrize("action", ["pull", "load"])
def test_a_name_without_a_local_model_is_a_usage_error(
    configured: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert main(["models", action, "far"]) == 2
    assert "not a local model: far (local models: here, failing)" in capsys.readouterr().err


def test_pull_downloads_repositories_and_skips_folders(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = []

    def pull(model: LocalModel, token: str | None) -> str:
        pulled.append((model.hf_repo, token))
        return "/cache/fails"

    monkeypatch.setattr(hub, "pull", pull)
    monkeypatch.setenv("HF_TOKEN", "hf-1")
    assert main(["models", "pull", "all"]) == 0
    assert pulled == [("fails", "hf-1")]
    out = capsys.readouterr().out
    assert "is on this machine, nothing to download" in out
    assert "failing: fails is in /cache/fails" in out


def test_pull_prints_the_error_of_the_hub(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull(model: LocalModel, token: str | None) -> str:
        raise OSError("401: no access")

    monkeypatch.setattr(hub, "pull", pull)
    assert main(["models", "pull", "failing"]) == 1
    assert capsys.readouterr().err == "failing: 401: no access\n"


def test_a_failed_download_is_a_model_error_without_the_details(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel(name="a", hf_repo="org/name")
    monkeypatch.setattr(hub, "weights_location", lambda model: "not downloaded")

    def pull(model: LocalModel, token: str | None) -> str:
        raise OSError("https://hub.test/secret")

    monkeypatch.setattr(hub, "pull", pull)
    steps: list[str] = []
    with pytest.raises(ModelUnavailableError, match=r"from the hub \(OSError\)"):
        hub.fetch_weights(model, steps.append)
    assert steps == ["downloading org/name from the hub"]
    with pytest.raises(ModelUnavailableError, match=r"folder of the model 'a' \(key `hf_repo`\) does not exist"):
        hub.fetch_weights(LocalModel(name="a", hf_repo="/nowhere/at/all"), steps.append)


def test_the_command_line_does_not_import_torch() -> None:
    heavy = {"torch", "transformers", "huggingface_hub"}
    code = f"import sys, openai_compat.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n"
