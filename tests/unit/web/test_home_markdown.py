"""The home page's renderer of Markdown, run by Node with a stand-in for the document.

A hostile answer must not stop the page. For each text below, a time that grows with the square of its length would be
many minutes, or a call for each mark would overflow the stack.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openai_compat.web.routes import home
from tests.support.tools import require_node

RENDERER = Path(home.__file__).parents[1] / "static" / "home" / "markdown.js"
SCRIPT = """
class Element {
  constructor(name) { this.name = name; this.childNodes = []; }
  setAttribute() {}
  append(...children) { this.childNodes.push(...children); }
}
globalThis.document = { createElement: (name) => new Element(name) };
const { render } = await import("./markdown.mjs");
const toValue = (node) => typeof node === "string" ? node : [node.name, ...node.childNodes.map(toValue)];
for (const text of TEXTS) {
  const container = new Element("div");
  render(container, text);
  const { length } = text;
  console.log(JSON.stringify(length > 1000 ? length : container.childNodes.map(toValue)));
}
"""
MARKS = {
    "a `b` c": ["a ", ["code", "b"], " c"],
    "``a ` b``": [["code", "a ` b"]],
    "`a": ["`a"],
    "``a`": ["``a`"],
    "**a *b* `c`** *d*": [["strong", "a ", ["em", "b"], " ", ["code", "c"]], " ", ["em", "d"]],
    "2 * 3 * 4 and **a": ["2 * 3 * 4 and **a"],
    "[a](https://b.c/d) [e](javascript:f) [g]": [["a", "a"], " [e](javascript:f) [g]"],
    "[a](http://) [b](http://c d) [e](http://f": ["[a](http://) [b](http://c d) [e](http://f"],
    "*[a](http://b) `c`": ["*", ["a", "a"], " ", ["code", "c"]],
}
BLOCKS = {
    "```py\na\n```\nb": [["pre", ["code", "a\n"]], ["p", "b"]],
    "# a\n- b\n- c\n\n1. d": [["h3", "a"], ["ul", ["li", "b"], ["li", "c"]], ["ol", ["li", "d"]]],
    "``` a `b` ": [["p", "``` a ", ["code", "b"], " "]],
}
HOSTILE_TEXTS = {
    "links without an end": '"[a](http://x".repeat(120000)',
    "code spans": '"`a` ".repeat(60000)',
    "open brackets": '"[".repeat(1e6) + "]"',
    "runs of backticks of every length": 'Array.from({ length: 1000 }, (_, n) => "`".repeat(n + 1)).join(" ")',
    "stars": '"* ".repeat(3e5)',
    "stars without spaces": '"**".repeat(1e5) + "a"',
    "a fence with spaces and a backtick": '"``` " + " ".repeat(1e6) + "`"',
    "a fence with a long language": '"```" + "a".repeat(1e6) + "`"',
    "a rule that is none": '"|\\n" + "-".repeat(1e6) + "x"',
    "lines": '"a\\n".repeat(200000)',
    "items": '"- a\\n".repeat(200000)',
    "paragraphs": '"a\\n\\n".repeat(200000)',
    "cells": '"|a".repeat(200000) + "\\n|-"',
}


def render(texts: str, folder: Path) -> list[Any]:
    """Return what the renderer makes of each text of a JavaScript list, only the length of a long one."""
    (folder / "markdown.mjs").write_text(RENDERER.read_text())
    (folder / "test.mjs").write_text(SCRIPT.replace("TEXTS", texts))
    command = [str(require_node()), "test.mjs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_marks_and_blocks_become_elements(tmp_path: Path) -> None:
    expected = [*([["p", *nodes]] for nodes in MARKS.values()), *BLOCKS.values()]
    assert render(json.dumps([*MARKS, *BLOCKS]), tmp_path) == expected


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_a_hostile_answer_is_rendered(text: str, tmp_path: Path) -> None:
    (length,) = render(f"[{text}]", tmp_path)
    assert length > 100_000
