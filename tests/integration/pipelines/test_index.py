"""The index of a folder, its index file, and its update when documents change."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from openai_compat.sidecars.haystack.index import DocumentIndex
from tests.support.pdf import to_pdf

pytestmark = pytest.mark.extra("haystack")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# Cats\n\nCats purr.")
    (folder / "b.txt").write_text("Dogs bark.")
    (folder / "c.pdf").write_bytes(to_pdf("Birds sing."))
    return folder


class RecordingEmbed:
    """Embedding function that records its texts. The embedding of a text is its length."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.embedded += texts
        return [[float(len(text)), 1.0] for text in texts]


def test_documents_are_found_by_their_words(folder: Path) -> None:
    store = DocumentIndex(folder).build().to_store()
    (document,) = store.bm25_retrieval("sing", top_k=1)
    assert (document.meta["source"], document.meta["page"]) == ("c.pdf", 1)


def test_the_index_file_keeps_the_format_of_earlier_releases(folder: Path, tmp_path: Path) -> None:
    """Its entries have the key `passage`. Rebuilding the index would embed every document again."""
    index_file = tmp_path / "index.json"
    DocumentIndex(folder, index_file, "m", RecordingEmbed()).build()
    file = json.loads(index_file.read_text())["files"]["a.md"]
    passage = {"text": "# Cats\n\nCats purr.", "source": "a.md", "title": "Cats", "page": None}
    assert file["entries"] == [{"passage": passage, "embedding": [18.0, 1.0]}]
    again = RecordingEmbed()
    DocumentIndex(folder, index_file, "m", again).build()
    assert again.embedded == []


def test_only_changed_files_are_read_again(folder: Path, tmp_path: Path) -> None:
    index_file = tmp_path / "index.json"
    first = RecordingEmbed()
    DocumentIndex(folder, index_file, "m", first).build()
    assert len(first.embedded) == 3
    (folder / "b.txt").write_text("Dogs bark loudly.")
    (folder / "c.pdf").unlink()
    (folder / "d.md").write_text("Fish are silent.")
    second = RecordingEmbed()
    index = DocumentIndex(folder, index_file, "m", second).build()
    assert second.embedded == ["Dogs bark loudly.", "Fish are silent."]
    assert [entry.passage.source for entry in index.entries] == ["a.md", "b.txt", "d.md"]
    assert list(json.loads(index_file.read_text())["files"]) == ["a.md", "b.txt", "d.md"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["index.json"]


def test_another_embedding_model_rebuilds_the_index(folder: Path, tmp_path: Path) -> None:
    index_file = tmp_path / "index.json"
    DocumentIndex(folder, index_file, "m", RecordingEmbed()).build()
    other = RecordingEmbed()
    DocumentIndex(folder, index_file, "other", other).build()
    assert len(other.embedded) == 3


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 1, "embedder": null, "files": {"a": 1}}'])
def test_an_invalid_index_file_is_rebuilt(folder: Path, tmp_path: Path, content: str) -> None:
    index_file = tmp_path / "index.json"
    index_file.write_text(content)
    assert len(DocumentIndex(folder, index_file).build().files) == 3
    assert json.loads(index_file.read_text())["version"] == 1


def test_an_unreadable_document_is_left_out_and_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    caplog.set_level(logging.WARNING, "openai_compat")
    assert list(DocumentIndex(folder).build().files) == ["a.md", "b.txt", "c.pdf"]
    assert "broken.pdf is not in the index" in caplog.text


def test_progress_is_reported_for_each_file(folder: Path) -> None:
    reported: list[tuple[int, int, str]] = []
    DocumentIndex(folder).build(lambda *progress: reported.append(progress))
    assert reported == [(1, 3, "a.md"), (2, 3, "b.txt"), (3, 3, "c.pdf")]
