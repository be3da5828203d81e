"""Applications in this process, for what needs no socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from openai_compat import create_app
from openai_compat.config import environment
from tests.support.mock_upstream import MockUpstream

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client() -> MakeClient:
    """`make_client(PORT="1", ...)`: a client of an application that is configured so."""

    def make(**environ: str) -> FlaskClient:
        return create_app(environment.load(environ)).test_client()

    return make


@pytest.fixture
def client(make_client: MakeClient) -> FlaskClient:
    return make_client()


@pytest.fixture(scope="session")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock
