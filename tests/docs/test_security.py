"""The promises of SECURITY.md, each of which names the tests that hold it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.tools import ROOT

TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def promises() -> Iterator[tuple[str, str]]:
    """Yield each promise with its cell of tests."""
    _, _, guarantees = (ROOT / "SECURITY.md").read_text().partition("\n## What the server guarantees\n")
    for line in guarantees.partition("\n## ")[0].splitlines():
        if line.startswith("| ") and not line.startswith("| promise |"):
            promise, tests = line.strip("| ").split(" | ")
            yield promise, tests


@pytest.mark.parametrize(("promise", "tests"), list(promises()))
def test_every_promise_names_tests_that_exist(promise: str, tests: str) -> None:
    named = TEST.findall(tests)
    assert named, promise
    assert TEST.sub("", tests).strip(", ") == ""
    for path, name in named:
        assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_the_table_is_read() -> None:
    assert len(list(promises())) > 15
