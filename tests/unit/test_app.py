"""What an application holds, and how it lets go of it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest
from flask import Flask

from openai_compat import create_app
from openai_compat.backends.echo.backend import EchoBackend
from openai_compat.backends.http.client import UpstreamClient
from openai_compat.config import environment

ENVIRONMENT = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "EXTERNAL_CHAT_URL": "http://127.0.0.1:9/"}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what has been closed, in order."""
    gc.collect()  # what other tests have left is closed before
    names: list[str] = []

    def note(part: Any) -> None:
        names.append(getattr(part, "name", type(part).__name__))

    monkeypatch.setattr("openai_compat.backends.base.Backend.close", note)
    monkeypatch.setattr(UpstreamClient, "close", note)
    return names


def make_app(**environ: str) -> Flask:
    return create_app(environment.load({**ENVIRONMENT, **environ}))


def test_all_is_closed_once_the_forwarder_last(closed: list[str]) -> None:
    state = make_app().extensions["openai_compat"]
    for _ in range(2):
        state.close()
        assert closed == ["external-chat", "*", "UpstreamClient"]


def test_one_that_cannot_be_closed_does_not_keep_the_others(
    closed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(EchoBackend, "close", fail)
    create_app(environment.load({})).extensions["openai_compat"].close()
    assert closed == ["UpstreamClient"]
    assert "EchoBackend could not be closed" in capsys.readouterr().err


def test_an_application_that_is_gone_has_let_go_of_everything(closed: list[str]) -> None:
    """Two in one process, one after the other, is what tests and tools make hundreds of."""
    app = make_app()
    app.test_client().get("/v1/models/external-chat")
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
    assert closed == ["external-chat", "*", "UpstreamClient"]


def test_the_end_of_the_process_closes_too() -> None:
    program = (
        "from openai_compat.config import environment\n"
        "from openai_compat import create_app\n"
        "from openai_compat.backends.http.client import UpstreamClient\n"
        "UpstreamClient.close = lambda self: print('closed')\n"
        "app = create_app(environment.load({}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "closed\n"
