"""The end of a worker."""

from __future__ import annotations

from types import SimpleNamespace

import gevent
import pytest
from gunicorn.workers.ggevent import GeventWorker

from openai_compat.server.worker import Worker


@pytest.mark.parametrize("error", [None, SystemExit])
def test_nothing_drains_a_worker_that_has_ended(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    """`_drain` writes to a file that gunicorn closes, which ended in a traceback."""
    ended = []

    def drain(_: Worker) -> None:
        try:
            gevent.sleep(60)
        finally:
            ended.append(True)

    def serve(_: GeventWorker) -> None:
        gevent.sleep(0)
        if error is not None:
            raise error

    monkeypatch.setattr(Worker, "_drain", drain)
    monkeypatch.setattr(GeventWorker, "run", serve)
    worker = Worker.__new__(Worker)
    worker.sockets, worker.wsgi, worker.cfg = [], None, SimpleNamespace(graceful_timeout=1)
    try:
        worker.run()
    except SystemExit:
        assert error is SystemExit
    assert ended == [True]
