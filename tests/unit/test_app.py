"""Components of an application, and how they are closed."""

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
    """Return a list that gets the name of each closed component."""
    gc.collect()  # close the components of earlier tests first
    names: list[str] = []

    def record(component: Any) -> None:
        names.append(getattr(component, "name", type(component).__name__))

    monkeypatch.setattr("openai_compat.backends.base.Backend.close", record)
    monkeypatch.setattr(UpstreamClient, "close", record)
    return names


def make_app(**environ: str) -> Flask:
    return create_app(environment.load({**ENVIRONMENT, **environ}))


def test_components_are_closed_once_with_the_upstream_client_last(closed: list[str]) -> None:
    state = make_app().extensions["openai_compat"]
    for _ in range(2):
        state.close()
        assert closed == ["external-chat", "*", "UpstreamClient"]


def test_a_component_that_fails_to_close_does_not_prevent_the_others(
    closed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(EchoBackend, "close", fail)
    create_app(environment.load({})).extensions["openai_compat"].close()
    assert closed == ["UpstreamClient"]
    assert "EchoBackend could not be closed" in capsys.readouterr().err


def test_a_collected_application_has_closed_its_components(closed: list[str]) -> None:
    """Tests and tools create hundreds of applications in one process."""
    app = make_app()
    app.test_client().get("/v1/models/external-chat")
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None
    assert closed == ["external-chat", "*", "UpstreamClient"]


def test_components_are_closed_at_the_end_of_the_process() -> None:
    program = (
        "from openai_compat.config import environment\n"
        "from openai_compat import create_app\n"
        "from openai_compat.backends.http.client import UpstreamClient\n"
        "UpstreamClient.close = lambda self: print('closed')\n"
        "app = create_app(environment.load({}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "closed\n"
