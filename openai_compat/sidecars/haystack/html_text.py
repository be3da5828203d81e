"""Extraction of the visible text of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

INVISIBLE: Final = frozenset({"script", "style", "template", "noscript", "svg"})
"""Elements whose content is not text."""
BOILERPLATE: Final = frozenset({"nav", "header", "footer", "aside", "form"})
"""Elements whose content repeats on every page of a site."""
HEADINGS: Final = {f"h{level}": "#" * level for level in range(1, 7)}
BLOCKS: Final = frozenset(
    {"p", "div", "section", "article", "main", "ul", "ol", "li", "table", "tr", "br", "pre", "blockquote", "dl", "dt",
     "dd", "figure", "figcaption", "hr", *HEADINGS}
)  # fmt: skip


def read_html(text: str) -> tuple[str | None, str]:
    """Return the page's title and its text, with empty lines between paragraphs and Markdown headings.

    Boilerplate such as navigation is left out, unless the page has no other text.
    """
    title, body = _read(text, INVISIBLE | BOILERPLATE)
    return (title, body) if body else _read(text, INVISIBLE)


def _read(text: str, skipped: frozenset[str]) -> tuple[str | None, str]:
    parser = _TextParser(skipped)
    parser.feed(text)
    parser.close()
    lines = [re.sub(r"[ \t\r\f\v]+", " ", line).strip() for line in "".join(parser.text).split("\n")]
    body = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return " ".join("".join(parser.title).split()) or None, body


class _TextParser(HTMLParser):
    """Parser that collects text outside the `skipped` elements."""

    def __init__(self, skipped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._skipped = skipped
        self.title: list[str] = []
        self.text: list[str] = []
        self._open_skipped: list[str] = []
        self._is_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._skipped:
            self._open_skipped.append(tag)
        elif tag == "title":
            self._is_title = True
        elif self._open_skipped:
            pass
        elif tag in BLOCKS:
            self.text.append("\n" if tag in {"br", "tr", "li", "dt", "dd"} else "\n\n")
            if tag in HEADINGS:
                self.text.append(f"{HEADINGS[tag]} ")
        elif tag in {"td", "th"}:
            self.text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open_skipped:
            del self._open_skipped[self._open_skipped.index(tag) :]  # ends unclosed elements inside it as well
            self.text.append("\n\n")
        elif tag == "title":
            self._is_title = False
        elif tag in HEADINGS or tag in {"p", "div", "section", "article", "table", "pre", "blockquote"}:
            self.text.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._is_title and not self._open_skipped:
            self.title.append(data)
        elif not self._open_skipped:
            self.text.append(data)
