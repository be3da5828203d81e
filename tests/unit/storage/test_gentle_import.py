"""Import of large libraries beside streams."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from openai_compat.storage.gentle_import import SWITCH_INTERVAL, import_gently

OBSERVER = "import gc, sys; observed = gc.isenabled(), sys.getswitchinterval()"


def test_other_threads_get_brief_turns_during_the_import_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large_library.py").write_text(OBSERVER)
    monkeypatch.syspath_prepend(tmp_path)
    interval = sys.getswitchinterval()
    [module] = import_gently("large_library")
    assert module.observed == (False, pytest.approx(SWITCH_INTERVAL))
    with pytest.raises(ModuleNotFoundError):
        import_gently("no_such_library")
    assert (gc.isenabled(), sys.getswitchinterval()) == (True, interval)
