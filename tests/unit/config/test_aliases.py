"""Model aliases of the models file and of the environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import Settings

MODELS = [{"name": "smart", "kind": "echo"}, {"name": "quick", "kind": "echo"}]
UPSTREAM = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}


def load(tmp_path: Path, aliases: Any, **variables: str) -> Settings:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"models": MODELS, "model_aliases": aliases}))
    return environment.load({"MODELS_FILE": str(path), **variables})


def problems(tmp_path: Path, aliases: Any, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, aliases, **variables)
    return str(caught.value)


def test_aliases_of_the_environment_are_added_to_those_of_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, {"claude-*": "smart", "gpt-4o": "smart"}, MODEL_ALIASES="gpt-4o = quick, o3*=quick")
    assert settings.model_aliases == {"claude-*": "smart", "gpt-4o": "quick", "o3*": "quick"}


def test_the_environment_alone_suffices() -> None:
    settings = environment.load({"MODEL_ALIASES": "claude-*=vendor/model=x", **UPSTREAM})
    assert settings.model_aliases == {"claude-*": "vendor/model=x"}


@pytest.mark.parametrize(
    ("aliases", "sentence"),
    [
        ({"claude-*": "nope"}, "'claude-*' names 'nope', which is not configured"),
        ({"smart": "quick"}, "'smart' is the name of a model already"),
        ({"a": "b", "b": "smart"}, "'a' names 'b', which is an alias itself"),
        ({"a": "b", "b": "a"}, "'a' names 'b', which is an alias itself"),
        ({"a*": "a*"}, "'a*' names 'a*', which is an alias itself"),
        ({"a": 1}, "'a' must name a model"),
        ({"": "smart"}, "'' is not the text of a name or a pattern"),
        (["smart"], "must be a mapping"),
    ],
)
def test_an_alias_that_leads_nowhere_is_refused(tmp_path: Path, aliases: Any, sentence: str) -> None:
    assert sentence in problems(tmp_path, aliases)


def test_an_alias_may_name_a_model_of_the_default_upstream(tmp_path: Path) -> None:
    assert load(tmp_path, {"claude-*": "their-model"}, **UPSTREAM).model_aliases == {"claude-*": "their-model"}


def test_the_allow_list_holds_for_the_model_behind_an_alias(tmp_path: Path) -> None:
    found = problems(tmp_path, {"claude-*": "quick"}, MODEL_ALLOW_LIST="smart")
    assert "'claude-*' names 'quick', which MODEL_ALLOW_LIST leaves out" in found
    assert load(tmp_path, {"claude-*": "smart"}, MODEL_ALLOW_LIST="smart").model_aliases == {"claude-*": "smart"}


@pytest.mark.parametrize("text", ["claude-*", "=smart", "claude-*=", "a=smart,a=quick"])
def test_a_malformed_variable_is_refused(tmp_path: Path, text: str) -> None:
    assert "MODEL_ALIASES" in problems(tmp_path, {}, MODEL_ALIASES=text)
