"""The code blocks of a Markdown file, by section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.tools import ROOT

_FENCE = re.compile(r"^```(\w*)\s*$")
_EXTRA = re.compile(r"^<!-- extra: ([\w-]+) -->$")
_FILE_NAME = re.compile(r"^(?:#|//) (\.?[\w-]+(?:\.[\w-]+)*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block. `place` is its file and line."""

    place: str
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The file name in the first line of the block, `# models.yaml`, or None."""
        found = _FILE_NAME.match(self.text.partition("\n")[0])
        return found[1] if found and "." in found[1] else None


@dataclass
class Section:
    """The blocks between one heading and the next of any level.

    `extras` are those that a comment below the heading names, `<!-- extra: databricks -->`.
    """

    document: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.document}: {self.title}"


def read_sections(path: Path) -> list[Section]:
    """Return the sections that have a block."""
    document = str(path.relative_to(ROOT))
    sections = [Section(document, "")]
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence:
            text = "\n".join(_read_to_fence(lines, f"{document}:{number}"))
            sections[-1].blocks.append(Block(f"{document}:{number}", fence[1], text))
        elif line.startswith("#"):
            sections.append(Section(document, line.lstrip("# ")))
        elif extra := _EXTRA.match(line):
            sections[-1].extras.append(extra[1])
    return [section for section in sections if section.blocks]


def _read_to_fence(lines: Iterator[tuple[int, str]], place: str) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line
    raise AssertionError(f"{place}: the block has no end")
