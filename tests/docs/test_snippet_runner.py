"""The reader of the documentation notices what is wrong: else its tests would be green whatever the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.markdown import Block, Section, read_sections
from tests.docs.snippet_runner import Reader, World, check_files
from tests.support.tools import ROOT

ASK = (
    "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' "
    """-d '{"messages": [{"role": "user", "content": "Hello"}]}'"""
)


def follow(world: World, folder: Path, *blocks: tuple[str, str]) -> None:
    section = Section("a page", "a title", [Block("a page:1", language, text) for language, text in blocks])
    Reader(section, folder, world).follow()


def test_what_is_right_passes(world: World, tmp_path: Path) -> None:
    follow(world, tmp_path, ("bash", ASK), ("json", '{"object": "chat.completion", "…": "…"}'))
    follow(world, tmp_path, ("bash", "echo one; echo two"), ("text", "one\n…"))


@pytest.mark.parametrize(
    "shown",
    [
        '{"object": "chat.completion"}',  # it has other keys, too
        '{"object": "text_completion", "…": "…"}',
        '{"id": "cmpl-…", "…": "…"}',
        '{"no_such_key": 1, "…": "…"}',
        '{"choices": [], "…": "…"}',
        '{"created": "today", "…": "…"}',
    ],
)
def test_another_answer_than_shown_fails(shown: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a page:1: shown is"):
        follow(world, tmp_path, ("bash", ASK), ("json", shown))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "false; true"),
        ("bash", "curl http://localhost:8000/v1/no-such-path"),
        ("bash", ASK.replace("messages", "massages")),
        ("python", "import no_such_module"),
        ("javascript", "throw new Error('no')"),
        ("json", "{}"),  # the answer to nothing
        ("bash", "docker compose -f deploy/no-such-file.yaml up"),
    ],
)
def test_a_failure_fails(language: str, text: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a page:1"):
        follow(world, tmp_path, (language, text))


def test_an_error_that_is_shown_is_no_failure(world: World, tmp_path: Path) -> None:
    error = (
        '{"error": {"message": "Invalid URL …", "type": "invalid_request_error", "param": null, "code": "unknown_url"}}'
    )
    follow(world, tmp_path, ("bash", "curl http://localhost:8000/v1/no-such-path"), ("json", error))


def test_a_server_that_does_not_start_fails(world: World, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a page:1: the server did not start:\n.*\n.*LOG_FORMAT must be"):
        follow(world, tmp_path, ("bash", "LOG_FORMAT=xml make run"))


def test_our_files_are_found_in_commands() -> None:
    check_files("docker run --env-file .env openai-compat; nginx -c deploy/nginx.conf")
    with pytest.raises(AssertionError, match="nowhere"):
        check_files("docker run --env-file nowhere openai-compat")


def test_sections_are_read_with_their_places(tmp_path: Path) -> None:
    sections = read_sections(ROOT / "docs" / "guides" / "writing-a-backend.md")
    (python, yaml, *_) = sections[0].blocks
    assert (python.language, python.file_name) == ("python", "shouting.py")
    assert (yaml.language, yaml.file_name) == ("yaml", "models.yaml")
    line = int(python.place.partition(":")[2])
    assert (ROOT / "docs" / "guides" / "writing-a-backend.md").read_text().splitlines()[line] == "# shouting.py"
