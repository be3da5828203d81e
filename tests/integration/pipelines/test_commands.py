"""`python -m openai_compat index` and `pipeline draw`, as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from openai_compat.cli import main
from openai_compat.sidecars.haystack.diagram import Edge, Graph, to_mermaid, to_svg

MODELS = """\
- {name: echo, kind: echo}
- {name: team/docs, kind: haystack, documents: documents, generator: echo, embedder: echo}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are typed."""
    (tmp_path / "models.yaml").write_text(MODELS)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# Cats\n\nCats purr.")
    (tmp_path / "documents" / "b.txt").write_text("Dogs bark.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS_FILE", "models.yaml")
    return tmp_path


@pytest.mark.usefixtures("folder")
class TestCommands:
    def test_index_shows_its_progress_and_keeps_what_it_made(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["index", "documents", "--output", "index.json", "--embedder", "echo"]) == 0
        said = capsys.readouterr()
        assert said.out == "2 passages of 2 files, kept in index.json\n"
        assert said.err == "[1/2] a.md\n[2/2] b.txt\n"
        kept = json.loads(Path("index.json").read_text())
        assert (kept["embedder"], list(kept["files"])) == ("echo", ["a.md", "b.txt"])

    def test_index_says_what_is_wrong(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["index", "nowhere"]) == 1
        assert capsys.readouterr().err == "there is no folder nowhere\n"
        assert main(["index", "documents", "--embedder", "nobody"]) == 1
        assert "the embedding model failed: The model 'nobody' does not exist" in capsys.readouterr().err

    def test_a_picture_has_every_component_and_what_connects_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pipeline", "draw", "team/docs"]) == 0
        assert capsys.readouterr().out == "team-docs.svg\n"
        picture = ElementTree.parse("team-docs.svg")  # noqa: S314 - it was written here
        texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
        assert {"conversation", "retriever", "text_embedder", "joiner", "generator", "answer"} <= texts
        assert {"query", "documents", "embedding → query_embedding", "replies", "DocumentJoiner"} <= texts

    def test_a_picture_of_what_is_not_there_names_what_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["pipeline", "draw", "nope"]) == 2
        assert capsys.readouterr().err == "there is no model 'nope' of kind haystack; there are: team/docs\n"


LOOP = Graph(
    {"conversation": "in", "builder": "B", "checker": 'C"<', "answer": "out"},
    [
        Edge("conversation", "builder", "query"),
        Edge("builder", "checker", "prompt"),
        Edge("checker", "builder", "again"),
        Edge("checker", "answer", "replies"),
        Edge("conversation", "answer", "far"),
    ],
)


def test_a_pipeline_with_a_loop_can_be_drawn() -> None:
    svg = to_svg(LOOP)
    ElementTree.fromstring(svg)  # noqa: S314 - made here
    rows = [int(found) for found in re.findall(r'class="name" x="\d+" y="(\d+)"', svg)]
    assert rows == sorted(rows)
    assert len(set(rows)) == 4
    assert svg.count('class="arrow"') == 5


def test_mermaid_has_the_same_in_words() -> None:
    text = to_mermaid(LOOP)
    assert text.startswith("flowchart TD\n")
    assert '    box2["checker<br/><i>C#quot;<</i>"]\n' in text
    assert '    box2 -->|"again"| box1\n' in text
