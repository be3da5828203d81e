"""`python -m openai_compat models`: what is configured, what is here, and whether it loads."""

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


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "weights").mkdir()
    rows = [
        {"name": "here", "hf_repo": str(tmp_path / "weights"), "max_context_tokens": 77},
        {"name": "failing", "hf_repo": "fails"},
        {"name": "far", "kind": "openai", "base_url": "http://user:secret@far.test/v1"},
    ]
    (tmp_path / "models.json").write_text(json.dumps(rows))
    monkeypatch.setenv("MODELS_FILE", str(tmp_path / "models.json"))
    monkeypatch.setenv("LOCAL_MODEL_LOADER", LOADER)
    monkeypatch.setattr("openai_compat.backends.huggingface.engine_config.missing_extra", lambda: None)
    monkeypatch.setattr(hub, "place_of", lambda model: "folder" if Path(model.hf_repo).is_dir() else "not here")
    return tmp_path


def test_list_shows_every_model_and_where_its_weights_are(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    here, failing, far = capsys.readouterr().out.splitlines()
    assert here.split() == ["here", "huggingface", str(configured / "weights"), "(folder)"]
    assert failing.endswith("fails (not here)")
    assert far.split() == ["far", "openai", "http://far.test/v1"]


def test_load_says_what_it_took(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "load", "here"]) == 0
    said = capsys.readouterr()
    assert "here: loaded in" in said.out
    assert "77" in said.out
    assert "loading here" in said.err


def test_a_load_that_fails_says_why(configured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "load", "all"]) == 1
    said = capsys.readouterr()
    assert "The model 'failing' has no weights." in said.err
    assert "here: loaded in" in said.out


@pytest.mark.parametrize("action", ["pull", "load"])
def test_a_name_that_is_no_local_model_is_told(
    configured: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert main(["models", action, "far"]) == 2
    assert "no local models: far; there are: here, failing" in capsys.readouterr().err


def test_pull_downloads_what_is_no_folder(
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
    assert "there is nothing to download" in out
    assert "failing: fails is in /cache/fails" in out


def test_a_hub_that_refuses_is_told(
    configured: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull(model: LocalModel, token: str | None) -> str:
        raise OSError("401: no access")

    monkeypatch.setattr(hub, "pull", pull)
    assert main(["models", "pull", "failing"]) == 1
    assert capsys.readouterr().err == "failing: 401: no access\n"


def test_weights_that_cannot_be_had_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel(name="a", hf_repo="org/name")
    monkeypatch.setattr(hub, "place_of", lambda model: "not here")

    def pull(model: LocalModel, token: str | None) -> str:
        raise OSError("https://hub.test/secret")

    monkeypatch.setattr(hub, "pull", pull)
    steps: list[str] = []
    with pytest.raises(ModelUnavailableError, match=r"from the hub \(OSError\)"):
        hub.fetch_weights(model, steps.append)
    assert steps == ["downloading org/name from the hub"]
    with pytest.raises(ModelUnavailableError, match="not in the folder that its row names"):
        hub.fetch_weights(LocalModel(name="a", hf_repo="/nowhere/at/all"), steps.append)


def test_the_commands_load_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "huggingface_hub"}
    code = f"import sys, openai_compat.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n"
