"""Index of a folder of documents, optionally kept in a file and updated file by file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore

from .chunking import Passage, find_files, read_passages
from .haystack_compat import new_document_store

log = logging.getLogger(__name__)

VERSION: Final = 1
"""Version of the index file's format and of the chunking. A file of another version is rebuilt."""
EMBEDDING_BATCH: Final = 32

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
Progress = Callable[[int, int, str], None]
"""Callback after each file, with the number of files done, their total, and the file's path."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage in the index. `embedding` is None if the index has no embedding model."""

    passage: Passage
    embedding: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file as it was when it was read. A file with an unchanged `stamp` is not read again."""

    stamp: str
    entries: Sequence[Entry]


def no_progress(_done: int, _total: int, _path: str) -> None:
    """Ignore the progress."""


class DocumentIndex:
    """Index of the passages of a folder.

    `index_file` is the file that keeps the index between runs. `embedder` is the name of the embedding model, and
    `embed` calls it.
    """

    def __init__(
        self, folder: Path, index_file: Path | None = None, embedder: str | None = None, embed: Embed | None = None
    ) -> None:
        self.folder = folder
        self._index_file = index_file
        self._embedder = embedder
        self._embed = embed
        self.files: dict[str, IndexedFile] = {}

    def build(self, progress: Progress = no_progress) -> DocumentIndex:
        """Read the files that are new or have changed since the index file was written, and write the index file.

        A document that cannot be read is left out and logged.

        Raises:
            OSError: the folder does not exist, or the index file cannot be written.
        """
        saved = self._load()
        paths = find_files(self.folder)
        for number, path in enumerate(paths, 1):
            source = path.relative_to(self.folder).as_posix()
            stamp = _stamp(path)
            known = saved.get(source)
            if known is not None and known.stamp == stamp:
                self.files[source] = known
            elif (file := self._read(path, stamp)) is not None:
                self.files[source] = file
            progress(number, len(paths), source)
        if self._index_file is not None and self.files != saved:
            self._save(self._index_file)
        return self

    def _read(self, path: Path, stamp: str) -> IndexedFile | None:
        try:
            passages = read_passages(path, self.folder)
        except (OSError, ValueError) as error:
            log.warning("%s is not in the index: %s", path, error)
            return None
        if not passages:
            log.warning("%s has no text", path)
        return IndexedFile(stamp, list(self._with_embeddings(passages)))

    def _with_embeddings(self, passages: Sequence[Passage]) -> Iterator[Entry]:
        if self._embed is None:
            yield from map(Entry, passages)
            return
        for start in range(0, len(passages), EMBEDDING_BATCH):
            batch = passages[start : start + EMBEDDING_BATCH]
            for passage, vector in zip(batch, self._embed([passage.text for passage in batch]), strict=True):
                yield Entry(passage, list(vector))

    @property
    def entries(self) -> Iterator[Entry]:
        """The entries of all files."""
        for file in self.files.values():
            yield from file.entries

    def to_store(self) -> InMemoryDocumentStore:
        """Return a new document store with all entries, for a pipeline's retrievers."""
        store = new_document_store()
        store.write_documents([_to_document(number, entry) for number, entry in enumerate(self.entries)])
        return store

    def _load(self) -> Mapping[str, IndexedFile]:
        if self._index_file is None or not self._index_file.exists():
            return {}
        try:
            content = json.loads(self._index_file.read_text(encoding="utf-8"))
            if content["version"] != VERSION or content["embedder"] != self._embedder:
                return {}
            return {source: _file_from_json(file) for source, file in content["files"].items()}
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is not a readable index and is rebuilt: %r", self._index_file, error)
            return {}

    def _save(self, path: Path) -> None:
        """Write the index file by renaming a temporary file, so that readers never see a partial one."""
        files = {source: _file_to_json(file) for source, file in self.files.items()}
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        content = {"version": VERSION, "embedder": self._embedder, "files": files}
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _file_to_json(file: IndexedFile) -> dict[str, Any]:
    entries = [{"passage": asdict(entry.passage), "embedding": entry.embedding} for entry in file.entries]
    return {"stamp": file.stamp, "entries": entries}


def _file_from_json(file: Mapping[str, Any]) -> IndexedFile:
    entries = [Entry(Passage(**entry["passage"]), entry["embedding"]) for entry in file["entries"]]
    return IndexedFile(file["stamp"], entries)


def _to_document(number: int, entry: Entry) -> Document:
    """Return Haystack's document for an entry.

    The id is the entry's position in the index, because two passages may have the same text.
    """
    passage = entry.passage
    meta: dict[str, Any] = {"source": passage.source, "title": passage.title}
    if passage.page is not None:
        meta["page"] = passage.page
    embedding = list(entry.embedding) if entry.embedding is not None else None
    return Document(id=f"passage-{number}", content=passage.text, meta=meta, embedding=embedding)
