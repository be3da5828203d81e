"""The doctor's record of client disconnects, which stays small however many calls are made."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from openai_compat.tools.doctor import disconnect_log
from openai_compat.tools.doctor.disconnect_log import MAX_RECORDS, DisconnectLog


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_another_worker_finds_a_record_for_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    DisconnectLog().record("a", 1.25)
    DisconnectLog().record("b", 2.5)
    assert [DisconnectLog().lookup(call_id) for call_id in ("a", "b", "c")] == [1.25, 2.5, None]
    monkeypatch.setattr(disconnect_log, "RECORD_TTL", -1.0)
    assert DisconnectLog().lookup("a") is None


def test_thousands_of_calls_leave_at_most_a_hundred_records_in_one_file(folder: Path) -> None:
    for number in range(5000):
        DisconnectLog().record(f"call-{number}", float(number))
    (file,) = [path for path in folder.rglob("*") if path.is_file()]
    assert MAX_RECORDS // 2 <= len(file.read_text().splitlines()) <= MAX_RECORDS
    assert [DisconnectLog().lookup(f"call-{number}") for number in (4999, 4960, 4000)] == [4999.0, 4960.0, None]


def test_a_record_reads_the_others_only_once_in_fifty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record used to look at every file of the folder."""
    reads = 0
    read_text = Path.read_text

    def counted(path: Path) -> str:
        nonlocal reads
        reads += 1
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", counted)
    for number in range(1000):
        DisconnectLog().record(f"call-{number}", 0.5)
    assert reads <= 1000 // (MAX_RECORDS // 2)


def test_a_folder_of_another_kind_is_not_written_to(folder: Path) -> None:
    """Any user can put a link there first."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    DisconnectLog().record("a", 1.0)
    (own,) = [path for path in folder.iterdir() if path != elsewhere]
    (own / "disconnects").unlink()
    own.rmdir()
    own.symlink_to(elsewhere)
    DisconnectLog().record("a", 1.0)
    assert (list(elsewhere.iterdir()), DisconnectLog().lookup("a")) == ([], None)
