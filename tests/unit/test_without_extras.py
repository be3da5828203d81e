"""The core does without Haystack: it starts, answers, and says what a row of that kind needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.snippets import plain_environment
from tests.support.tools import ROOT
from tests.unit.config.test_environment import problems

WITHOUT = """\
import sys
# as if they were not installed
sys.modules.update(dict.fromkeys(("haystack", "httpx", "openai", "pypdf", "databricks", "databricks.sdk")))
"""
ASKS = """\
from openai_compat import create_app
reply = create_app().test_client().post(
    "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]}
)
print(reply.get_json()["choices"][0]["message"]["content"])
"""
CHECKS = """\
from openai_compat.cli import main
sys.exit(main(["check-config"]))
"""
IMPORTS = """\
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
ROWS = "[{name: echo, kind: echo}, {name: it, kind: haystack, generator: echo}]\n"


def run(program: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = plain_environment({"PYTHONPATH": str(ROOT), **settings})
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=50
    )


def test_it_answers(tmp_path: Path) -> None:
    done = run(WITHOUT + ASKS, tmp_path)
    assert done.stdout == "Hello\n", done.stderr


def test_a_row_that_needs_it_says_so_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(ROWS)
    done = run(WITHOUT + CHECKS, tmp_path, MODELS_FILE="models.yaml")
    assert done.returncode == 2
    assert "model 'it': kind haystack needs the extra `haystack`: pip install" in done.stderr


def test_each_row_says_what_it_needs(tmp_path: Path) -> None:
    """One start is enough to hear of both extras, and a row that needs neither is not named."""
    rows = {"kind": "databricks", "base_url": "https://w.test/serving-endpoints", "upstream_model": "e"}
    principal = {**rows, "name": "principal", "client_id": "c", "client_secret": "${SECRET}"}
    with_token = {**rows, "name": "with-token", "api_key_env": "SECRET"}
    broken = {"name": "broken", "kind": "haystack", "top_k": 0}
    file = [*yaml.safe_load(ROWS), principal, with_token, broken]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(file))
    said = run(WITHOUT + CHECKS, tmp_path, MODELS_FILE="models.yaml", SECRET="s3cret").stderr
    assert "model 'it': kind haystack needs the extra `haystack`: pip install" in said
    assert "model 'principal': a service principal needs the extra `databricks`: pip install" in said
    assert "model 'broken': top_k must be a whole number" in said
    assert "with-token" not in said


def test_a_worker_never_imports_it(tmp_path: Path) -> None:
    """A server with such a row: it is the process of the pipelines that does."""
    (tmp_path / "models.yaml").write_text(ROWS)
    done = run(IMPORTS, tmp_path, MODELS_FILE="models.yaml")
    assert done.stdout.endswith("\n[]\n") or "needs the extra" in done.stderr, done.stderr


def test_a_wrong_row_says_everything_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "- {name: echo, kind: echo}\n"
        "- {name: a, kind: haystack, generator: nobody}\n"
        "- {name: b, kind: haystack, generator: a}\n"
        "- {name: c, kind: haystack}\n"
        "- {name: d, kind: haystack, generator: echo, documents: nowhere, embedder: nobody}\n"
        "- {name: e, kind: haystack, pipeline: nothing.yaml}\n"
    )
    said = run("import sys\n" + CHECKS, tmp_path, MODELS_FILE="models.yaml").stderr
    for problem in (
        "model 'a': generator: there is no model 'nobody', and no default upstream",
        "model 'b': generator: 'a' is itself a pipeline",
        "model 'c': needs a `generator`, a `base_url`, or a default upstream (OPENAI_API_KEY)",
        "model 'd': documents: there is no folder nowhere",
        "model 'd': embedder: there is no model 'nobody', and no default upstream",
        "model 'e': pipeline: there is no file nothing.yaml",
    ):
        assert problem in said


def test_a_rows_keys_are_judged(tmp_path: Path) -> None:
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
        assert any(problem in said for said in problems(MODELS_FILE=str(tmp_path / "models.yaml"))), keys
