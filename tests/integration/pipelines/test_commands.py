"""The commands `index` and `pipeline draw` of `python -m openai_compat`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from haystack import Pipeline, component

from openai_compat.cli import main
from openai_compat.sidecars.haystack.diagram import to_mermaid
from openai_compat.sidecars.haystack.io_mapping import map_pipeline

pytestmark = pytest.mark.extra("haystack")

MODELS = """\
- {name: echo, kind: echo}
- {name: team/docs, kind: haystack, documents: documents, generator: echo, embedder: echo}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a models file and documents."""
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# Cats\n\nCats purr.")
    (tmp_path / "documents" / "b.txt").write_text("Dogs bark.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS_FILE", "models.yaml")
    return tmp_path


@pytest.mark.usefixtures("folder")
class TestIndex:
    def test_index_prints_progress_and_writes_the_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["index", "documents", "--output", "index.json", "--embedder", "echo"]) == 0
        printed = capsys.readouterr()
        assert printed.out == "2 passages of 2 files, saved in index.json\n"
        assert printed.err == "[1/2] a.md\n[2/2] b.txt\n"
        saved = json.loads(Path("index.json").read_text())
        assert (saved["embedder"], list(saved["files"])) == ("echo", ["a.md", "b.txt"])

    def test_index_reports_a_missing_folder_and_an_unknown_embedder(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["index", "nowhere"]) == 1
        assert capsys.readouterr().err == "there is no folder nowhere\n"
        assert main(["index", "documents", "--embedder", "unknown"]) == 1
        assert "the embedding model failed: The model 'unknown' does not exist" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
class TestDraw:
    def test_draw_prints_every_component_and_connection(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pipeline", "draw", "team/docs"]) == 0
        diagram = capsys.readouterr().out
        assert diagram.startswith("flowchart TD\n")
        for name in ("conversation", "retriever", "text_embedder", "joiner", "generator", "answer"):
            assert f'"{name}<br/>' in diagram
        assert "<i>DocumentJoiner</i>" in diagram
        for label in ("query", "documents", "embedding → query_embedding", "replies", "documents → sources"):
            assert f'-->|"{label}"|' in diagram

    def test_output_writes_the_diagram_and_prints_the_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pipeline", "draw", "team/docs", "--output", "docs.mermaid"]) == 0
        assert capsys.readouterr().out == "docs.mermaid\n"
        assert Path("docs.mermaid").read_text("utf-8").startswith("flowchart TD\n")

    def test_output_to_svg_writes_mermaid_and_tells_how_to_render_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pipeline", "draw", "team/docs", "--output", "docs.svg"]) == 0
        printed = capsys.readouterr()
        assert printed.out == "docs.mmd\n"
        assert printed.err == "diagrams are Mermaid text; render docs.svg with: mmdc -i docs.mmd -o docs.svg\n"
        assert Path("docs.mmd").read_text("utf-8").startswith("flowchart TD\n")
        assert not Path("docs.svg").exists()

    def test_draw_lists_the_pipelines_if_the_name_is_unknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pipeline", "draw", "nope"]) == 2
        assert capsys.readouterr().err == "there is no model 'nope' of kind haystack; available: team/docs\n"


@component
class Builder:
    @component.output_types(prompt=str)
    def run(self, query: str, again: str | None = None) -> dict[str, Any]:
        return {"prompt": query + (again or "")}


@component
class Checker:
    @component.output_types(again=str, replies=list[str])
    def run(self, prompt: str) -> dict[str, Any]:
        return {"replies": [prompt]}


def test_a_pipeline_with_a_loop_is_drawn_and_its_names_are_escaped() -> None:
    pipeline = Pipeline()
    pipeline.add_component("answer", Builder())
    pipeline.add_component('check"<er', Checker())
    pipeline.connect("answer.prompt", 'check"<er.prompt')
    pipeline.connect('check"<er.again', "answer.again")
    diagram = to_mermaid(pipeline, map_pipeline(pipeline, {}, {}, None))
    assert diagram.splitlines() == [
        "flowchart TD",
        '    conversation(["conversation<br/><i>OpenAI messages</i>"])',
        '    node0["answer<br/><i>Builder</i>"]',
        '    node1["check#quot;#lt;er<br/><i>Checker</i>"]',
        '    answer(["answer<br/><i>OpenAI choices</i>"])',
        '    conversation -->|"query"| node0',
        '    node0 -->|"prompt"| node1',
        '    node1 -->|"again"| node0',
        '    node1 -->|"replies"| answer',
    ]
