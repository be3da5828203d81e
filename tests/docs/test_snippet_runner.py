"""The snippet runner, which must fail for wrong commands and outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.markdown import Block, Section, read_sections
from tests.docs.snippet_runner import DocsEnvironment, SnippetRunner, check_files
from tests.support.tools import ROOT

ASK = (
    "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' "
    """-d '{"messages": [{"role": "user", "content": "Hello"}]}'"""
)


def run(docs: DocsEnvironment, folder: Path, *blocks: tuple[str, str]) -> None:
    section = Section("a page", "a title", [Block("a page:1", language, text) for language, text in blocks])
    SnippetRunner(section, folder, docs).run()


def test_correct_snippets_pass(docs: DocsEnvironment, tmp_path: Path) -> None:
    run(docs, tmp_path, ("bash", ASK), ("json", '{"object": "chat.completion", "…": "…"}'))
    run(docs, tmp_path, ("bash", "echo one; echo two"), ("text", "one\n…"))


@pytest.mark.parametrize(
    "shown",
    [
        '{"object": "chat.completion"}',  # the output has more keys
        '{"object": "text_completion", "…": "…"}',
        '{"id": "cmpl-…", "…": "…"}',
        '{"no_such_key": 1, "…": "…"}',
        '{"choices": [], "…": "…"}',
        '{"created": "today", "…": "…"}',
    ],
)
def test_an_output_other_than_shown_fails(shown: str, docs: DocsEnvironment, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a page:1: shown is"):
        run(docs, tmp_path, ("bash", ASK), ("json", shown))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "false; true"),
        ("bash", "curl http://localhost:8000/v1/no-such-path"),
        ("bash", ASK.replace("messages", "massages")),
        ("python", "import no_such_module"),
        ("javascript", "throw new Error('no')"),
        ("json", "{}"),  # an output without a command
        ("bash", "docker compose -f deploy/no-such-file.yaml up"),
    ],
)
def test_a_failing_snippet_fails(language: str, text: str, docs: DocsEnvironment, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a page:1"):
        run(docs, tmp_path, (language, text))


def test_a_shown_error_response_passes(docs: DocsEnvironment, tmp_path: Path) -> None:
    error = (
        '{"error": {"message": "Invalid URL …", "type": "invalid_request_error", "param": null, "code": "unknown_url"}}'
    )
    run(docs, tmp_path, ("bash", "curl http://localhost:8000/v1/no-such-path"), ("json", error))


def test_a_server_that_does_not_start_fails(docs: DocsEnvironment, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a page:1: the server did not start:\n.*\n.*LOG_FORMAT must be"):
        run(docs, tmp_path, ("bash", "LOG_FORMAT=xml make run"))


def test_missing_project_files_in_commands_fail() -> None:
    check_files("docker run --env-file .env openai-compat; nginx -c deploy/nginx.conf")
    with pytest.raises(AssertionError, match="nowhere"):
        check_files("docker run --env-file nowhere openai-compat")


def test_sections_have_blocks_with_places(tmp_path: Path) -> None:
    sections = read_sections(ROOT / "docs" / "guides" / "writing-a-backend.md")
    (python, yaml, *_) = sections[0].blocks
    assert (python.language, python.file_name) == ("python", "shouting.py")
    assert (yaml.language, yaml.file_name) == ("yaml", "models.yaml")
    line = int(python.place.partition(":")[2])
    assert (ROOT / "docs" / "guides" / "writing-a-backend.md").read_text().splitlines()[line] == "# shouting.py"
