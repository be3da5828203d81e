"""Splitting of documents into passages, for every supported format."""

from __future__ import annotations

from pathlib import Path

import pytest

from openai_compat.sidecars.haystack import chunking
from openai_compat.sidecars.haystack.chunking import MAX_PASSAGE_CHARS, find_files, read_passages, split
from openai_compat.sidecars.haystack.html_text import read_html
from tests.support.pdf import to_pdf

pytestmark = pytest.mark.extra("haystack")

PAGE = """<!doctype html><html><head><title>Opening
 hours</title><style>p { color: red }</style></head><body>
<nav><a href="/">Home</a></nav><header>Our shop</header>
<h1>Opening hours</h1><p>We open at <b>nine</b>.</p><script>track("you < me")</script>
<ul><li>Monday</li><li>Tuesday &amp; Wednesday</li></ul>
<table><tr><th>Day</th><th>Until</th></tr><tr><td>Friday</td><td>18:00</td></tr></table>
<footer>Imprint</footer></body></html>"""


def test_html_gives_title_and_visible_text() -> None:
    title, text = read_html(PAGE)
    assert title == "Opening hours"
    assert text == ("# Opening hours\n\nWe open at nine.\n\nMonday\nTuesday & Wednesday\n\nDay Until\nFriday 18:00")


def test_html_with_unclosed_elements_is_read() -> None:
    assert read_html("<p>one<nav>skip<p>skip</nav>two")[1] == "one\n\ntwo"
    assert read_html("<header><h1>All</h1> of it")[1] == "# All\n\nof it"


def test_find_files_searches_subfolders_and_skips_hidden_files(tmp_path: Path) -> None:
    for name in ("b.md", "a/c.HTML", "a/d.pdf", ".hidden.md", ".git/x.md", "picture.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)] == [
        "a/c.HTML", "a/d.pdf", "b.md", "e.txt",
    ]  # fmt: skip
    with pytest.raises(NotADirectoryError):
        find_files(tmp_path / "nowhere")


def test_markdown_is_split_at_its_headings(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text("# Guide\n\n## First\n\nOne.\n\n```sh\n# no heading\n```\n\n## Second\n\nTwo.\n", "utf-8")
    passages = read_passages(file, tmp_path)
    assert [passage.text for passage in passages] == [
        "# Guide\n\n## First\n\nOne.\n\n```sh\n# no heading\n```",
        "## Second\n\nTwo.",
    ]
    assert {(passage.source, passage.title) for passage in passages} == {("guide.md", "Guide")}


def test_a_pdf_is_split_at_its_pages(tmp_path: Path) -> None:
    (tmp_path / "manual.pdf").write_bytes(to_pdf("The pump is in the cellar.", "The key is under the mat."))
    passages = read_passages(tmp_path / "manual.pdf", tmp_path)
    assert [(passage.text.strip(), passage.page) for passage in passages] == [
        ("The pump is in the cellar.", 1),
        ("The key is under the mat.", 2),
    ]


def test_an_invalid_pdf_is_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"not a PDF")
    with pytest.raises(ValueError, match="not a readable PDF"):
        read_passages(tmp_path / "broken.pdf", tmp_path)


def test_a_file_above_the_size_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "MAX_FILE_BYTES", 3)
    (tmp_path / "a.txt").write_text("1234")
    with pytest.raises(ValueError, match="it has more than"):
        read_passages(tmp_path / "a.txt", tmp_path)


def test_long_sections_are_split_between_words_and_repeat_their_heading() -> None:
    words = [f"word{number}" for number in range(2000)]
    parts = list(split("# Long\n\n" + " ".join(words)))
    assert len(parts) > 5
    assert all(len(part) <= MAX_PASSAGE_CHARS for part in parts)
    assert all(part.startswith("# Long") for part in parts)
    assert [word for part in parts for word in part.removeprefix("# Long").split()] == words


def test_text_without_spaces_is_split_at_the_limit() -> None:
    assert "".join(split("x" * 5000)) == "x" * 5000
    assert list(split(" \n\n ")) == []
