"""A server without extras starts, answers, and reports which extra a model config needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.snippets import plain_environment
from tests.support.tools import ROOT
from tests.unit.config.test_environment import problems

WITHOUT_EXTRAS = """\
import sys
# makes their imports fail
sys.modules.update(dict.fromkeys(("haystack", "httpx", "openai", "pypdf", "databricks", "databricks.sdk")))
"""
CHAT = """\
from openai_compat import create_app
reply = create_app().test_client().post(
    "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]}
)
print(reply.get_json()["choices"][0]["message"]["content"])
"""
CHECK_CONFIG = """\
from openai_compat.cli import main
sys.exit(main(["check-config"]))
"""
PRINT_IMPORTS = """\
import sys
from openai_compat import create_app
from openai_compat.cli import COMMANDS, main
create_app()
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit:
        pass
print(sorted({"haystack", "httpx", "openai", "pypdf", "numpy"} & sys.modules.keys()))
"""
MODELS = "[{name: echo, kind: echo}, {name: it, kind: haystack, generator: echo}]\n"


def run(program: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = plain_environment({"PYTHONPATH": str(ROOT), **settings})
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=50
    )


def test_the_echo_model_answers(tmp_path: Path) -> None:
    done = run(WITHOUT_EXTRAS + CHAT, tmp_path)
    assert done.stdout == "Hello\n", done.stderr


def test_check_config_reports_a_missing_extra(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    done = run(WITHOUT_EXTRAS + CHECK_CONFIG, tmp_path, MODELS_FILE="models.yaml")
    assert done.returncode == 2
    assert "model 'it': kind haystack needs the extra `haystack`: pip install" in done.stderr


def test_check_config_reports_all_missing_extras(tmp_path: Path) -> None:
    """One start reports all missing extras. A config that needs none is not reported."""
    config = {"kind": "databricks", "base_url": "https://w.test/serving-endpoints", "upstream_model": "e"}
    principal = {**config, "name": "principal", "client_id": "c", "client_secret": "${SECRET}"}
    with_token = {**config, "name": "with-token", "api_key_env": "SECRET"}
    broken = {"name": "broken", "kind": "haystack", "top_k": 0}
    file = [*yaml.safe_load(MODELS), principal, with_token, broken]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(file))
    errors = run(WITHOUT_EXTRAS + CHECK_CONFIG, tmp_path, MODELS_FILE="models.yaml", SECRET="s3cret").stderr
    assert "model 'it': kind haystack needs the extra `haystack`: pip install" in errors
    assert "model 'principal': a service principal needs the extra `databricks`: pip install" in errors
    assert "model 'broken': top_k must be a whole number" in errors
    assert "with-token" not in errors


def test_a_worker_never_imports_haystack(tmp_path: Path) -> None:
    """The sidecar imports Haystack."""
    (tmp_path / "models.yaml").write_text(MODELS)
    done = run(PRINT_IMPORTS, tmp_path, MODELS_FILE="models.yaml")
    assert done.stdout.endswith("\n[]\n") or "needs the extra" in done.stderr, done.stderr


def test_check_config_reports_all_errors_of_haystack_models(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "- {name: echo, kind: echo}\n"
        "- {name: a, kind: haystack, generator: missing}\n"
        "- {name: b, kind: haystack, generator: a}\n"
        "- {name: c, kind: haystack}\n"
        "- {name: d, kind: haystack, generator: echo, documents: nowhere, embedder: missing}\n"
        "- {name: e, kind: haystack, pipeline: nothing.yaml}\n"
    )
    errors = run("import sys\n" + CHECK_CONFIG, tmp_path, MODELS_FILE="models.yaml").stderr
    for problem in (
        "model 'a': generator: there is no model 'missing', and no default upstream",
        "model 'b': generator: 'a' is itself a pipeline",
        "model 'c': needs a `generator`, a `base_url`, or a default upstream (OPENAI_API_KEY)",
        "model 'd': documents: there is no folder nowhere",
        "model 'd': embedder: there is no model 'missing', and no default upstream",
        "model 'e': pipeline: there is no file nothing.yaml",
    ):
        assert problem in errors


def test_invalid_keys_of_haystack_models_are_reported(tmp_path: Path) -> None:
    for keys, problem in {
        "pipeline: a.yaml, documents: docs": "pipeline and documents are mutually exclusive",
        "factory: nothing": "factory must be package.module:function",
        "index: i.json, generator: echo": "index requires documents",
        "documents: [docs]": "documents must be a string",
        "top_k: 0": "top_k must be a whole number, 1 or more",
        "inputs: [query]": "inputs must be a mapping",
        "inputs: {query: retriever}": "inputs: query must be a component and its socket",
        "allowed_modules: mypackage": "allowed_modules must be a list",
        "conversation_by_user: 1": "conversation_by_user must be true or false",
        "factory: 'a:b', system_prompt: x": "system_prompt applies to the built-in pipeline only",
    }.items():
        (tmp_path / "models.yaml").write_text(f"[{{name: echo, kind: echo}}, {{name: it, kind: haystack, {keys}}}]\n")
        assert any(problem in error for error in problems(MODELS_FILE=str(tmp_path / "models.yaml"))), keys
