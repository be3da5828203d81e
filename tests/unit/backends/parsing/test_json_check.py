"""Validation of large JSON answers in slices."""

from __future__ import annotations

import json
import time

import pytest

from openai_compat.backends.parsing.json_check import SLICE_BYTES, check_large_object


def test_a_number_of_megabytes_is_checked_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a slice was searched byte by byte, which took 8 s for 60 MB."""
    turns: list[float] = []
    monkeypatch.setattr(time, "sleep", turns.append)
    check_large_object(b'{"x": 1' + b"0" * 8 * SLICE_BYTES + b"}")
    assert len(turns) >= 8


@pytest.mark.parametrize("padding", range(8))
def test_no_literal_is_divided_at_the_end_of_a_slice(padding: int) -> None:
    values = [True, False, None, 1.5e-7, "text"] * (SLICE_BYTES // 20)
    check_large_object(json.dumps({"x" * padding: values}).encode())
