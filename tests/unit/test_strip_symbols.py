"""`scripts/strip-symbols`, which makes the environment of `make run-local` smaller."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from tests.support.tools import ROOT, require_tool

SCRIPT = ROOT / "scripts" / "strip-symbols"


def test_a_library_without_its_symbols_still_works(tmp_path: Path) -> None:
    compiler, library = require_tool("cc"), tmp_path / "answer.so"
    require_tool("strip")
    (tmp_path / "answer.c").write_text(
        "static int hidden(int n) { return n + 1; } int answer(void) { return hidden(41); }"
    )
    subprocess.run([compiler, "-g", "-fPIC", "-shared", "-o", library, tmp_path / "answer.c"], check=True)
    assert b".debug_info" in library.read_bytes()
    subprocess.run([SCRIPT, library], check=True)
    assert b".debug_info" not in library.read_bytes()
    assert ctypes.CDLL(str(library)).answer() == 42
    assert {path.name for path in tmp_path.iterdir()} == {"answer.c", "answer.so"}


def test_a_file_that_cannot_be_stripped_is_kept(tmp_path: Path) -> None:
    library = tmp_path / "answer.so"
    library.write_bytes(b"no library")
    subprocess.run([SCRIPT, library], check=True, stderr=subprocess.DEVNULL)
    assert library.read_bytes() == b"no library"
    assert [path.name for path in tmp_path.iterdir()] == ["answer.so"]
