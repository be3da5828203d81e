"""Chunking of documents, which splits them into passages that are short enough to be quoted to a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .html_text import read_html

SUFFIXES: Final = frozenset({".md", ".markdown", ".txt", ".text", ".rst", ".html", ".htm", ".pdf"})
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of a document. Larger files are rarely text for people."""
MAX_PASSAGE_CHARS: Final = 1600
"""Maximum length of a passage, about 400 tokens, so that five passages fit into the context of a small model."""
MAX_HEADING_CHARS: Final = 200
TITLE_LINES: Final = 40
"""Number of lines in which the title is searched."""
_HEADING: Final = re.compile(r"#{1,6} +(.+?) *#*")
_FENCE: Final = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True, slots=True)
class Passage:
    """Part of a document. `source` is the file's path below the folder, and `page` counts a PDF's pages from 1."""

    text: str
    source: str
    title: str
    page: int | None = None


def find_files(folder: Path) -> list[Path]:
    """Return the documents below a folder, sorted by path and without hidden files.

    Raises:
        OSError: the folder does not exist or cannot be read.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_passages(path: Path, folder: Path) -> list[Passage]:
    """Return the passages of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large or not a valid document. The message gives the reason.
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
    return [Passage(part, source, title) for part in split(text)]


def _pdf_passages(path: Path, source: str) -> Iterator[Passage]:
    from pypdf import PdfReader

    try:
        reader = PdfReader(path)
        title = str((reader.metadata.title if reader.metadata else None) or path.name)
        for number, page in enumerate(reader.pages, 1):
            for part in split(page.extract_text()):
                yield Passage(part, source, title, number)
    except Exception as error:  # pypdf raises anything for a broken file
        raise ValueError(f"it is not a readable PDF ({error})") from error


def _first_heading(text: str) -> str | None:
    for line in text.splitlines()[:TITLE_LINES]:
        if match := _HEADING.fullmatch(line):
            return match[1]
    return None


def split(text: str, limit: int = MAX_PASSAGE_CHARS) -> Iterator[str]:
    """Yield the text in parts of at most `limit` characters, split at headings and between paragraphs.

    Every part of a section begins with the section's heading, so that it can be found and understood by itself.
    """
    for heading, section in _sections(text):
        parts: list[str] = []
        for paragraph in _paragraphs(section, limit - len(heading) - 2):
            if parts and sum(map(len, parts)) + 2 * len(parts) + len(paragraph) > limit:
                yield "\n\n".join(parts)
                parts = [heading] if heading else []
            parts.append(paragraph)
        if parts:
            yield "\n\n".join(parts)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield each heading with its section, which includes the heading. A `#` inside a code block is not a heading."""
    heading = ""
    lines: list[str] = []
    is_code = False
    for line in text.splitlines():
        if _FENCE.match(line):
            is_code = not is_code
        if not is_code and _HEADING.fullmatch(line):
            if any(text and text != heading for text in lines):  # otherwise this heading directly follows another
                yield heading, "\n".join(lines)
                lines = []
            heading = line[:MAX_HEADING_CHARS]
        lines.append(line)
    yield heading, "\n".join(lines)


def _paragraphs(section: str, limit: int) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", section):
        rest = paragraph.strip("\n").rstrip()
        while len(rest) > limit:
            cut = max(rest.rfind("\n", 0, limit), rest.rfind(" ", 0, limit))
            cut = cut if cut > limit // 2 else limit
            yield rest[:cut].rstrip()
            rest = rest[cut:].lstrip()
        if rest:
            yield rest
