"""Common mistakes in the models file, the settings and `.env`, which are reported with the correction."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from openai_compat.config import environment
from openai_compat.core.errors import ConfigurationError
from openai_compat.core.settings import ModelConfig, Settings


def load(tmp_path: Path, text: str, *, name: str = "models.yaml", **variables: str) -> Settings:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return environment.load({"MODELS_FILE": str(path), **variables})


def problems(tmp_path: Path, text: str, **options: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, **options)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("1.10", "a number"),
        ("0x1F", "a number"),
        ("yes", "a boolean"),
        ("2024-01-01", "a date"),
        ("2024-01-01 10:00:00", "a date"),
    ],
)
def test_a_name_that_yaml_reads_as_something_else_is_shown_as_it_is_written(
    tmp_path: Path, name: str, kind: str
) -> None:
    sentence = (
        f"entry 2 of the models file has the name {name}, which without quotes is {kind}, not text. "
        f'Write name: "{name}"'
    )
    entries = f"- {{name: a, kind: echo}}\n- name: {name}\n  kind: echo\n"
    assert problems(tmp_path, entries) == [sentence]
    assert problems(tmp_path, f"profiles: {{}}\nmodels:\n{entries}") == [sentence]
    assert list(load(tmp_path, entries.replace(name, f'"{name}"')).entries) == ["a", name]


def test_a_name_in_json_or_behind_a_merge_is_shown_as_it_was_read(tmp_path: Path) -> None:
    assert "the name 1.1, which" in problems(tmp_path, '[{"name": 1.10, "kind": "echo"}]', name="models.json")[0]
    merged = "- &x {name: 1.10, kind: echo}\n- {<<: *x}\n"
    assert [problem.partition(", which")[0] for problem in problems(tmp_path, merged)] == [
        "entry 1 of the models file has the name 1.10",
        "entry 2 of the models file has the name 1.1",
    ]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("fallbacks: [1.10]", "fallbacks.0 must be a string, and without quotes it is a number. Put it in quotes."),
        ("owned_by: yes", "owned_by must be a string, and without quotes it is a boolean. Put it in quotes."),
        ("upstream_model: 2024-01-01", "upstream_model must be a string, and without quotes it is a date. Put it in"),
        ("owned_by: [a]", "owned_by must be a string"),
    ],
)
def test_other_texts_that_yaml_reads_as_something_else_are_named(tmp_path: Path, keys: str, sentence: str) -> None:
    assert problems(tmp_path, f"- {{name: a, kind: echo, {keys}}}")[0].startswith(f"model 'a': {sentence}")


def openai_model(tmp_path: Path, url: str, **variables: str) -> ModelConfig:
    keys = f"kind: openai, base_url: '{url}', headers: {{x-team: 'team ${{TEAM:-blue}}'}}"
    return load(tmp_path, f"- {{name: a, {keys}}}", **variables).entries["a"]


def test_a_variable_may_have_a_default(tmp_path: Path) -> None:
    url = "http://${HOST_NAME:-localhost}:${HOST_PORT:-1}/v1${REST:-}"
    found = openai_model(tmp_path, url)
    assert (found.base_url, found.headers) == ("http://localhost:1/v1", {"x-team": "team blue"})
    found = openai_model(tmp_path, url, HOST_NAME="gpu", HOST_PORT=" ", TEAM="red")
    assert (found.base_url, found.headers) == ("http://gpu:1/v1", {"x-team": "team red"})


def test_a_variable_in_an_option_may_have_a_default(tmp_path: Path) -> None:
    request = {"url": "http://localhost:1/${ROUTE:-chat}", "body": {"a": "${TONE:-kind}", "b": "${TONE}"}}
    text = json.dumps([{"name": "a", "kind": "external", "request": request}])
    with pytest.raises(ConfigurationError, match="request names the environment variable TONE, which is not set"):
        load(tmp_path, text, name="models.json")
    found = load(tmp_path, text, name="models.json", TONE="curt").entries["a"]
    assert [found.expand(part) for part in request["body"].values()] == ["curt", "curt"]  # type: ignore[attr-defined]
    assert found.expand(request["url"]) == "http://localhost:1/chat"  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["/chat/completions", "/completions", "/embeddings"])
@pytest.mark.parametrize("end", ["", "/", "?api-version=1"])
def test_a_base_url_of_an_endpoint_is_refused_with_the_root(tmp_path: Path, endpoint: str, end: str) -> None:
    url = f"https://user:secret@host.example/v1{endpoint}{end}"
    sentence = (
        "must be the root of the API, which the endpoints are added to: write https://host.example/v1, without "
        f"{endpoint}"
    )
    for kind in ("openai", "databricks", "haystack"):
        entry = f"- {{name: a, kind: {kind}, base_url: '{url}'}}"
        assert f"model 'a': base_url {sentence}" in problems(tmp_path, entry)
    with pytest.raises(ConfigurationError) as caught:
        environment.load({"OPENAI_BASE_URL": url})
    assert list(caught.value.problems) == [f"OPENAI_BASE_URL {sentence}"]


def test_an_external_chat_api_may_have_such_a_url(tmp_path: Path) -> None:
    url = "https://host.example/v1/chat/completions"
    found = load(tmp_path, f"- {{name: a, kind: external, base_url: '{url}'}}", EXTERNAL_CHAT_URL=url).entries
    assert [entry.base_url for entry in found.values()] == [url, url]


@pytest.mark.parametrize("name", ["models.json", "models.yaml"])
def test_a_byte_order_mark_in_the_models_file_is_ignored(tmp_path: Path, name: str) -> None:
    assert list(load(tmp_path, '\ufeff[{"name": "a", "kind": "echo"}]', name=name).entries) == ["a"]


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "DEFAULT_MODEL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".env"


def test_a_byte_order_mark_in_dot_env_is_ignored(dotenv: Path) -> None:
    dotenv.write_bytes(codecs.BOM_UTF8 + b"DEFAULT_MODEL=x\n")
    assert environment.read_environment()["DEFAULT_MODEL"] == "x"


@pytest.mark.parametrize(
    "line",
    [
        "OPENAI_API_KEY: sk-1",
        "OPENAI_API_KEY:sk-1",
        "OPENAI_API_KEY : sk-1",
        " OPENAI_API_KEY: 'sk-1=='",
        "export OPENAI_API_KEY:\tsk-1=2",
    ],
)
def test_a_line_with_a_colon_in_dot_env_is_reported_without_its_value(dotenv: Path, line: str) -> None:
    dotenv.write_text(f"# KEY: value\nDEFAULT_MODEL=a:b\n\n{line}\nOPENAI_BASE_URL=http://localhost:1/v1\n")
    with pytest.raises(ConfigurationError) as caught:
        environment.load()
    assert list(caught.value.problems) == [
        ".env has `OPENAI_API_KEY:` in line 4. Write OPENAI_API_KEY=, then the value"
    ]


def test_a_line_with_a_colon_in_dot_env_is_ignored_if_the_variable_is_set(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker Compose reads such lines, and sets the variables of the process."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-2")
    dotenv.write_text("OPENAI_API_KEY: sk-2\n")
    assert environment.load().openai_api_key == "sk-2"
