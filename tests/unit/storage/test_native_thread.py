"""Hand-over of work from greenlets to the native thread."""

from __future__ import annotations

import subprocess
import sys

from tests.support.tools import ROOT

PROGRAM = """
import gevent.monkey; gevent.monkey.patch_all()
import os, gevent
from gevent._threading import Lock
from openai_compat.storage.native_thread import NativeThread
thread = NativeThread()

callers = [gevent.spawn(thread.call, lambda number=number: number) for number in range(20)]
assert [caller.get() for caller in callers] == list(range(20))

failing = gevent.spawn(lambda: thread.call(lambda: 1 / 0))
failing.join()
assert isinstance(failing.exception, ZeroDivisionError)

blocked = Lock()
blocked.acquire()
try:
    with gevent.Timeout(0.01):
        thread.call(blocked.acquire)
    raise AssertionError("the call was not cut off")
except gevent.Timeout:
    blocked.release()
assert thread.call(lambda: "later") == "later"

child = os.fork()
if child == 0:
    os._exit(0 if thread.call(lambda: "forked") == "forked" else 1)
assert os.waitpid(child, 0)[1] == 0
thread.close()
"""


def test_callers_get_their_own_results_and_errors_whatever_happens_to_others() -> None:
    """A caller that is cut off leaves its result behind, and a fork starts a thread of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
