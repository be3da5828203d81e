"""The commands, programs and outputs in the README and in docs/, and their links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.docs.markdown import Section, read_sections
from tests.docs.snippet_runner import DocsEnvironment, SnippetRunner
from tests.support.live_server import LiveServer
from tests.support.tools import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md", "examples/haystack-rag/README.md")
PAGES = [*DOCUMENTS, *(ROOT / name for name in OTHERS), ROOT / "examples/nextjs-chat/README.md"]
SECTIONS = [section for document in DOCUMENTS for section in read_sections(document)]
LINK = re.compile(r"""(?:\]\(|\b(?:src|srcset|href)=")([^)\s"]+)""")


def as_parameter(section: Section) -> Any:
    """Return the section as a parameter with the marker of each extra that it needs."""
    starts_haystack = any("make run-haystack" in block.text for block in section.blocks)
    extras = [*section.extras, *(["haystack"] if starts_haystack else [])]
    return pytest.param(section, id=section.name, marks=[pytest.mark.extra(name) for name in extras])


@pytest.mark.parametrize("section", [as_parameter(section) for section in SECTIONS])
def test_the_snippets_of_a_section_work(section: Section, docs: DocsEnvironment, tmp_path: Path) -> None:
    SnippetRunner(section, tmp_path, docs).run()


def test_blocks_of_all_languages_are_found() -> None:
    """A change of the snippet runner that skips blocks would pass unseen otherwise."""
    pages = (ROOT / "README.md", ROOT / "docs" / "getting-started.md")
    blocks = [block for page in pages for section in read_sections(page) for block in section.blocks]
    assert sum("make run" in block.text for block in blocks) >= 7
    assert {block.language for block in blocks} == {"bash", "javascript", "json", "python", "text", "yaml"}


def test_the_readme_has_at_most_900_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_every_model_of_the_example_answers(docs: DocsEnvironment, tmp_path: Path) -> None:
    """Azure is called by deployment and key, the others by the model's name."""
    (section,) = [section for section in SECTIONS if section.name == "docs/getting-started.md: Several models at once"]
    file = tmp_path / "models.yaml"
    file.write_text(docs.localize(section.blocks[0].text))
    settings = {
        "MODELS_FILE": str(file),
        "OPENAI_KEY": "sk-openai",
        "AZURE_KEY": "azure-key",
        "DATABRICKS_KEY": "dapi-1",
    }
    received = {}
    with LiveServer(settings) as server:
        for model in requests.get(f"{server.base_url}/models", timeout=10).json()["data"]:
            body = {"model": model["id"], "messages": [{"role": "user", "content": "Hello!"}]}
            reply = requests.post(f"{server.base_url}/chat/completions", json=body, timeout=10)
            assert reply.status_code == 200, reply.text
            received[model["id"]] = docs.upstream.requests()[-1]
    assert received.keys() == {"fast", "gpt-4o", "llama3.2", "qwen", "llama", "helpdesk", "echo"}
    assert received["gpt-4o"]["path"] == "/openai/deployments/gpt-4o/chat/completions"
    assert received["gpt-4o"]["query"] == "api-version=2024-10-21"
    assert received["gpt-4o"]["headers"]["api-key"] == "azure-key"
    assert received["llama"]["path"] == "/serving-endpoints/chat/completions"
    assert received["fast"]["headers"]["authorization"] == "Bearer sk-openai"
    assert docs.upstream.stats()["models"]["gpt-4o-mini"] >= 1
    assert docs.upstream.stats()["models"]["Qwen/Qwen2.5-7B-Instruct"] >= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [anchor_of(heading) for heading in headings], f"{page.name}: {link}"


def anchor_of(heading: str) -> str:
    """Return the anchor as GitHub makes it, without characters other than letters, digits and hyphens."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
