"""Former names of settings and of keys of the models file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.config import environment
from openai_compat.config.model_schema import ModelSchema
from openai_compat.config.settings_table import SETTINGS
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import ModelConfig

UPSTREAM = {"name": "a", "kind": "openai", "base_url": "http://x/v1"}
SPARE = {"name": "b", "kind": "echo"}


def load(tmp_path: Path, model: dict[str, Any]) -> tuple[ModelConfig, list[str]]:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([model, SPARE]))
    renamed: list[str] = []
    settings = environment.load({"MODELS_FILE": str(file)}, renamed=renamed)
    return settings.entries["a"], renamed


@pytest.fixture
def models_file(tmp_path: Path) -> str:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([SPARE]))
    return str(file)


SETTINGS_CASES = [
    ("HALF_CLOSED_CLIENTS", "waiting", "HALF_CLOSE_IS_DISCONNECT", "true", False, True),
    ("QUEUE_TIMEOUT", "3", "REQUEST_QUEUE_TIMEOUT", "4", 3.0, 4.0),
    ("MODELS_CACHE_SECONDS", "3", "MODELS_CACHE_TTL", "4", 3.0, 4.0),
    ("STATE_URL", "memory:", "SHARED_STATE_URL", "sqlite:x", "memory:", "sqlite:x"),
    ("DOCTOR", "false", "DIAGNOSTICS_ENABLED", "true", False, True),
    ("LOCAL_LOAD_WAIT", "3", "LOCAL_LOAD_TIMEOUT", "4", 3.0, 4.0),
    ("LOCAL_QUEUE_LIMIT", "3", "LOCAL_MAX_QUEUED", "4", 3, 4),
    ("LOCAL_ENGINE_DIRECTORY", "old", "LOCAL_RUNTIME_DIR", "new", "old", "new"),
]


@pytest.mark.parametrize(("old", "old_text", "new", "new_text", "old_value", "new_value"), SETTINGS_CASES)
def test_a_former_setting_is_read_and_the_present_one_wins(
    old: str, old_text: str, new: str, new_text: str, old_value: Any, new_value: Any
) -> None:
    renamed: list[str] = []
    assert getattr(environment.load({old: old_text}, renamed=renamed), new.lower()) == old_value
    assert renamed == [f"{old} is now {new}"]
    assert getattr(environment.load({old: old_text, new: new_text}), new.lower()) == new_value
    assert getattr(environment.load({new: old_text}), new.lower()) == old_value


def test_the_models_file_has_its_former_name_as_well(models_file: str) -> None:
    renamed: list[str] = []
    assert "b" in environment.load({"MODEL_REGISTRY_PATH": models_file}, renamed=renamed).entries
    assert renamed == ["MODEL_REGISTRY_PATH is now MODELS_FILE"]
    both = {"MODEL_REGISTRY_PATH": "nowhere.json", "MODELS_FILE": models_file}
    assert "b" in environment.load(both).entries


def test_every_former_setting_has_a_case() -> None:
    former = {name for setting in SETTINGS for name in setting.former_names}
    assert former == {case[0] for case in SETTINGS_CASES} | {"MODEL_REGISTRY_PATH"}


def test_a_wrong_value_is_reported_under_the_name_in_use() -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_TIMEOUT must be a number") as raised:
        environment.load({"QUEUE_TIMEOUT": "long"})
    assert "REQUEST_QUEUE_TIMEOUT" not in raised.value.message


def test_names_that_a_platform_sets_are_not_former_names() -> None:
    renamed: list[str] = []
    environment.load({"DATABRICKS_APP_PORT": "8001", "API_HOST": "localhost"}, renamed=renamed)
    assert renamed == []


KEY_CASES = [
    ("balance", "strategy", {"targets": ["b"], "balance": "latency"}, {"targets": ["b"], "strategy": "least_latency"}),
    ("longest_wait", "max_retry_wait", {"longest_wait": 3}, {"max_retry_wait": 3}),
    ("context_fallback", "context_overflow", {"context_fallback": "always"}, {"context_overflow": "always"}),
    ("midstream", "on_stream_break", {"midstream": "continue"}, {"on_stream_break": "continue"}),
    ("prefill", "assistant_prefill", {"prefill": True}, {"assistant_prefill": True}),
    (
        "cooldown.faults",
        "cooldown.failure_threshold",
        {"cooldown": {"faults": 4}},
        {"cooldown": {"failure_threshold": 4}},
    ),
    (
        "profile.rebuild",
        "profile.translate_responses",
        {"profile": {"rebuild": True}},
        {"profile": {"translate_responses": True}},
    ),
]


def configured(keys: dict[str, Any]) -> dict[str, Any]:
    return {"name": "a", **keys} if "targets" in keys else {**UPSTREAM, **keys}


@pytest.mark.parametrize(("old", "new", "former", "present"), KEY_CASES)
def test_a_former_key_means_the_same_as_the_present_one(
    tmp_path: Path, old: str, new: str, former: dict[str, Any], present: dict[str, Any]
) -> None:
    expected, nothing = load(tmp_path, configured(present))
    assert nothing == []
    assert load(tmp_path, configured(former)) == (expected, [f"model 'a': {old} is now {new}"])


@pytest.mark.parametrize(("old", "new", "former", "present"), KEY_CASES)
def test_a_former_key_beside_the_present_one_is_a_problem(
    tmp_path: Path, old: str, new: str, former: dict[str, Any], present: dict[str, Any]
) -> None:
    both = {**former, **present}
    if "." in old:
        (key,) = former
        both = {key: {**former[key], **present[key]}}
    names = f"{old.rpartition('.')[2]} and {new.rpartition('.')[2]}, which mean the same"
    with pytest.raises(ConfigurationError, match=names) as raised:
        load(tmp_path, configured(both))
    assert len(raised.value.problems) == 1


def test_every_former_key_has_a_case() -> None:
    assert dict(ModelSchema().former_keys()) == {old: new for old, new, *_ in KEY_CASES}


@pytest.mark.parametrize("key", ["balance", "strategy"])
@pytest.mark.parametrize(
    ("word", "strategy"),
    [
        ("weight", "weighted"),
        ("latency", "least_latency"),
        ("weighted", "weighted"),
        ("least_latency", "least_latency"),
    ],
)
def test_each_key_takes_the_former_and_the_present_words(tmp_path: Path, key: str, word: str, strategy: str) -> None:
    alias, _ = load(tmp_path, {"name": "a", "targets": ["b"], key: word})
    assert alias.routing is not None
    assert alias.routing.strategy == strategy


def test_a_wrong_value_of_a_former_key_is_reported_under_that_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="model 'a': midstream must be error or continue"):
        load(tmp_path, {**UPSTREAM, "midstream": "resume"})


def test_former_keys_of_shared_profiles_are_named(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"profiles": {"old": {"rebuild": True}}, "models": [{**UPSTREAM, "profile": "old"}]}))
    renamed: list[str] = []
    profile = environment.load({"MODELS_FILE": str(file)}, renamed=renamed).entries["a"].profile
    assert profile is not None
    assert profile.translate_responses
    assert renamed == ["profile 'old': rebuild is now translate_responses"]
