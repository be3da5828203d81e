"""Parameter profiles, their changes to requests and their list of adaptations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError, UnsupportedParameterError
from openai_compat.core.profiles import PROFILES, Profile, apply_profile, parse_profile, to_header
from openai_compat.core.settings import Settings

PROFILE = parse_profile(
    {
        "drop": ["user", "messages.name"],
        "rename": {"max_completion_tokens": "max_tokens"},
        "emulate": ["stream_options"],
        "roles": {"developer": "system"},
    }
)


def adapted(**payload: Any) -> tuple[dict[str, Any], dict[str, str]]:
    changed, adaptations = apply_profile(PROFILE, payload, "m")
    return dict(changed), adaptations


def test_listed_parameters_are_adapted_and_reported() -> None:
    changed, adaptations = adapted(
        model="m",
        user="u",
        max_completion_tokens=5,
        stream_options={"include_usage": True},
        messages=[{"role": "developer", "content": "x", "name": "n"}, {"role": "user", "content": "y"}],
    )
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
    assert changed == {"model": "m", "max_tokens": 5, "messages": messages}
    assert to_header(adaptations) == (
        "user=dropped, max_completion_tokens=max_tokens, stream_options=emulated, messages.name=dropped, "
        "messages.role=system"
    )


def test_a_request_that_needs_no_change_is_the_same_object() -> None:
    payload = {"model": "m", "messages": [{"role": "user", "content": "y"}], "temperature": 1}
    assert apply_profile(PROFILE, payload, "m") == (payload, {})
    assert apply_profile(PROFILE, payload, "m")[0] is payload


def test_a_null_parameter_is_removed_and_not_reported() -> None:
    assert adapted(model="m", user=None, max_completion_tokens=None) == ({"model": "m"}, {})
    assert apply_profile(Profile(drop=frozenset({"user"}), strict=True), {"user": None, "n": 1}, "m") == ({"n": 1}, {})


def test_the_upstreams_name_wins_over_a_renamed_parameter() -> None:
    assert adapted(max_completion_tokens=5, max_tokens=6) == ({"max_tokens": 6}, {"max_completion_tokens": "dropped"})
    assert adapted(max_completion_tokens=5, max_tokens=None)[0] == {"max_tokens": 5}


def test_a_strict_profile_rejects_the_parameter_by_name() -> None:
    strict = parse_profile({"extends": "mine", "strict": True}, {"mine": PROFILE})
    for payload in ({"user": "u"}, {"max_completion_tokens": 5}, {"stream_options": {"include_usage": True}}):
        with pytest.raises(UnsupportedParameterError) as refusal:
            apply_profile(strict, payload, "m")
        assert refusal.value.param == next(iter(payload))


def test_a_profile_adds_to_the_one_it_extends() -> None:
    profile = parse_profile({"extends": "databricks", "drop": ["tools"], "rebuild": False})
    assert profile.drop == PROFILES["databricks"].drop | {"tools"}
    assert (profile.rebuild, profile.rename) == (False, PROFILES["databricks"].rename)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("missing", "there is no profile 'missing'; known are databricks"),
        (["user"], "must be the name of a profile, or a mapping"),
        ({"drops": ["user"]}, "unknown keys: drops"),
        ({"drop": "user"}, "drop must be a list of parameters"),
        ({"drop": ["a\nb"]}, "drop must be a list of parameters"),
        ({"drop": ["model"]}, "drop cannot contain model, messages, prompt, input or stream"),
        ({"emulate": ["logprobs"]}, "emulate cannot contain logprobs"),
        ({"rename": ["a"]}, "rename must be a mapping of names to names"),
        ({"roles": {"developer": 1}}, "roles must be a mapping of names to names"),
        ({"strict": "yes"}, "strict must be true or false"),
        ({"extends": "missing"}, "there is no profile 'missing'"),
    ],
)
def test_an_invalid_profile_is_a_problem(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_profile(value)


def load(tmp_path: Path, content: Any, **environ: str) -> Settings:
    file = tmp_path / "models.json"
    file.write_text(json.dumps(content))
    return environment.load({"MODELS_FILE": str(file), **environ})


def problems(tmp_path: Path, content: Any, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, content, **environ)
    return refused.value.message


def test_entries_name_profiles_of_the_models_file(tmp_path: Path) -> None:
    keys = {"kind": "openai", "base_url": "http://x/v1"}
    entries = [{"name": "a", **keys, "profile": "old"}, {"name": "b", **keys, "profile": {}}, {"name": "c", **keys}]
    settings = load(tmp_path, {"profiles": {"old": {"drop": ["user"]}}, "models": entries})
    assert [settings.entries[name].profile for name in "abc"] == [Profile(drop=frozenset({"user"})), Profile(), None]


def test_each_invalid_profile_is_a_problem_with_its_location(tmp_path: Path) -> None:
    entries = [{"name": "a", "kind": "echo", "profile": "old"}]
    found = problems(tmp_path, {"profiles": {"old": {"drop": 1}}, "models": entries})
    assert "profile 'old': drop must be a list" in found
    assert "model 'a': profile: there is no profile 'old'" in found
    assert "profiles must be a mapping" in problems(tmp_path, {"profiles": [1], "models": entries})


ENTRY = {"name": "a", "kind": "databricks"}


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
def test_an_incomplete_databricks_entry_is_a_problem(
    tmp_path: Path, keys: dict[str, str], environ: dict[str, str], words: str
) -> None:
    assert words in problems(tmp_path, [{**ENTRY, **keys}], **environ)


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
