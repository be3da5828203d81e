"""Accounts that close in a gevent worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.tools import ROOT

PROGRAM = """
from gevent import monkey
monkey.patch_all()
from gevent.monkey import get_original
import openai_compat

thread_of = get_original("_thread", "get_ident")
threads = []

class Ledger:
    def tidy(self, now):
        threads.append(thread_of())

    def close(self):
        threads.append(thread_of())

accounts = openai_compat.create_app().extensions["openai_compat"].accounts
accounts._tidy_ledger = Ledger()
accounts.bookkeeper._tidy(0.0)
accounts.close()
print(len(threads), len(set(threads)), thread_of() in threads)
"""


def test_the_thread_that_tidies_the_ledger_closes_it(tmp_path: Path) -> None:
    """Otherwise the worker may wait forever for a lock, because gevent loses wake-ups between threads."""
    environ = {**os.environ, "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["2", "1", "False"]
