"""The index of a folder of documents: read once, kept in a file where one is named, renewed file by file."""

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

from .chunking import Chunk, find_files, read_chunks
from .haystack_compat import new_document_store

log = logging.getLogger(__name__)

VERSION: Final = 1
"""Of the file's form, and of how documents are read: one of another version is made anew."""
BATCH: Final = 32

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
Progress = Callable[[int, int, str], None]
"""Called after each file with how many are done, how many there are, and its path."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage in the index; `embedding` where the index has been given an embedding model."""

    passage: Chunk
    embedding: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Indexed:
    """A file as it was when it was read; a file whose `stamp` has not changed is not read again."""

    stamp: str
    entries: Sequence[Entry]


def no_progress(_done: int, _total: int, _path: str) -> None:
    """Nobody watches."""


class DocumentIndex:
    """The passages of a folder. `kept_in` is the file that keeps them, `embedder` the embedding model's name."""

    def __init__(
        self, folder: Path, kept_in: Path | None = None, embedder: str | None = None, embed: Embed | None = None
    ) -> None:
        self.folder = folder
        self._kept_in = kept_in
        self._embedder = embedder
        self._embed = embed
        self.files: dict[str, Indexed] = {}

    def build(self, progress: Progress = no_progress) -> DocumentIndex:
        """Reads what is new or has changed since the file was written. A document that cannot be read is left out, and
        named in the log.

        Raises:
            OSError: there is no such folder, or the file cannot be written.
        """
        kept = self._load()
        paths = find_files(self.folder)
        for number, path in enumerate(paths, 1):
            source = path.relative_to(self.folder).as_posix()
            stamp = _stamp(path)
            known = kept.get(source)
            if known is not None and known.stamp == stamp:
                self.files[source] = known
            elif (read := self._read(path, stamp)) is not None:
                self.files[source] = read
            progress(number, len(paths), source)
        if self._kept_in is not None and self.files != kept:
            self._save(self._kept_in)
        return self

    def _read(self, path: Path, stamp: str) -> Indexed | None:
        try:
            passages = read_chunks(path, self.folder)
        except (OSError, ValueError) as error:
            log.warning("%s is not in the index: %s", path, error)
            return None
        if not passages:
            log.warning("%s has no text", path)
        return Indexed(stamp, list(self._embedded(passages)))

    def _embedded(self, passages: Sequence[Chunk]) -> Iterator[Entry]:
        if self._embed is None:
            yield from map(Entry, passages)
            return
        for start in range(0, len(passages), BATCH):
            batch = passages[start : start + BATCH]
            for passage, vector in zip(batch, self._embed([passage.text for passage in batch]), strict=True):
                yield Entry(passage, list(vector))

    @property
    def entries(self) -> Iterator[Entry]:
        for file in self.files.values():
            yield from file.entries

    def to_store(self) -> InMemoryDocumentStore:
        """A document store of its own, as a pipeline's retrievers search it."""
        store = new_document_store()
        store.write_documents([_to_document(number, entry) for number, entry in enumerate(self.entries)])
        return store

    def _load(self) -> Mapping[str, Indexed]:
        if self._kept_in is None or not self._kept_in.exists():
            return {}
        try:
            content = json.loads(self._kept_in.read_text(encoding="utf-8"))
            if content["version"] != VERSION or content["embedder"] != self._embedder:
                return {}
            return {source: _from_json(file) for source, file in content["files"].items()}
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is no index that can be read, and is made anew: %r", self._kept_in, error)
            return {}

    def _save(self, path: Path) -> None:
        """Written beside it and put in its place: whoever reads it meanwhile reads a whole one."""
        files = {source: asdict(file) for source, file in self.files.items()}
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        content = {"version": VERSION, "embedder": self._embedder, "files": files}
        beside.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        beside.replace(path)


def _stamp(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def _from_json(file: Mapping[str, Any]) -> Indexed:
    entries = [Entry(Chunk(**entry["passage"]), entry["embedding"]) for entry in file["entries"]]
    return Indexed(file["stamp"], entries)


def _to_document(number: int, entry: Entry) -> Document:
    """Its id is its place in the index: two passages may have the same words."""
    passage = entry.passage
    meta: dict[str, Any] = {"source": passage.source, "title": passage.title}
    if passage.page is not None:
        meta["page"] = passage.page
    embedding = list(entry.embedding) if entry.embedding is not None else None
    return Document(id=f"passage-{number}", content=passage.text, meta=meta, embedding=embedding)
