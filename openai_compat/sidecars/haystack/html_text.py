"""The text of a page of HTML, as a reader sees it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

UNSEEN: Final = frozenset({"script", "style", "template", "noscript", "svg"})
"""What is no text."""
FRAME: Final = frozenset({"nav", "header", "footer", "aside", "form"})
"""What is the same on every page."""
HEADINGS: Final = {f"h{level}": "#" * level for level in range(1, 7)}
BLOCKS: Final = frozenset(
    {"p", "div", "section", "article", "main", "ul", "ol", "li", "table", "tr", "br", "pre", "blockquote", "dl", "dt",
     "dd", "figure", "figcaption", "hr", *HEADINGS}
)  # fmt: skip


def read_html(text: str) -> tuple[str | None, str]:
    """The page's title, and its text: paragraphs with empty lines between, headings marked as in Markdown.

    Of a page that is all navigation, or never closes it, the text is that.
    """
    title, body = _read(text, UNSEEN | FRAME)
    return (title, body) if body else _read(text, UNSEEN)


def _read(text: str, unseen: frozenset[str]) -> tuple[str | None, str]:
    reader = _Reader(unseen)
    reader.feed(text)
    reader.close()
    lines = [re.sub(r"[ \t\r\f\v]+", " ", line).strip() for line in "".join(reader.pieces).split("\n")]
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return " ".join("".join(reader.title).split()) or None, body


class _Reader(HTMLParser):
    def __init__(self, unseen: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._is_unseen = unseen.__contains__
        self.title: list[str] = []
        self.pieces: list[str] = []
        self._unseen: list[str] = []
        self._is_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._is_unseen(tag):
            self._unseen.append(tag)
        elif tag == "title":
            self._is_title = True
        elif self._unseen:
            pass
        elif tag in BLOCKS:
            self.pieces.append("\n" if tag in {"br", "tr", "li", "dt", "dd"} else "\n\n")
            if tag in HEADINGS:
                self.pieces.append(f"{HEADINGS[tag]} ")
        elif tag in {"td", "th"}:
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]  # what was not closed within ends with it
            self.pieces.append("\n\n")
        elif tag == "title":
            self._is_title = False
        elif tag in HEADINGS or tag in {"p", "div", "section", "article", "table", "pre", "blockquote"}:
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._is_title and not self._unseen:
            self.title.append(data)
        elif not self._unseen:
            self.pieces.append(data)
