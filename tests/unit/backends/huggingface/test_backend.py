"""Configuration of local models by the models file, presets and settings, and what the engine gets of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openai_compat.backends.http.client import UpstreamClient
from openai_compat.backends.http.messages import UpstreamRequest
from openai_compat.backends.huggingface.model_options import LocalModel
from openai_compat.backends.local.engine_client import EngineClient
from openai_compat.backends.local.engine_config import (
    OWN_LOADER,
    EngineConfig,
    missing_library,
    to_engine_config,
)
from openai_compat.backends.resources import BackendResources
from openai_compat.backends.runtime_dir import MAX_FOLDER_BYTES, RuntimeDir
from openai_compat.config import environment, models_file
from openai_compat.core.errors import ConfigurationError, ModelUnavailableError
from openai_compat.core.settings import Settings
from openai_compat.core.types import CallContext
from openai_compat.routing.router import build_backend
from openai_compat.sidecars.huggingface.loader import ImportPathLoader

FORMER_REGISTRY = """\
[
  {
    "name": "GPT3-dev-350m-2805",
    "hf_repo": "k050506koch/GPT3-dev-350m-2805",
    "dtype": "float16",
    "device": "auto",
    "max_context_tokens": 4096
  }
]
"""
PRESET_NAMES = [
    "GPT3-dev-350m-2805", "GPT3-dev-125m-0104", "GPT3-dev-125m-1202", "GPT3-dev-125m-0612", "GPT3-dev",
    "GPT3-dev-125m", "GPT-2",
]  # fmt: skip


def load(folder: Path, entries: Any = None, **environ: str) -> Settings:
    if entries is not None:
        file = folder / "models.json"
        file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        environ["MODELS_FILE"] = str(file)
    return environment.load(environ)


def problems(folder: Path, entries: Any = None, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, entries, **environ)
    return "\n".join(caught.value.problems)


def test_a_model_registry_of_a_former_server_is_a_models_file(tmp_path: Path) -> None:
    settings = load(tmp_path, FORMER_REGISTRY)
    (model,) = to_engine_config(settings).models
    assert settings.entries["GPT3-dev-350m-2805"].kind == "huggingface"
    assert (model.name, model.hf_repo) == ("GPT3-dev-350m-2805", "k050506koch/GPT3-dev-350m-2805")
    assert (model.dtype, model.device, model.max_context_tokens) == ("float16", "auto", 4096)
    assert model.trust_remote_code is False


def test_nulls_equal_missing_keys_and_settings_are_the_defaults(tmp_path: Path) -> None:
    nulls = {"name": "a", "hf_repo": "x", "dtype": None, "device": None, "max_context_tokens": None}
    on_cpu = {"name": "b", "hf_repo": "x", "device": "cpu"}
    settings = load(tmp_path, [nulls, on_cpu], DEFAULT_DEVICE="cuda", MAX_CONTEXT_TOKENS="512")
    first, second = to_engine_config(settings).models
    assert (first.dtype, first.device, first.max_context_tokens) == ("auto", "cuda", None)
    assert (first.default_context_tokens, second.device) == (512, "cpu")


def test_every_invalid_key_of_an_entry_is_reported(tmp_path: Path) -> None:
    entries = [
        {"name": "a", "hf_repo": 1},
        {"name": "b", "hf_repo": "x", "dtype": "float8"},
        {"name": "c", "hf_repo": "x", "device": "tpu"},
        {"name": "d", "hf_repo": "x", "max_context_tokens": 0},
        {"name": "e", "hf_repo": "x", "trust_remote_code": "no"},
        {"name": "f", "hf_repo": "x", "capabilities": ["sing"]},
        {"name": "g", "kind": "huggingface"},
        {"name": "h", "hf_repo": "x", "base_url": "http://elsewhere/v1"},
        {"name": "i", "hf_repo": "x", "max_context": 5},
        {"name": "j", "hf_repo": "x", "queue_limit": True},
        {"name": "k", "hf_repo": "x", "temperature": 2.5},
        {"name": "l", "hf_repo": "x", "top_p": "high"},
    ]
    found = problems(tmp_path, entries, PRELOAD_MODELS="missing").splitlines()
    for name, word in {
        "a": "hf_repo must be a string", "b": "dtype must be one of", "c": "device must be one of",
        "d": "max_context_tokens must be a whole number", "e": "trust_remote_code must be true or false",
        "f": "capabilities must be a list of", "g": "hf_repo", "h": "of kind openai", "i": "max_context_tokens",
        "j": "queue_limit must be a whole number", "k": "temperature must be a number from 0 to 2",
        "l": "top_p must be a number",
    }.items():  # fmt: skip
        assert any(problem.startswith(f"model '{name}'") and word in problem for problem in found), name
    assert "PRELOAD_MODELS names models that are not local models: missing" in found
    assert len(found) == len(entries) + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEFAULT_DEVICE", "gpu"),
        ("MAX_CONTEXT_TOKENS", "0"),
        ("LOCAL_MODEL_LOADER", "no colon"),
        ("LOCAL_RUNTIME_DIR", "/" + "x" * MAX_FOLDER_BYTES),
    ],
)
def test_an_invalid_setting_is_reported(tmp_path: Path, name: str, value: str) -> None:
    assert name in problems(tmp_path, **{name: value})


class TestPresets:
    def test_include_default_models_lists_them_after_the_configured_ones(self, tmp_path: Path) -> None:
        settings = load(tmp_path, INCLUDE_DEFAULT_MODELS="true")
        assert list(settings.entries) == ["mock-gpt-model", *PRESET_NAMES]
        assert settings.default_model == "mock-gpt-model"

    @pytest.mark.parametrize("missing", ["torch", None])
    def test_by_default_they_are_listed_if_the_extra_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str | None
    ) -> None:
        monkeypatch.setattr(models_file, "missing_extra", lambda: missing)
        assert ("GPT-2" in load(tmp_path).entries) is (missing is None)
        assert "GPT-2" not in load(tmp_path, INCLUDE_DEFAULT_MODELS="false").entries

    def test_an_entry_of_the_same_name_replaces_a_preset(self, tmp_path: Path) -> None:
        entries = [{"name": "GPT-2", "hf_repo": "./weights", "metadata": {"mine": True}}]
        settings = load(tmp_path, entries, INCLUDE_DEFAULT_MODELS="true")
        assert settings.entries["GPT-2"].options["hf_repo"] == "./weights"
        assert sorted(settings.entries) == sorted(PRESET_NAMES)

    def test_an_entry_of_the_same_repository_keeps_the_capabilities(self, tmp_path: Path) -> None:
        """Then a chat is refused without a download, as before."""
        (model,) = to_engine_config(load(tmp_path, FORMER_REGISTRY)).models
        assert model.capabilities == ("completions",)
        own = {**json.loads(FORMER_REGISTRY)[0], "capabilities": ["chat"]}
        assert to_engine_config(load(tmp_path, [own])).models[0].capabilities == ("chat",)

    def test_the_allow_list_selects_presets(self, tmp_path: Path) -> None:
        settings = load(tmp_path, INCLUDE_DEFAULT_MODELS="true", MODEL_ALLOW_LIST="GPT-2,GPT3-dev")
        assert sorted(settings.entries) == ["GPT-2", "GPT3-dev"]
        assert settings.default_model in settings.entries
        found = problems(tmp_path, INCLUDE_DEFAULT_MODELS="true", MODEL_ALLOW_LIST="GPT-3")
        assert "MODEL_ALLOW_LIST names models that are not configured: GPT-3" in found

    def test_none_becomes_the_default_model_if_an_upstream_is_configured(self, tmp_path: Path) -> None:
        settings = load(tmp_path, INCLUDE_DEFAULT_MODELS="true", OPENAI_API_KEY="sk-1")
        assert settings.default_model == "gpt-4o-mini"

    def test_all_declare_completions_only_and_run_no_remote_code(self, tmp_path: Path) -> None:
        for model in to_engine_config(load(tmp_path, INCLUDE_DEFAULT_MODELS="true")).models:
            assert model.capabilities == ("completions",)
            assert not model.trust_remote_code
            assert model.metadata["description"]


def test_the_engine_config_survives_serialization(tmp_path: Path) -> None:
    entries = [{"name": "a", "hf_repo": "x", "capabilities": ["chat"], "metadata": {"of": ["us"]}, "queue_limit": 0}]
    config = to_engine_config(load(tmp_path, entries, PRELOAD_MODELS="a", LOCAL_MAX_QUEUED="5"))
    assert EngineConfig.from_json(config.to_json()) == config
    assert config.capacity(config.models[0]) == config.models[0].max_batch


def test_only_equal_configurations_share_an_engine(tmp_path: Path) -> None:
    entries = [{"name": "a", "hf_repo": "x"}]
    same = {to_engine_config(load(tmp_path, entries)).identity for _ in range(2)}
    other = to_engine_config(load(tmp_path, entries, MAX_CONTEXT_TOKENS="99")).identity
    assert len(same) == 1
    assert other not in same


def test_a_runtime_directory_with_too_long_a_path_is_an_error() -> None:
    with pytest.raises(ValueError, match="too long"):
        RuntimeDir(Path("/" + "x" * 100), "identity")


def test_without_its_libraries_the_engine_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.backends.local.engine_config.missing_extra", lambda: "transformers")
    settings = load(tmp_path, [{"name": "a", "hf_repo": "x"}], LOCAL_RUNTIME_DIR=str(tmp_path / "e"))
    resources = BackendResources(settings, UpstreamClient(settings), EngineClient(settings))
    call = UpstreamRequest("POST", "chat/completions", {}, b"{}")
    with pytest.raises(ModelUnavailableError, match=r"need 'transformers'.*openai-compat\[local\]"):
        build_backend(settings.entries["a"], resources).forward(call, CallContext("a"))  # type: ignore[attr-defined]
    assert not (tmp_path / "e").exists()


def test_the_former_path_of_the_loader_means_the_same_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().local_model_loader == OWN_LOADER
    former = "openai_compat.local.loading:load_model"
    settings = load(tmp_path, [{"name": "a", "hf_repo": "x"}], LOCAL_MODEL_LOADER=former)
    monkeypatch.setattr("openai_compat.backends.local.engine_config.missing_extra", lambda: "torch")
    assert missing_library(settings.local_model_loader) == "torch"
    loaded: list[LocalModel] = []
    module = SimpleNamespace(load_model=lambda model, progress: loaded.append(model))
    monkeypatch.setitem(sys.modules, OWN_LOADER.partition(":")[0], module)
    (model,) = to_engine_config(settings).models
    ImportPathLoader(to_engine_config(settings).loader).load(model, str)
    assert loaded == [model]
