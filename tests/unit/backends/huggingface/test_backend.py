"""Local models as they are configured: rows, presets, settings, and the plan that the engine gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.backends.huggingface.engine_client import EngineClient
from openai_compat.backends.huggingface.engine_config import EngineConfig, to_engine_config
from openai_compat.backends.huggingface.runtime_dir import MAX_FOLDER_BYTES, RuntimeDir
from openai_compat.config import environment, models_file
from openai_compat.core.cancellation import CancellationToken
from openai_compat.core.errors import ConfigurationError, ModelUnavailableError
from openai_compat.core.settings import Settings

SEED_3 = """\
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
PRESET = [
    "GPT3-dev-350m-2805", "GPT3-dev-125m-0104", "GPT3-dev-125m-1202", "GPT3-dev-125m-0612", "GPT3-dev",
    "GPT3-dev-125m", "GPT-2",
]  # fmt: skip


def load(folder: Path, rows: Any = None, **environ: str) -> Settings:
    if rows is not None:
        file = folder / "models.json"
        file.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        environ["MODELS_FILE"] = str(file)
    return environment.load(environ)


def problems(folder: Path, rows: Any = None, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, rows, **environ)
    return "\n".join(caught.value.problems)


def test_a_registry_of_the_earlier_server_is_a_models_file(tmp_path: Path) -> None:
    settings = load(tmp_path, SEED_3)
    (model,) = to_engine_config(settings).models
    assert settings.entries["GPT3-dev-350m-2805"].kind == "huggingface"
    assert (model.name, model.hf_repo) == ("GPT3-dev-350m-2805", "k050506koch/GPT3-dev-350m-2805")
    assert (model.dtype, model.device, model.max_context_tokens) == ("float16", "auto", 4096)
    assert model.trust_remote_code is False


def test_nulls_are_absent_keys_and_settings_fill_in(tmp_path: Path) -> None:
    row = {"name": "a", "hf_repo": "x", "dtype": None, "device": None, "max_context_tokens": None}
    on_cpu = {"name": "b", "hf_repo": "x", "device": "cpu"}
    settings = load(tmp_path, [row, on_cpu], DEFAULT_DEVICE="cuda", MAX_CONTEXT_TOKENS="512")
    first, second = to_engine_config(settings).models
    assert (first.dtype, first.device, first.max_context_tokens) == ("auto", "cuda", None)
    assert (first.default_context_tokens, second.device) == (512, "cpu")


def test_what_is_wrong_with_a_row_is_told(tmp_path: Path) -> None:
    rows = [
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
    found = problems(tmp_path, rows, PRELOAD_MODELS="nobody").splitlines()
    for name, word in {
        "a": "hf_repo must be a text", "b": "dtype must be one of", "c": "device must be one of",
        "d": "max_context_tokens must be a whole number", "e": "trust_remote_code must be true or false",
        "f": "capabilities must be a list of", "g": "hf_repo", "h": "of kind openai", "i": "max_context_tokens",
        "j": "queue_limit must be a whole number", "k": "temperature must be a number from 0 to 2",
        "l": "top_p must be a number from 0 to 1",
    }.items():  # fmt: skip
        assert any(problem.startswith(f"model '{name}'") and word in problem for problem in found), name
    assert "PRELOAD_MODELS names models that are no local ones: nobody" in found
    assert len(found) == len(rows) + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEFAULT_DEVICE", "gpu"),
        ("MAX_CONTEXT_TOKENS", "0"),
        ("LOCAL_MODEL_LOADER", "no colon"),
        ("LOCAL_RUNTIME_DIR", "/" + "x" * MAX_FOLDER_BYTES),
    ],
)
def test_a_wrong_setting_is_told(tmp_path: Path, name: str, value: str) -> None:
    assert name in problems(tmp_path, **{name: value})


class TestPreset:
    def test_it_is_listed_on_demand_after_what_is_configured(self, tmp_path: Path) -> None:
        settings = load(tmp_path, INCLUDE_DEFAULT_MODELS="true")
        assert list(settings.entries) == ["mock-gpt-model", *PRESET]
        assert settings.default_model == "mock-gpt-model"

    @pytest.mark.parametrize("missing", ["torch", None])
    def test_unasked_it_is_listed_where_the_extra_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str | None
    ) -> None:
        monkeypatch.setattr(models_file, "missing_extra", lambda: missing)
        assert ("GPT-2" in load(tmp_path).entries) is (missing is None)
        assert "GPT-2" not in load(tmp_path, INCLUDE_DEFAULT_MODELS="false").entries

    def test_a_row_of_the_file_replaces_its_namesake(self, tmp_path: Path) -> None:
        rows = [{"name": "GPT-2", "hf_repo": "./weights", "metadata": {"mine": True}}]
        settings = load(tmp_path, rows, INCLUDE_DEFAULT_MODELS="true")
        assert settings.entries["GPT-2"].options["hf_repo"] == "./weights"
        assert sorted(settings.entries) == sorted(PRESET)

    def test_the_allow_list_chooses_from_it(self, tmp_path: Path) -> None:
        settings = load(tmp_path, INCLUDE_DEFAULT_MODELS="true", MODEL_ALLOW_LIST="GPT-2,GPT3-dev")
        assert sorted(settings.entries) == ["GPT-2", "GPT3-dev"]
        assert settings.default_model in settings.entries
        found = problems(tmp_path, INCLUDE_DEFAULT_MODELS="true", MODEL_ALLOW_LIST="GPT-3")
        assert "MODEL_ALLOW_LIST names models that are not configured: GPT-3" in found

    def test_in_front_of_openai_it_does_not_become_the_default(self, tmp_path: Path) -> None:
        settings = load(tmp_path, INCLUDE_DEFAULT_MODELS="true", OPENAI_API_KEY="sk-1")
        assert settings.default_model == "gpt-4o-mini"

    def test_its_rows_say_what_they_cannot_do_and_trust_nobody(self, tmp_path: Path) -> None:
        for model in to_engine_config(load(tmp_path, INCLUDE_DEFAULT_MODELS="true")).models:
            assert model.capabilities == ("completions",)
            assert not model.trust_remote_code
            assert model.metadata["description"]


def test_a_plan_survives_its_way_to_the_engine(tmp_path: Path) -> None:
    rows = [{"name": "a", "hf_repo": "x", "capabilities": ["chat"], "metadata": {"of": ["us"]}, "queue_limit": 0}]
    plan = to_engine_config(load(tmp_path, rows, PRELOAD_MODELS="a", LOCAL_MAX_QUEUED="5"))
    assert EngineConfig.from_json(plan.to_json()) == plan
    assert plan.capacity(plan.models[0]) == plan.models[0].max_batch


def test_another_configuration_has_another_engine(tmp_path: Path) -> None:
    rows = [{"name": "a", "hf_repo": "x"}]
    same = {to_engine_config(load(tmp_path, rows)).identity for _ in range(2)}
    other = to_engine_config(load(tmp_path, rows, MAX_CONTEXT_TOKENS="99")).identity
    assert len(same) == 1
    assert other not in same


def test_a_folder_too_deep_for_a_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        RuntimeDir(Path("/" + "x" * 100), "identity")


def test_without_its_libraries_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai_compat.backends.huggingface.engine_config.missing_extra", lambda: "transformers")
    engine = EngineClient(load(tmp_path, [{"name": "a", "hf_repo": "x"}], LOCAL_RUNTIME_DIR=str(tmp_path / "e")))
    with pytest.raises(ModelUnavailableError, match=r"need 'transformers'.*openai-compat\[local\]"):
        engine.start(CancellationToken())
    assert not (tmp_path / "e").exists()
