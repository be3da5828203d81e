"""A folder of documents, read into passages: pieces that are short enough to be quoted to a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .html_text import read_html

SUFFIXES: Final = frozenset({".md", ".markdown", ".txt", ".text", ".rst", ".html", ".htm", ".pdf"})
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Of a document: what is larger is no text for people."""
MAX_CHUNK_CHARS: Final = 1600
"""Of a passage: about 400 tokens, so that five of them leave room in a small model's context."""
_HEADING: Final = re.compile(r"#{1,6} +(.+?) *#*")
_FENCE: Final = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document. `source` is the file's path below the folder; `page` counts a PDF's pages from 1."""

    text: str
    source: str
    title: str
    page: int | None = None


def find_files(folder: Path) -> list[Path]:
    """The documents below a folder in the order of their names, without hidden ones.

    Raises:
        OSError: it is no folder that can be read.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_chunks(path: Path, folder: Path) -> list[Chunk]:
    """The passages of a file.

    Raises:
        OSError, ValueError: it cannot be read; ValueError with a sentence that says why.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES // 1024 // 1024} MB")
    source = path.relative_to(folder).as_posix()
    if path.suffix.lower() == ".pdf":
        return list(_pdf_passages(path, source))
    text = path.read_bytes().decode("utf-8-sig", "replace")
    title = None
    if path.suffix.lower() in {".html", ".htm"}:
        title, text = read_html(text)
    title = title or _first_heading(text) or path.name
    return [Chunk(piece, source, title) for piece in split(text)]


def _pdf_passages(path: Path, source: str) -> Iterator[Chunk]:
    from pypdf import PdfReader

    try:
        reader = PdfReader(path)
        title = str((reader.metadata.title if reader.metadata else None) or path.name)
        for number, page in enumerate(reader.pages, 1):
            for piece in split(page.extract_text()):
                yield Chunk(piece, source, title, number)
    except Exception as error:  # a broken file makes a parser of such files raise anything
        raise ValueError(f"it is not a PDF that can be read ({error})") from error


def _first_heading(text: str) -> str | None:
    for line in text.splitlines()[:40]:
        if found := _HEADING.fullmatch(line):
            return found[1]
    return None


def split(text: str, most: int = MAX_CHUNK_CHARS) -> Iterator[str]:
    """The text in passages of at most `most` characters: sections, cut between paragraphs where they are longer.

    Each passage but the first of a section begins with the section's heading, so that it can be found and understood
    by itself.
    """
    for heading, section in _sections(text):
        pieces: list[str] = []
        for paragraph in _paragraphs(section, most - len(heading) - 2):
            if pieces and sum(map(len, pieces)) + 2 * len(pieces) + len(paragraph) > most:
                yield "\n\n".join(pieces)
                pieces = [heading] if heading else []
            pieces.append(paragraph)
        if pieces:
            yield "\n\n".join(pieces)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Each heading with its section, the heading's line included; a `#` within a block of code is none."""
    heading = ""
    lines: list[str] = []
    is_code = False
    for line in text.splitlines():
        if _FENCE.match(line):
            is_code = not is_code
        if not is_code and _HEADING.fullmatch(line):
            if any(text and text != heading for text in lines):  # else it is a heading right above another
                yield heading, "\n".join(lines)
                lines = []
            heading = line[:200]
        lines.append(line)
    yield heading, "\n".join(lines)


def _paragraphs(section: str, most: int) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", section):
        rest = paragraph.strip("\n").rstrip()
        while len(rest) > most:
            cut = max(rest.rfind("\n", 0, most), rest.rfind(" ", 0, most))
            cut = cut if cut > most // 2 else most
            yield rest[:cut].rstrip()
            rest = rest[cut:].lstrip()
        if rest:
            yield rest
