"""Times of the doctor's client disconnects, in a file, because another worker of the machine may receive the query."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

MAX_RECORDS: Final = 100
RECORD_TTL: Final = 600.0


class DisconnectLog:
    """The latest `MAX_RECORDS` disconnects, one line each, in a folder of the server's user."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir(), f"openai-compat-doctor-{os.getuid()}")
        self._file = self._folder / "disconnects"

    def record(self, call_id: str, seconds: float) -> None:
        """Store after how many seconds the client of a call disconnected. A failure is logged."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if self._is_own():
                with self._file.open("a") as file:
                    file.write(f"{_digest(call_id)} {time.time():.0f} {seconds:.3f}\n")
                    size = file.tell()
                self._truncate(size)
        except OSError as error:
            log.warning("a client disconnect cannot be recorded for the doctor: %s", error)

    def lookup(self, call_id: str) -> float | None:
        """Return the seconds that were recorded for a call in the last ten minutes, None if there are none."""
        try:
            lines = self._file.read_text().splitlines() if self._is_own() else []
        except OSError:
            return None
        records = [line.split() for line in reversed(lines)]
        for digest, recorded_at, seconds in records:
            if digest == _digest(call_id) and float(recorded_at) >= time.time() - RECORD_TTL:
                return float(seconds)
        return None

    def _truncate(self, size: int) -> None:
        """Keep the later half once there are `MAX_RECORDS`. All records have nearly the same length."""
        if size < MAX_RECORDS * RECORD_BYTES:
            return
        kept = self._file.read_text().splitlines(keepends=True)[-MAX_RECORDS // 2 :]
        shorter = self._folder / f"disconnects.{os.getpid()}"
        shorter.write_text("".join(kept))
        shorter.replace(self._file)

    def _is_own(self) -> bool:
        """Return True if the folder belongs to this user.

        Any user can create it in the folder for temporary files, as a link to anywhere.
        """
        status = self._folder.lstat()
        return status.st_uid == os.getuid() and not self._folder.is_symlink()


def _digest(call_id: str) -> str:
    return hashlib.sha256(call_id.encode()).hexdigest()[:32]


RECORD_BYTES: Final = len(f"{_digest('')} {time.time():.0f} 0.000\n")
"""Length of the shortest record."""
