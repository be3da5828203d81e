"""The index of a folder: kept in a file, renewed where documents have changed, and searched by a pipeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from openai_compat.sidecars.haystack.index import DocumentIndex
from tests.support.pdf import to_pdf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# Cats\n\nCats purr.")
    (folder / "b.txt").write_text("Dogs bark.")
    (folder / "c.pdf").write_bytes(to_pdf("Birds sing."))
    return folder


class Watched:
    """Counts what is embedded; a text's vector is its length."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.embedded += texts
        return [[float(len(text)), 1.0] for text in texts]


def test_its_documents_are_found_by_their_words(folder: Path) -> None:
    store = DocumentIndex(folder).build().to_store()
    (found,) = store.bm25_retrieval("sing", top_k=1)
    assert (found.meta["source"], found.meta["page"]) == ("c.pdf", 1)


def test_only_what_has_changed_is_read_again(folder: Path, tmp_path: Path) -> None:
    kept_in = tmp_path / "index.json"
    first = Watched()
    DocumentIndex(folder, kept_in, "m", first).build()
    assert len(first.embedded) == 3
    (folder / "b.txt").write_text("Dogs bark loudly.")
    (folder / "c.pdf").unlink()
    (folder / "d.md").write_text("Fish are silent.")
    second = Watched()
    index = DocumentIndex(folder, kept_in, "m", second).build()
    assert second.embedded == ["Dogs bark loudly.", "Fish are silent."]
    assert [entry.passage.source for entry in index.entries] == ["a.md", "b.txt", "d.md"]
    assert list(json.loads(kept_in.read_text())["files"]) == ["a.md", "b.txt", "d.md"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["index.json"]


def test_another_embedding_model_makes_it_anew(folder: Path, tmp_path: Path) -> None:
    kept_in = tmp_path / "index.json"
    DocumentIndex(folder, kept_in, "m", Watched()).build()
    other = Watched()
    DocumentIndex(folder, kept_in, "other", other).build()
    assert len(other.embedded) == 3


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 1, "embedder": null, "files": {"a": 1}}'])
def test_an_index_that_cannot_be_read_is_made_anew(folder: Path, tmp_path: Path, content: str) -> None:
    kept_in = tmp_path / "index.json"
    kept_in.write_text(content)
    assert len(DocumentIndex(folder, kept_in).build().files) == 3
    assert json.loads(kept_in.read_text())["version"] == 1


def test_a_document_that_cannot_be_read_is_left_out_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    caplog.set_level(logging.WARNING, "openai_compat")
    assert list(DocumentIndex(folder).build().files) == ["a.md", "b.txt", "c.pdf"]
    assert "broken.pdf is not in the index" in caplog.text


def test_progress_is_told_file_by_file(folder: Path) -> None:
    told: list[tuple[int, int, str]] = []
    DocumentIndex(folder).build(lambda *progress: told.append(progress))
    assert told == [(1, 3, "a.md"), (2, 3, "b.txt"), (3, 3, "c.pdf")]
