"""The JSON Schema of the models file agrees with what the server accepts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from jsonschema import Draft7Validator

from openai_compat import cli
from openai_compat.backends.base import Backend, SupportsChat
from openai_compat.backends.huggingface.presets import PRESETS
from openai_compat.config import environment
from openai_compat.config.fields import option_fields
from openai_compat.config.json_schema import models_json_schema
from openai_compat.core.errors import ConfigurationError
from tests.support.tools import ROOT

COPY = ROOT / "docs" / "reference" / "models.schema.json"
VALIDATOR = Draft7Validator(json.loads(COPY.read_text(encoding="utf-8")))
OPENAI = {"name": "a", "kind": "openai", "base_url": "http://x/v1"}


def test_the_copy_in_the_documentation_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    Draft7Validator.check_schema(models_json_schema())
    assert json.loads(COPY.read_text(encoding="utf-8")) == models_json_schema()
    assert cli.main(["models", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == models_json_schema()


def example_files() -> Iterator[Any]:
    """Yield the models files of the repository, and those in its documentation."""
    for path in [*(ROOT / "examples").rglob("models.yaml"), *(ROOT / "deploy").rglob("models.yaml")]:
        if "node_modules" not in path.parts:
            yield pytest.param(path.read_text(encoding="utf-8"), id=str(path.relative_to(ROOT)))
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            if "models.yaml" in block.splitlines()[0]:
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("text", list(example_files()))
def test_the_models_files_of_the_repository_are_valid(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []


def test_the_presets_are_valid() -> None:
    VALIDATOR.validate(json.loads(json.dumps(PRESETS)))


@pytest.mark.parametrize(
    "model",
    [
        {"name": "a", "kind": "echo", "delay": 0.1},
        {**OPENAI, "timeout": 30, "headers": {"X-Team": "${TEAM}"}, "metadata": {"any": ["thing"]}},
        {**OPENAI, "timeout": {"connect": 1, "first_token": 2.5}, "max_concurrent": 0},
        {**OPENAI, "profile": "databricks", "hooks": {"before_request": "rules:prepare"}},
        {**OPENAI, "profile": {"extends": "databricks", "drop": ["user"], "rename": {"a": "b"}, "strict": True}},
        {**OPENAI, "fallbacks": ["b"], "retries": 3, "cooldown": {"seconds": 1, "failure_threshold": 1}},
        {**OPENAI, "longest_wait": 1, "midstream": "continue", "cooldown": {"faults": 1}, "prefill": True},
        {"name": "a", "hf_repo": "org/model", "capabilities": ["chat"]},
        {"name": "a", "targets": ["b"], "strategy": "least_latency"},
        {"name": "a", "targets": {"b": 1, "c": 2}, "balance": "weight"},
        {"name": "a", "targets": [{"model": "b", "weight": 2}, "c"], "fallbacks": "d"},
        {"name": "a", "kind": "package.module:Class", "own": {"option": 1}, "timeout": 3},
    ],
)
def test_a_right_model_is_valid(model: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors([model])] == []
    assert VALIDATOR.is_valid({"models": [model], "model_aliases": {"claude-*": "a"}})
    assert not VALIDATOR.is_valid({"models": [model], "model_aliases": ["claude-*"]})
    assert VALIDATOR.is_valid({"models": [model], "profiles": {"mine": {"drop": ["user"]}, "same": "mine"}})


WRONG: list[Any] = [
    {"name": "a"},
    {"kind": "echo"},
    {"name": "a", "kind": "nope"},
    {"name": "a", "kind": "echo", "delays": 1},
    {"name": "a", "kind": "echo", "delay": "slow"},
    {"name": "a", "kind": "echo", "hf_repo": "org/model"},
    {**OPENAI, "base_url": 3},
    {**OPENAI, "timeout": "long"},
    {**OPENAI, "timeout": {"forever": 1}},
    {**OPENAI, "timeout": -1},
    {**OPENAI, "max_concurrent": -1},
    {**OPENAI, "max_concurrent": 1.5},
    {**OPENAI, "metadata": "x"},
    {**OPENAI, "retries": 4},
    {**OPENAI, "retries": True},
    {**OPENAI, "cooldown": {"second": 1}},
    {**OPENAI, "context_overflow": "never"},
    {**OPENAI, "assistant_prefill": "yes"},
    {**OPENAI, "context_window": 0},
    {**OPENAI, "profile": {"drops": ["user"]}},
    {**OPENAI, "profile": {"drop": ["model"]}},
    {**OPENAI, "profile": {"emulate": ["logprobs"]}},
    {**OPENAI, "profile": ["user"]},
    {**OPENAI, "hooks": {"after": "rules:prepare"}},
    {"name": "a", "targets": ["b"], "kind": "echo"},
    {"name": "a", "targets": [], "kind": "echo"},
    {"name": "a", "targets": [{"name": "b"}]},
    {"name": "a", "targets": ["b"], "strategy": "fair"},
    {"name": "a", "hf_repo": "org/model", "max_context": 5},
    {"name": "a", "kind": "package.module:Class", "timeout": "long"},
    7,
]


@pytest.mark.parametrize("model", WRONG)
def test_a_wrong_model_is_invalid_for_editors_and_for_the_server(model: Any, tmp_path: Path) -> None:
    assert not VALIDATOR.is_valid([model])
    file = tmp_path / "models.json"
    file.write_text(json.dumps([model, {"name": "b", "kind": "echo"}]))
    with pytest.raises(ConfigurationError):
        environment.load({"MODELS_FILE": str(file)})


@pytest.mark.parametrize("content", [[], 3, {"modells": []}, {"models": []}, {"models": [OPENAI], "more": 1}])
def test_a_wrong_file_is_invalid(content: Any) -> None:
    assert not VALIDATOR.is_valid(content)


@dataclass(frozen=True)
class OwnOptions:
    """Options of a third-party kind."""

    must: str
    size: int = 1
    share: float = 0.5
    is_on: bool = False
    word: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    either: str | int = "x"
    maybe: int | None = None
    described: str = field(default="", metadata={"description": "What it is for."})


class OwnBackend(Backend, SupportsChat):
    """A third-party kind."""

    Options = OwnOptions


def check(tmp_path: Path, **options: Any) -> tuple[str, ...]:
    file = tmp_path / "models.json"
    file.write_text(json.dumps([{"name": "a", "kind": f"{__name__}:OwnBackend", **options}]))
    assert __name__ in sys.modules
    try:
        environment.load({"MODELS_FILE": str(file)})
    except ConfigurationError as error:
        return error.problems
    return ()


def test_options_of_a_third_party_kind_are_checked_by_their_annotations(tmp_path: Path) -> None:
    right = {"must": "x", "size": 2, "share": 1, "is_on": True, "word": "b", "names": ["n"], "limits": {}, "maybe": 3}
    assert check(tmp_path, **right, either=1, described="d") == ()
    assert check(tmp_path, must="x", maybe=None, either=["anything"]) == ()
    assert check(
        tmp_path, size="2", share="much", is_on=1, word="c", names="n", limits=[1], maybe=1.5, description=1
    ) == (
        "model 'a': must is missing",
        "model 'a': size must be a whole number",
        "model 'a': share must be a number",
        "model 'a': is_on must be true or false",
        "model 'a': word must be a or b",
        "model 'a': names must be a list",
        "model 'a': limits must be a mapping",
        "model 'a': maybe must be a whole number",
        "model 'a' has the unknown key 'description'. Did you mean 'described'?",
    )


def test_options_may_have_descriptions_and_annotations_that_cannot_be_resolved() -> None:
    assert option_fields(OwnOptions)["described"].metadata == {"description": "What it is for."}
    unresolved = dataclass(type("Unresolved", (), {"__annotations__": {"value": "Missing"}, "value": 1}))
    assert option_fields(unresolved)["value"].deserialize({"any": "thing"}) == {"any": "thing"}
