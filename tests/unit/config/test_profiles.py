"""Capability profiles of the models file, and the Databricks models that use one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.profiles import PROFILES, Profile
from openai_compat.core.settings import Settings

MODEL = {"name": "a", "kind": "openai", "base_url": "http://x/v1"}
DATABRICKS = {"name": "a", "kind": "databricks"}


def load(tmp_path: Path, content: Any, **environ: str) -> Settings:
    file = tmp_path / "models.json"
    file.write_text(json.dumps(content))
    return environment.load({"MODELS_FILE": str(file), **environ})


def problems(tmp_path: Path, content: Any, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, content, **environ)
    return raised.value.message


def test_a_model_can_use_a_profile_of_the_file(tmp_path: Path) -> None:
    models = [{**MODEL, "profile": "old"}, {**MODEL, "name": "b", "profile": {}}, {**MODEL, "name": "c"}]
    settings = load(tmp_path, {"profiles": {"old": {"drop": ["user"]}}, "models": models})
    assert [settings.entries[name].profile for name in "abc"] == [Profile(drop=frozenset({"user"})), Profile(), None]


def test_each_wrong_profile_is_reported_with_its_place(tmp_path: Path) -> None:
    models = [{**MODEL, "profile": "older"}, {**MODEL, "name": "b", "profile": {"strict": 1}}]
    reported = problems(tmp_path, {"profiles": {"old": {"drop": 1}}, "models": models})
    assert "profile 'old': drop must be a list" in reported
    assert "model 'a': profile: there is no profile 'older'. Known profiles are databricks, old." in reported
    assert "model 'b': profile.strict must be true or false" in reported
    assert "profiles must be a mapping" in problems(tmp_path, {"profiles": [1], "models": models})


def test_a_profile_adds_to_the_one_that_it_extends(tmp_path: Path) -> None:
    value = {"extends": "databricks", "drop": ["tools"], "translate_responses": False}
    profile = load(tmp_path, [{**MODEL, "profile": value}]).entries["a"].profile
    assert profile is not None
    assert profile.drop == PROFILES["databricks"].drop | {"tools"}
    assert (profile.translate_responses, profile.rename) == (False, PROFILES["databricks"].rename)


def test_a_profile_of_the_file_extends_the_ones_before_it(tmp_path: Path) -> None:
    profiles = {"old": {"drop": ["user"]}, "same": "old", "older": {"extends": "same", "strict": True}}
    settings = load(tmp_path, {"profiles": profiles, "models": [{**MODEL, "profile": "older"}]})
    assert settings.entries["a"].profile == Profile(drop=frozenset({"user"}), strict=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("missing", "profile: there is no profile 'missing'. Known profiles are databricks"),
        (["user"], "profile must be the name of a profile, or a mapping"),
        ({"drops": ["user"]}, "profile has the unknown key 'drops'. Did you mean 'drop'?"),
        ({"drop": "user"}, "profile.drop must be a list"),
        ({"drop": ["a\nb"]}, "profile.drop.0 must be a name"),
        ({"drop": ["model"]}, "profile.drop.0 cannot be what every request consists of"),
        ({"emulate": ["logprobs"]}, "profile.emulate.0 must be stream_options"),
        ({"rename": ["a"]}, "profile.rename must be a mapping"),
        ({"roles": {"developer": 1}}, "profile.roles.developer.value must be a string"),
        ({"strict": "yes"}, "profile.strict must be true or false"),
        ({"extends": "missing"}, "profile: there is no profile 'missing'"),
    ],
)
def test_a_wrong_profile_is_reported(tmp_path: Path, value: Any, words: str) -> None:
    assert f"model 'a': {words}" in problems(tmp_path, [{**MODEL, "profile": value}])


@pytest.mark.parametrize(
    ("keys", "environ", "words"),
    [
        ({}, {"DATABRICKS_TOKEN": "t"}, "needs DATABRICKS_HOST, or a `base_url`"),
        ({}, {"DATABRICKS_HOST": "ws.test"}, "needs DATABRICKS_TOKEN"),
        ({}, {"DATABRICKS_HOST": "ws.test", "DATABRICKS_CLIENT_ID": "i"}, "needs DATABRICKS_CLIENT_ID and"),
        ({"credentials": "none"}, {"DATABRICKS_HOST": "ws.test"}, "credentials must be one of"),
        ({"client_id": "i"}, {"DATABRICKS_HOST": "ws.test"}, "client_id and client_secret must be set together"),
        ({"client_id": "i", "client_secret": "s"}, {}, "client_secret must name an environment variable"),
        ({"client_id": "i", "client_secret": "${NOT_SET}"}, {}, "NOT_SET, which is not set"),
    ],
)
def test_a_databricks_model_that_cannot_work_is_reported(
    tmp_path: Path, keys: dict[str, str], environ: dict[str, str], words: str
) -> None:
    assert words in problems(tmp_path, [{**DATABRICKS, **keys}], **environ)


def test_databricks_endpoints_are_models_and_a_host_needs_no_scheme() -> None:
    environ = {"DATABRICKS_HOST": "ws.test", "DATABRICKS_TOKEN": "dapi-1", "DATABRICKS_ENDPOINTS": "one, two"}
    settings = environment.load(environ)
    assert settings.databricks_host == "https://ws.test"
    assert [(entry.name, entry.kind) for entry in settings.entries.values()] == [
        ("one", "databricks"),
        ("two", "databricks"),
    ]
    assert "dapi-1" not in repr(settings)
    with pytest.raises(ConfigurationError, match="DATABRICKS_ENDPOINTS: kind databricks needs DATABRICKS_HOST"):
        environment.load({"DATABRICKS_TOKEN": "dapi-1", "DATABRICKS_ENDPOINTS": "one"})
